"""The commands in the documentation: each can be given as it stands, and docs/commands.md has each of them once."""

import re
import shlex
from pathlib import Path

import pytest

from jaxconf.cli.main import COMMANDS, parsed

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


def lines(page: Path) -> list[str]:
    """The lines of a page's code blocks that begin with jaxconf, one for each command."""
    text = page.read_text("utf-8").replace("\\\n", "")  # a line may go on in the next one
    blocks = re.findall(r"(?m)^    (jaxconf .*)$", text) + re.findall(r"(?m)^(jaxconf .*)$", text)
    given = (part.strip() for line in blocks for part in re.split("&&| [|>] ", line))
    return [part for part in given if part.startswith("jaxconf ")]


def test_every_command_has_its_section():
    headings = re.findall(r"(?m)^## (.*)$", (TOP / "docs" / "commands.md").read_text("utf-8"))
    assert sorted(headings) == sorted(name.replace("-", " ") for name in COMMANDS)


def test_every_section_shows_its_command():
    sections = (TOP / "docs" / "commands.md").read_text("utf-8").split("\n## ")[1:]
    for section in sections:
        assert f"\n    jaxconf {section.splitlines()[0]}" in section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_given_as_they_stand(page: Path):
    for line in lines(page):
        parsed(shlex.split(line, comments=True)[1:])


def test_pages_have_commands():
    assert sum(len(lines(page)) for page in PAGES) > 50
