"""The counts of scripts/house.py: each bar is seen to break, and to hold at its edge."""

import subprocess
import sys
from pathlib import Path

import house
import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small house in order: a module in every room, each of which imports from the rooms that it may."""
    rooms = [name if name != "studies" else "studies/induction" for name in house.ROOMS]
    for name in rooms:
        folder = tmp_path / (name if name in ("models", "analysis") else f"jaxconf/{name}")
        folder.mkdir(parents=True)
        before = house.ROOMS[: house.ROOMS.index(name.split("/")[0])]
        allowed = [other for other in before if (name.split("/")[0], other) not in house.APART]
        (folder / "made.py").write_text("".join(f"from jaxconf.{other}.made import made\n" for other in allowed))
    for name in ("models", "analysis"):
        (tmp_path / "jaxconf" / name).symlink_to(f"../{name}")
    (tmp_path / "jaxconf/__init__.py").write_text("from jaxconf.cli.made import main\n")
    for name in ("scripts", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made.py").touch()
    return tmp_path


def broken(root: Path) -> list[str]:
    return [f"{count.what}: {count.count}, {count.where}" for count in house.counts(root) if count.broken]


def test_a_house_in_order(root: Path) -> None:
    found = {count.what: count for count in house.counts(root)}
    assert not broken(root)
    assert found["entries of jaxconf/"].where == "cli data measure report results runtime studies sweeps training"
    chain = "models < runtime < data < results < report < measure < studies < sweeps < cli"
    assert (found["floors of imports"].count, found["floors of imports"].where) == (9, chain)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("jaxconf/more/made.py", "", ""),
        (
            "models/new.py",
            "def f():\n    from jaxconf.analysis.made import made\n",
            "imports that go up: 1, models/new.py:2 jaxconf.analysis.made",
        ),
        (
            "analysis/new.py",
            "import jaxconf.runtime.made\n",
            "imports that go up: 1, analysis/new.py:1 jaxconf.runtime.made",
        ),
        (
            "jaxconf/runtime/new.py",
            "import jaxconf.analysis.made\n",
            "imports that go up: 1, jaxconf/runtime/new.py:1 jaxconf.analysis.made",
        ),
        (
            "jaxconf/cli/new.py",
            "from jaxconf import sweeps, load\n",
            "imports that go up: 1, jaxconf/cli/new.py:1 jaxconf.load",
        ),
        (
            "jaxconf/studies/copying/new.py",
            "from jaxconf.studies.induction.made import made\n",
            "imports that go up: 1, jaxconf/studies/copying/new.py:1 jaxconf.studies.induction.made",
        ),
        (
            "jaxconf/studies/induction/new.py",
            "from jaxconf.studies.induction.made import made\nimport jaxconf.studies\n",
            "",
        ),
        ("scripts/new.py", "@f\ndef long():\n" + 69 * "    x\n", ""),
        (
            "scripts/new.py",
            "class A:\n    def long(self):\n" + 70 * "        x\n",
            "lines of a function: 71, scripts/new.py:2 long",
        ),
        ("analysis/new.py", 400 * "\n", ""),
        ("analysis/new.py", 401 * "\n", "lines of a file: 401, analysis/new.py"),
        ("tests/new.py", 500 * "\n", ""),
        ("tests/new.py", 501 * "\n", "lines of a test file: 501, tests/new.py"),
    ],
)
def test_what_breaks_a_bar_is_named(root: Path, file: str, text: str, said: str) -> None:
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(text)
    assert broken(root) == [said] * bool(said)


def test_floors_and_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "FLOORS", 8)
    monkeypatch.setattr(house, "ENTRIES", 8)
    assert [line.split(",")[0] for line in broken(root)] == ["entries of jaxconf/: 9", "floors of imports: 9"]


def test_the_exit_code(root: Path) -> None:
    script = [sys.executable, house.__file__, str(root)]
    assert subprocess.run(script, check=False, capture_output=True).returncode == 0
    (root / "tests/new.py").write_text(501 * "\n")
    done = subprocess.run(script, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "BROKEN lines of a test file    501 of 500   tests/new.py" in done.stdout
    assert "not counted: __init__.py analysis models" in done.stdout
