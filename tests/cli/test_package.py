"""The package as it is imported."""

import importlib
import operator
import pkgutil
import re
import subprocess
import sys
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
