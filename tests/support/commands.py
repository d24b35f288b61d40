"""Commands and scripts as a user gives them."""

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from refusals import check_sentence

from jaxconf.cli import main

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(*arguments) -> None:
    main([str(a) for a in arguments])


def refusal(capsys, *arguments) -> str:
    """The one sentence on standard error with which a command ends, exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    *progress, said = capsys.readouterr().err.splitlines()
    assert said.startswith("jaxconf: ")
    assert not any("jaxconf: " in line or "Traceback" in line for line in progress)
    check_sentence(said)
    return said


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DRY_RUN": "1"}
    return subprocess.run(
        [SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def options_of(command: type) -> set[str]:
    """The options of a command, and those of its groups."""
    names, hints = set(), get_type_hints(command)
    for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(command)):
        names |= options_of(hint) if dataclasses.is_dataclass(hint) else {name}
    return names


def defaults_of(command: type) -> dict[str, Any]:
    """The default of each option that has one, those of groups too."""
    found = {}
    for field in dataclasses.fields(command):
        factory = field.default_factory
        if isinstance(factory, type) and dataclasses.is_dataclass(factory):
            found |= defaults_of(factory)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found
