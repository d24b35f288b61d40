"""The package as it is imported."""

import email
import importlib
import operator
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jaxconf


def test_every_export_stays_what_it_is_whatever_else_is_imported():
    """A submodule named like a lazy export would take its place on first use."""
    first = {name: getattr(jaxconf, name) for name in jaxconf.__all__}
    for module in pkgutil.walk_packages(jaxconf.__path__, "jaxconf."):
        if module.name != "jaxconf.__main__":
            importlib.import_module(module.name)
    assert {name: getattr(jaxconf, name) for name in jaxconf.__all__} == first


def test_exports_are_listed_and_others_refused():
    assert {"load", "analyze", "run", "sweep", "__version__"} <= set(jaxconf.__all__) <= set(dir(jaxconf))
    with pytest.raises(AttributeError, match="no_such_name"):
        operator.attrgetter("no_such_name")(jaxconf)


def test_the_api_page_has_every_export_once():
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    shown = re.findall(r"(?m)^::: jaxconf\.(\w+)$", page)
    assert sorted(shown) == sorted(set(jaxconf.__all__) - {"__version__"})


def test_importing_the_package_and_the_command_line_loads_nothing_heavy():
    code = (
        "import sys, jaxconf, jaxconf.cli; print({'jax', 'numpy', 'pandas', 'matplotlib', 'rich'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_families_are_listed_without_numpy():
    """It would take a third of the time of `jaxconf models`."""
    code = "import sys; from jaxconf.models import supported as s; s.supported(); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.command
def test_the_wheel_is_typed_whole_and_says_what_it_is(tmp_path):
    """Built from a copy, because setuptools writes beside what it builds."""
    root, copy = Path(__file__).parents[2], tmp_path / "copy"
    for name in ("jaxconf", "models", "analysis"):
        shutil.copytree(root / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(root / name, copy / name)
    build = "import setuptools.build_meta as b; b.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(copy.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if not name.endswith("/")}
        about = email.message_from_bytes(wheel.read(next(name for name in held if name.endswith("METADATA"))))
    files = {
        file.relative_to(root).as_posix() for file in root.glob("jaxconf/**/*.*") if "__pycache__" not in file.parts
    }
    assert {name for name in files if not (root / name).is_dir()} <= held
    assert {"jaxconf/py.typed", "jaxconf/models/decoder.py", "jaxconf/models/bundled/model.safetensors"} <= held
    assert not any("test" in Path(name).parts[0] for name in held)
    assert about["Version"] == jaxconf.__version__
    assert all(about[name] for name in ("Summary", "Author", "License-Expression", "Keywords", "Requires-Python"))
    assert {"Typing :: Typed", "Intended Audience :: Science/Research"} <= set(about.get_all("Classifier"))
    assert "Paper" in about["Project-URL"]
