"""What the help of a command shows, and what a shell completes."""

import re
import shutil
import subprocess
import sys

import pytest
from commands import options_of, run

from jaxconf.cli.help import ALWAYS, MOST, OFTEN, SELDOM
from jaxconf.cli.main import COMMANDS, _options

PRESETS = {"train": ["tiny"]}
TOP = re.compile(r"^(?:╭─)? ([a-z -]+?) +(?:─|\n --)", re.MULTILINE)  # of a box, with or without lines around it
OPTION = re.compile(r"^[│ ] (?:-h, )?(--[a-z][\w.-]*)", re.MULTILINE)


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The boxes of the help of a command, by title."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, "--help")
    assert not stopped.value.code
    _, *boxes = TOP.split(capsys.readouterr().out)
    return dict(zip(boxes[::2], boxes[1::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_shown_once_and_the_needed_ones_first(name, capsys):
    boxes = helped(capsys, *name.split("-"), *PRESETS.get(name, []))
    shown = {title: OPTION.findall(box) for title, box in boxes.items()}
    every = [option for options in shown.values() for option in options]
    assert sorted(every) == sorted(["--help", *_options(COMMANDS[name])])
    first = shown["options"]
    assert first[0] == "--help"
    assert first[-1] == "--json"
    assert len(first) <= MOST + 1
    assert list(boxes)[-1] == "seldom-needed options" or "seldom-needed options" not in boxes


def test_every_ranked_option_is_one_of_some_command():
    every = set().union(*(options_of(command) for command in COMMANDS.values()))
    assert {*OFTEN, *ALWAYS, *SELDOM} <= every
    assert not set(OFTEN) & {*ALWAYS, *SELDOM}


def test_the_options_of_analyze_in_the_order_of_need(capsys):
    boxes = helped(capsys, "analyze")
    assert list(boxes) == ["positional arguments", "options", "more options", "seldom-needed options"]
    assert OPTION.findall(boxes["options"])[1:5] == ["--data", "--tokens", "--out", "--layer"]
    assert {"--coordinator", "--seed", "--accept"} <= set(OPTION.findall(boxes["seldom-needed options"]))
    assert "Python's standard library" in boxes["options"]  # the text below the field
    assert "do not know" not in boxes["options"]
    assert "may be given" in boxes["seldom-needed options"]  # the help of an annotation
    assert "None" not in "".join(boxes.values())


def test_a_preset_sets_the_defaults_that_the_help_shows(capsys):
    assert "(default: runs/tiny)" in helped(capsys, "train", "tiny")["options"]
    assert "(default: runs/noise)" in helped(capsys, "train")["options"]


def test_the_list_of_commands_imports_no_command():
    code = (
        "import sys; from jaxconf.cli.main import listing; listing();"
        "print([name for name in sys.modules if name == 'tyro' or name.startswith('jaxconf.cli.a')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell, capsys):
    run("completion", shell)
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS if "-" not in name)
    if shell != "bash" or not shutil.which("bash"):
        return

    def completed(*words: str) -> set[str]:
        asked = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        code = f'{script}\n{asked}; _tyro_jaxconf; echo "${{COMPREPLY[@]}}"'
        return set(subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split())

    assert completed("jaxconf", "ex") == {"export"}
    assert completed("jaxconf", "analyze", "--to") == {"--tokens", "--tolerance"}
    assert completed("jaxconf", "export", "--format", "'n'") == {"neuronpedia"}
