"""Commands and scripts as a user gives them."""

import os
import subprocess
from pathlib import Path

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
    said = capsys.readouterr().err.strip()
    assert said.startswith("jaxconf: ")
    assert "Traceback" not in said
    check_sentence(said)
    return said


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DRY_RUN": "1"}
    return subprocess.run([SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)
