"""What `jaxconf doctor` finds."""

import importlib.metadata
import json
import time
from pathlib import Path

import huggingface_hub
import jax
import pytest
from commands import run
from hub import hub, point_at
from huggingface_hub import constants

import jaxconf
from jaxconf.runtime.doctor import Finding, doctor


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the caches of models and of programs, which are empty."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    return tmp_path


def found(timeout: float = 5.0) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor(timeout)}


def test_everything_is_named_and_measured(caches):
    (caches / "programs").mkdir()
    (caches / "programs/a").write_bytes(bytes(3_000_000))
    with hub({}, caches / "models") as server:
        of = found()
        assert server.requests == ["HEAD /"]
    assert not any(finding.problem for finding in of.values())
    assert of["jaxconf"].found == jaxconf.__version__
    assert of["jax"].found == jax.__version__
    assert of["numpy"].found == importlib.metadata.version("numpy")
    assert of["devices"].found == f"{jax.device_count()} cpu (cpu)"
    assert "answers in" in of["hub"].found
    assert "without a token" in of["hub"].found
    assert of["cache of programs"].found == f"{caches / 'programs'}, 3 MB"
    assert of["cache of models and data"].found == f"{caches / 'models'}, 0 MB"
    assert of["requirements"].found == "all installed"
    assert "test (installed)" in of["extras"].found


def test_a_machine_without_a_network_is_in_order(caches, monkeypatch):
    with point_at("http://127.0.0.1:9", caches / "models"):
        of = found()
        assert "cannot be reached" in of["hub"].found
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE is set" in found()["hub"].found
    assert not any(finding.problem for finding in of.values())


@pytest.mark.parametrize(
    ("proxy", "address", "word"), [("ftp://nowhere", "https://127.0.0.1:9", "ftp"), ("", "https://hub:port", "port")]
)
def test_a_proxy_and_an_address_of_no_use_are_said(caches, monkeypatch, proxy, address, word):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    huggingface_hub.utils.close_session()
    said = found()["hub"].found.removeprefix(address)
    huggingface_hub.utils.close_session()
    assert "cannot be reached" in said
    assert word in said


def test_a_hub_that_never_answers_is_waited_for_no_longer_than_said(caches, monkeypatch):
    class Silent:
        def head(self, *_: object, **__: object) -> None:
            time.sleep(30)

    monkeypatch.setattr(huggingface_hub, "get_session", Silent)
    begun = time.monotonic()
    assert "no answer in 0.2 seconds" in found(0.2)["hub"].found
    assert time.monotonic() - begun < 5


def test_what_is_wrong_sets_the_exit_code(caches, monkeypatch, capsys):
    versions = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1" if name == "flax" else versions(name))
    (caches / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(caches / "file/cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stopped:
        run("doctor", "--json")
    assert stopped.value.code == 1
    said = json.loads(capsys.readouterr().out)
    wrong = {finding["what"]: finding for finding in said["findings"] if finding["problem"]}
    assert not said["ok"]
    assert wrong.keys() == {"requirements", "cache of models and data"}
    assert "flax>=" in wrong["requirements"]["found"]
    assert "HF_HUB_CACHE" in wrong["cache of models and data"]["problem"]


def test_no_device_is_a_problem(caches, monkeypatch):
    def none() -> list[jax.Device]:
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "JAX_PLATFORMS" in found()["devices"].problem
