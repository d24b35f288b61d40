"""A stand-in for the Hugging Face hub on this machine: enough of its protocol for `huggingface_hub` to list, download
and commit.

    with hub({"models/owner/name": {"main": folder, "v1": other}}, tmp_path / "cache") as server:
        jaxconf.load(folder)
        assert server.requests == []

Inside the block this process, and processes it starts, know no other hub, empty caches and no token.
"""

import base64
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
CHANGE = r"/api/(datasets)/([^/]+/[^/]+)/(preupload|commit|settings|paths-info)(?:/main|/[0-9a-f]{40})?"
FILE = r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"


@dataclass
class Hub:
    """What the stand-in serves, where, and what it was asked for ("GET /api/models/owner/name")."""

    repos: dict[str, dict[str, Path]]
    token: str | None = None
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    writer: str | None = None  # the token that may make and change datasets, and see those in `private`
    private: set[str] = field(default_factory=set)
    uploads: Path = Path()  # where new datasets are
    commits: list[list[str]] = field(default_factory=list)  # of each commit, the paths that it changed


@contextmanager
def hub(
    repos: dict[str, dict[str, Path]], cache: Path, token: str | None = None, writer: str | None = None
) -> Iterator[Hub]:
    """Serves repos of the form {"models/OWNER/NAME" or "datasets/OWNER/NAME": {revision: folder}}.

    The folders are read anew at each request, so that a test can change one as a push would. With `token` the repos are
    gated: anyone can list their files, and only who sends the token can download them. Who sends the token `writer` can
    make datasets and commit to them.
    """
    served = Hub(repos, token, writer=writer, uploads=cache.with_name(f"{cache.name}-uploads"))
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
        elif path == "/":
            self.send(200, b"", {})
        else:
            self.fail(404, "NotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, writes = urlsplit(self.path).path, self.headers.get("Authorization") == f"Bearer {self.hub.writer}"
        match = re.fullmatch(CHANGE, path)
        if path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif match and match[3] == "paths-info":
            self.answer_paths(f"datasets/{match[2]}", json.loads(body)["paths"])
        elif not writes:
            self.fail(403, "Forbidden")
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif match and match[3] == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self.send_json({"files": [{"path": file["path"], **modes} for file in json.loads(body)["files"]]})
        elif match and match[3] == "commit":
            self.commit(f"datasets/{match[2]}", [json.loads(line) for line in body.splitlines()])
        elif match and match[3] == "settings":
            self.see(f"datasets/{match[2]}", json.loads(body))
            self.send_json({})
        else:
            self.fail(404, "NotFound")

    do_PUT = do_POST

    def create(self, asked: dict[str, object]) -> None:
        repo = f"datasets/{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.hub.endpoint}/{repo}"}
        if repo in self.hub.repos:
            self.send_json(address, 409)
            return
        folder = self.hub.uploads / repo
        folder.mkdir(parents=True)
        self.hub.repos[repo] = {"main": folder}
        self.see(repo, asked)
        self.send_json(address)

    def see(self, repo: str, asked: dict[str, object]) -> None:
        """Make a dataset private or public, in the words of this or of an earlier huggingface_hub."""
        private = asked.get("private", False) or asked.get("visibility") == "private"
        (self.hub.private.add if private else self.hub.private.discard)(repo)

    def commit(self, repo: str, lines: list[dict]) -> None:
        folder, changed = self.hub.repos[repo]["main"], []
        for line in lines[1:]:  # the first has the message
            file = folder / line["value"]["path"]
            changed.append(line["value"]["path"])
            if line["key"] == "file":
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
            else:
                file.unlink()
        self.hub.commits.append(changed)
        commit, _ = self.find(repo, "main")
        url = f"{self.hub.endpoint}/{repo}/commit/{commit}"
        self.send_json({"success": True, "commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def answer_paths(self, repo: str, paths: list[str]) -> None:
        if found := self.find(repo, "main"):
            _, files = found
            rows = [{"type": "file", "path": path, "size": len(files[path])} for path in paths if path in files]
            self.send_json([{**row, "oid": _sha1(files[row["path"]])} for row in rows])

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
            about = {"ETag": f'"{_sha1(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
                about["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                self.send(206, data[first : last + 1], about)
            else:
                self.send(200, data, about)

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a branch, tag or commit names, and its files; None after answering that there is none."""
        unseen = repo in self.hub.private and self.headers.get("Authorization") != f"Bearer {self.hub.writer}"
        if repo not in self.hub.repos or unseen:
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

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
