"""Compiled programs are kept in the user's cache folder, apart for each kind of processor, or where the user says."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_knowledge import RECORDED

from jaxconf.runtime import program_cache
from jaxconf.runtime.program_cache import use_cache

FOLDER = "JAX_COMPILATION_CACHE_DIR"
COUNTED = """
import collections, sys
from jaxconf.cli.main import main
from jaxconf.runtime.program_cache import use_cache
use_cache()
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
main(sys.argv[1:])
print(events["compile_requests_use_cache"], events["cache_hits"])
"""


@pytest.fixture(autouse=True)
def warned() -> Iterator[None]:
    with warnings.catch_warnings():
        yield


def chosen(**environment: str) -> Path | None:
    use_cache(environment)
    return Path(environment[FOLDER]) if FOLDER in environment else None


def test_the_folder_is_that_of_the_option_or_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    given = chosen(JAXCONF_CACHE=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "xdg"))
    assert given
    assert given.parent == tmp_path / "mine"
    machine = given.name
    assert chosen(XDG_CACHE_HOME=str(tmp_path / "xdg")) == tmp_path / "xdg" / "jaxconf" / machine
    assert chosen() == tmp_path / ".cache" / "jaxconf" / machine
    monkeypatch.setattr(sys, "platform", "darwin")
    assert chosen() == tmp_path / "Library" / "Caches" / "jaxconf" / machine


def test_it_can_be_switched_off_and_jaxs_own_setting_stays() -> None:
    assert chosen(JAXCONF_CACHE="off") is None
    own = {FOLDER: "mine", "JAXCONF_CACHE": "other"}
    use_cache(own)
    assert own == {FOLDER: "mine", "JAXCONF_CACHE": "other"}


def test_a_folder_that_cannot_be_written_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert chosen(JAXCONF_CACHE=str(tmp_path / "file" / "within")) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert chosen(JAXCONF_CACHE=str(tmp_path)) is None


def test_what_was_used_least_recently_is_deleted_when_the_folder_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chosen(JAXCONF_CACHE=str(tmp_path))
    assert folder
    folder.mkdir()
    for age, name in enumerate(["new", "newer", "newest"]):
        (folder / name).write_bytes(bytes(40))
        os.utime(folder / name, (10**9 + age, 10**9))
    monkeypatch.setattr(program_cache, "LARGEST", 120)
    chosen(JAXCONF_CACHE=str(tmp_path))
    assert len([*folder.iterdir()]) == 3
    monkeypatch.setattr(program_cache, "LARGEST", 119)
    chosen(JAXCONF_CACHE=str(tmp_path))
    assert [file.name for file in folder.iterdir()] == ["newest"]


@pytest.mark.command
def test_a_second_run_compiles_nothing_but_what_a_spoilt_file_held(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAXCONF_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

    def programs_compiled() -> tuple[int, str]:
        what = ["analyze", str(RECORDED / "model"), "--data", str(RECORDED / "text.jsonl"), "--tokens", "256"]
        command = [sys.executable, "-c", COUNTED, *what, "--out", str(tmp_path / "out"), "--force", "--quiet"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        requests, hits = map(int, done.stdout.splitlines()[-1].split())
        return requests - hits, done.stderr

    compiled, _ = programs_compiled()
    assert compiled > 5
    [folder] = (tmp_path / "cache").iterdir()
    [spoilt] = folder.glob("jit__gram-*-cache")
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    assert programs_compiled() == (1, "")
