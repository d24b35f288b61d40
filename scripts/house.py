"""Counts that keep the code easy to read, each compared with its limit: rooms, imports, lengths of functions and files.

    python scripts/house.py [FOLDER]

The exit code is 1 if a count is above its limit. Ruff checks the length of lines; `make check` runs both.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOMS = (
    "models",
    "analysis",
    "runtime",
    "data",
    "results",
    "report",
    "measure",
    "studies",
    "training",
    "sweeps",
    "cli",
)
"""The packages of jaxconf, in order. A room imports only from rooms before it."""
APART = {("runtime", "analysis"), ("data", "analysis"), ("training", "studies")}
"""In addition, the first room of each pair must not import from the second, and no study from another study."""
CODE = ("jaxconf", "models", "analysis", "scripts", "tests")
ENTRIES, FLOORS, FUNCTION, FILE, TESTS = 10, 9, 70, 400, 500


@dataclass(frozen=True)
class Count:
    what: str
    count: int
    bar: int
    where: str

    @property
    def broken(self) -> bool:
        return self.count > self.bar

    def __str__(self) -> str:
        return f"{'BROKEN' if self.broken else 'ok':7}{self.what:22}{self.count:5} of {self.bar:3}   {self.where}"


def files(root: Path, *folders: str) -> list[Path]:
    """The Python files below the folders, relative to the root; files that a link leads to are listed only once."""
    found = (
        file
        for folder in folders
        for file in (root / folder).rglob("*.py")
        if not file.is_relative_to(root / "jaxconf/models")
    )
    return sorted(file.relative_to(root) for file in found if not file.is_relative_to(root / "jaxconf/analysis"))


def room(parts: tuple[str, ...]) -> tuple[str, str]:
    """The room of a file or a module, and the study, which is "" outside studies/: ("studies", "induction")."""
    parts = parts[1:] if parts[0] == "jaxconf" else parts
    return (parts[0], parts[1]) if parts[0] == "studies" and len(parts) > 1 else (parts[0], "")


def imported(file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and module of each import from jaxconf, anywhere in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = (
                [node.module or ""] if node.module != "jaxconf" else [f"jaxconf.{alias.name}" for alias in node.names]
            )
        else:
            continue
        yield from ((node.lineno, tuple(module.split("."))) for module in modules if module.split(".")[0] == "jaxconf")


def allowed(here: tuple[str, str], there: tuple[str, str]) -> bool:
    if here[0] == there[0]:
        return here[1] == there[1] or not (here[1] and there[1])
    if {here[0], there[0]} - set(ROOMS):  # a room that is not in ROOMS, or the package itself, which exports every room
        return False
    return ROOMS.index(there[0]) < ROOMS.index(here[0]) and (here[0], there[0]) not in APART


def imports(root: Path) -> tuple[list[str], dict[str, set[str]]]:
    """The imports that are not allowed, and the rooms that each room imports from."""
    wrong, edges = [], {name: set[str]() for name in ROOMS}
    for file in files(root, "jaxconf", "models", "analysis"):
        here = room(file.parts)
        if here[0].startswith("__"):  # the package itself, and `python -m jaxconf`
            continue
        for line, module in imported(root / file):
            there = room(module)
            if not allowed(here, there):
                wrong.append(f"{file}:{line} {'.'.join(module)}")
            elif here[0] != there[0]:
                edges[here[0]].add(there[0])
    return wrong, edges


def tallest(edges: dict[str, set[str]]) -> list[str]:
    """The longest chain of rooms in which each imports from the one before it."""

    @cache
    def below(name: str) -> tuple[str, ...]:
        return (*max((below(other) for other in sorted(edges[name])), key=len, default=()), name)

    return list(max((below(name) for name in edges), key=len))


def longest_function(root: Path) -> tuple[int, str]:
    lengths = [(0, "")]
    for file in files(root, *CODE):
        for node in ast.walk(ast.parse((root / file).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lengths.append((node.end_lineno - node.lineno + 1, f"{file}:{node.lineno} {node.name}"))
    return max(lengths)


def longest_file(root: Path, *folders: str) -> tuple[int, str]:
    return max((len((root / file).read_text().splitlines()), str(file)) for file in files(root, *folders))


def counts(root: Path) -> list[Count]:
    entries = sorted(
        entry.name
        for entry in (root / "jaxconf").iterdir()
        if not entry.is_symlink() and not entry.name.startswith(("__", "."))
    )
    wrong, edges = imports(root)
    chain = tallest(edges)
    function, function_where = longest_function(root)
    file, file_where = longest_file(root, *CODE[:-1])
    tests, tests_where = longest_file(root, "tests")
    return [
        Count("entries of jaxconf/", len(entries), ENTRIES, " ".join(entries)),
        Count("floors of imports", len(chain), FLOORS, " < ".join(chain)),
        Count("imports that go up", len(wrong), 0, ", ".join(wrong)),
        Count("lines of a function", function, FUNCTION, function_where),
        Count("lines of a file", file, FILE, file_where),
        Count("lines of a test file", tests, TESTS, tests_where),
    ]


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    found = counts(root)
    print(*found, sep="\n")
    apart = sorted(
        entry.name for entry in (root / "jaxconf").iterdir() if entry.is_symlink() or entry.name.endswith("__.py")
    )
    print(f"not counted: {' '.join(apart)}, which are links and Python's own")
    sys.exit(any(count.broken for count in found))


if __name__ == "__main__":
    main()
