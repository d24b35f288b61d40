"""The package as it is imported."""

import importlib
import operator
import pkgutil

import pytest

import jaxconf


def test_every_export_stays_what_it_is_whatever_else_is_imported():
    """A submodule named like a lazy export would take its place on first use."""
    first = {name: getattr(jaxconf, name) for name in jaxconf.__all__}
    for module in pkgutil.walk_packages(jaxconf.__path__, "jaxconf."):
        if module.name != "jaxconf.__main__":
            importlib.import_module(module.name)
    assert {name: getattr(jaxconf, name) for name in jaxconf.__all__} == first
    assert set(jaxconf.__all__) <= set(dir(jaxconf))
    assert set(jaxconf.__all__) == set(jaxconf._HOMES)
    with pytest.raises(AttributeError, match="no_such_name"):
        operator.attrgetter("no_such_name")(jaxconf)
