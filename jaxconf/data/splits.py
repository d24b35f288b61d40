"""Which files of a data set its subsets and splits are."""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from jaxconf.data.sources import Source
from jaxconf.models.errors import InputError, listed, nearest

Patterns = Mapping[str, Sequence[str]]
"""Split → patterns of the paths of its files."""

SHOWN = 8  # subsets, splits or files that an error names
# Names of splits → other words for them in the names of folders and files.
WORDS = {"train": ("training",), "validation": ("valid", "val", "dev"), "test": ("testing", "eval")}


def chosen_files(names: Sequence[str], source: Source, where: str, card: Callable[[], Path | None]) -> Sequence[str]:
    """The paths of the files in the subset and split of `source`, in the order of the paths; all if it names neither.

    `names`: the paths in the data set. `where`: what the data set is, for error messages. `card`: gives its README.md,
    if it has one; that is read only if a subset or split is named. Raises InputError if there is no such subset or
    split.
    """
    if source.subset is None and source.split is None:
        return sorted(names)
    configs, default = _configs(card(), where)
    if not configs:
        return _by_names(sorted(names), source, where)
    patterns = configs[_subset(configs, source.subset or default, where)]
    if source.split is not None:
        if source.split not in patterns:
            raise InputError(f"{where} has no split {source.split!r}; {_known(source.split, sorted(patterns))}")
        patterns = {source.split: patterns[source.split]}
    wanted = [pattern.split("/") for of_split in patterns.values() for pattern in of_split]
    found = [name for name in sorted(names) if any(_matches(name.split("/"), pattern) for pattern in wanted)]
    if not found:
        raise InputError(f"{where} has no file of a known kind in {_named(source)}; name another, or a path")
    return found


def _subset(configs: Mapping[str, object], subset: str | None, where: str) -> str:
    if subset is None:
        raise InputError(
            f"{where} has the subsets {listed(sorted(configs), SHOWN)}; name one of them, such as "
            f":subset={min(configs)} in front of the split"
        )
    if subset not in configs:
        raise InputError(f"{where} has no subset {subset!r}; {_known(subset, sorted(configs))}")
    return subset


def _configs(card: Path | None, where: str) -> tuple[dict[str, Patterns], str | None]:
    """Subset → its splits, as the README.md of a data set says, and the default subset, if there is one.

    There are no subsets if the README.md names no files.
    """
    if card is None or not card.is_file():
        return {}, None
    broken = InputError(
        f"the metadata in the README.md of {where} cannot be read; name a path in place of the subset and split"
    )
    try:
        metadata = metadata_load(card) or {}
    except Exception as error:  # what the library raises for broken metadata has no common type
        raise broken from error
    try:
        entries = metadata.get("configs") or []
        found = {str(entry["config_name"]): _patterns(entry) for entry in entries}
        marked = [str(entry["config_name"]) for entry in entries if entry.get("default")]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise broken from error
    only = found if len(found) == 1 else []
    return found, next(iter([*marked, *(["default"] if "default" in found else only)]), None)


def _patterns(entry: Mapping[str, Any]) -> Patterns:
    """Split → patterns, as an entry of `configs` gives them: a pattern, a list of them, or a list of splits."""
    files = entry.get("data_files", "**")
    folder = f"{entry['data_dir'].strip('/')}/" if "data_dir" in entry else ""
    if isinstance(files, str | list) and all(isinstance(file, str) for file in files):
        files = {"train": files}
    if not isinstance(files, dict):
        files = {part["split"]: part["path"] for part in files}
    listed_files = {split: [found] if isinstance(found, str) else found for split, found in files.items()}
    return {
        str(split): [folder + pattern.removeprefix("./") for pattern in found] for split, found in listed_files.items()
    }


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, in which ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _by_names(names: Sequence[str], source: Source, where: str) -> list[str]:
    """The files below a folder that is named as the subset, with the split as a word in their further path."""
    words = "|".join(map(re.escape, (source.split, *WORDS.get(source.split, ())))) if source.split else ""
    found = []
    for name in names:
        *folders, _ = name.split("/")
        if source.subset is not None and source.subset not in folders:
            continue
        below = name if source.subset is None else name.partition(f"{source.subset}/")[2]
        if not words or re.search(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", below):
            found.append(name)
    if not found:
        raise InputError(
            f"{where} has no file in {_named(source)}, by the names of its folders and files, which are "
            f"{listed(names, SHOWN)}; name another, or a path"
        )
    return found


def _named(source: Source) -> str:
    said = {"subset": source.subset, "split": source.split}
    return " and ".join(f"the {name} {value!r}" for name, value in said.items() if value is not None)


def _known(name: str, known: Sequence[str]) -> str:
    return f"the nearest is {nearest(name, known)!r}, and all are {listed(known, SHOWN)}"
