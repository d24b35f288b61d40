"""A stand-in for the Hugging Face hub on this machine: enough of its protocol for `huggingface_hub` to list and
download.

    with hub({"models/owner/name": {"main": folder, "v1": other}}, tmp_path / "cache") as server:
        jaxconf.load(folder)
        assert server.requests == []

Inside the block this process, and processes it starts, know no other hub, empty caches and no token.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants, hf_api

INFO = r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?"
TREE = r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)"
FILE = r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"


@dataclass
class Hub:
    """What the stand-in serves, where, and what it was asked for ("GET /api/models/owner/name")."""

    repos: dict[str, dict[str, Path]]
    token: str | None = None
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub(repos: dict[str, dict[str, Path]], cache: Path, token: str | None = None) -> Iterator[Hub]:
    """Serves repos of the form {"models/OWNER/NAME" or "datasets/OWNER/NAME": {revision: folder}}.

    The folders are read anew at each request, so that a test can change one as a push would. With `token` the repos are
    gated: anyone can list their files, and only who sends the token can download them.
    """
    served = Hub(repos, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": served}))
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with point_at(served.endpoint, cache):
            yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def point_at(endpoint: str, cache: Path) -> Iterator[None]:
    """Makes `endpoint` the only hub there is and `cache` the place for downloads."""
    with pytest.MonkeyPatch.context() as patch:
        # The library reads its environment once, at import; the variables are for processes that the test starts.
        patch.setenv("HF_ENDPOINT", endpoint)
        patch.setenv("HF_HUB_CACHE", str(cache))
        patch.setenv("XDG_CACHE_HOME", str(cache.with_name(f"{cache.name}-of-jaxconf")))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        patch.setattr(hf_api.api, "endpoint", endpoint)
        close_session()  # so that the next one sees NO_PROXY
        try:
            yield
        finally:
            close_session()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = urlsplit(self.path).path
        if match := re.fullmatch(FILE, path):
            self.answer_file(*match.groups())
        elif match := re.fullmatch(TREE, path):
            self.answer_tree(*match.groups())
        elif match := re.fullmatch(INFO, path):
            self.answer_info(*match.groups())
        else:
            self.fail(404, "NotFound")

    do_HEAD = do_GET

    def answer_info(self, kind: str, repo: str, revision: str | None) -> None:
        if found := self.find(f"{kind}/{repo}", revision or "main"):
            commit, files = found
            self.send_json({"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files], "tags": []})

    def answer_tree(self, kind: str, repo: str, revision: str) -> None:
        if found := self.find(f"{kind}/{repo}", revision):
            _, files = found
            self.send_json(
                [{"type": "file", "path": name, "size": len(data), "oid": _sha1(data)} for name, data in files.items()]
            )

    def answer_file(self, datasets: str | None, repo: str, revision: str, name: str) -> None:
        found = self.find(("datasets/" if datasets else "models/") + repo, revision)
        if not found:
            return
        commit, files = found
        data = files.get(unquote(name))
        sent_token = self.headers.get("Authorization")
        if self.hub.token and sent_token != f"Bearer {self.hub.token}":
            self.fail(403 if sent_token else 401, "GatedRepo")
        elif data is None:
            self.fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        else:
            self.send(200, data, {"ETag": f'"{_sha1(data)}"', "X-Repo-Commit": commit})

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a branch, tag or commit names, and its files; None after answering that there is none."""
        if repo not in self.hub.repos:
            self.fail(404, "RepoNotFound")
            return None
        for name, folder in self.hub.repos[repo].items():
            # The hub puts a .gitattributes into every repo.
            files = {".gitattributes": b""} | {
                file.relative_to(folder).as_posix(): file.read_bytes()
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            commit = _sha1(repr(files).encode())
            if unquote(revision) in (name, commit):
                return commit, files
        self.fail(404, "RevisionNotFound")
        return None

    def fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": code} | (headers or {}))

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
