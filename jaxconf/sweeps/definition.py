"""The definition of a sweep: the TOML file that gives it, and its copy in the sweep's folder."""

import dataclasses
import itertools
import json
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxconf.analysis.kinds import VALUED
from jaxconf.data.own_text import OWN
from jaxconf.data.sources import parsed
from jaxconf.data.worlds import world_of
from jaxconf.measure.inputs import accepted_by
from jaxconf.measure.options import AnalyzeOptions, Output
from jaxconf.models.errors import InputError, nearest
from jaxconf.models.files import replacing

AXES = {"models": "model", "revisions": "revision", "data": "data", "ablations": "ablation", "layers": "layer"}
"""The name of a list in a sweep's file → the option of `jaxconf analyze` that takes one of its values."""
DEFINITION = "sweep.json"

# The options of `jaxconf analyze` that a sweep may set → their types.
KNOWN: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(AnalyzeOptions).items()
    if name not in (*(field.name for field in dataclasses.fields(Output)), "profile")
}


Cells = Mapping[str, Mapping[str, Any]]
"""The name of each cell → the options of `jaxconf analyze` that make it."""


def read_sweep(file: Path) -> Cells:
    """The cells of a TOML file, one for each combination of its lists.

    The lists are `models`, which is required, `revisions`, `data`, `ablations` and `layers`. A table `options` holds
    other options of `jaxconf analyze`, which are the same for all cells. Raises InputError for a file that cannot be
    read, and for names and values that a sweep cannot have.
    """
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a TOML file that defines a sweep") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML ({error}); correct it") from error
    fixed = given.pop("options", {})
    _check_lists(file, given)
    _check_options(file, fixed)
    if "ablation_value" in fixed and not any(_takes_value({"ablation": kind}) for kind in given.get("ablations", ())):
        raise InputError(
            f"options of {file} sets ablation_value, which only {', '.join(VALUED)} take; give one of them in "
            "ablations, or leave the value out"
        )
    cells: dict[str, Mapping[str, Any]] = {}
    for place, values in enumerate(itertools.product(*given.values())):
        chosen = dict(zip((AXES[name] for name in given), values, strict=True))
        local = {name: _anywhere(name, value) for name, value in chosen.items()}
        cells[_name(place, chosen)] = {**fixed, **local}
    return cells


def _check_lists(file: Path, given: Mapping[str, Any]) -> None:
    for name, values in given.items():
        if name not in AXES:
            raise InputError(
                f"{file} has an entry {name!r}, but a sweep has only {', '.join(AXES)} and options; "
                f"the nearest is {nearest(name, AXES)!r}"
            )
        if not isinstance(values, list) or not values:
            example = f", such as {name} = [{values!r}]" if type(values) in (str, int) else " of at least one value"
            raise InputError(f"{name} of {file} is {values!r}; give a list{example}")
        for value in values:
            if not _fits(value, KNOWN[AXES[name]]):
                raise InputError(f"{file} has the {AXES[name]} {value!r}; give {_expected(KNOWN[AXES[name]])}")
            if values.count(value) > 1:
                raise InputError(f"{name} of {file} has {value!r} more than once; give each value once")
    if "models" not in given:
        raise InputError(f"{file} names no models; give a list, such as models = ['EleutherAI/pythia-70m']")


def _check_options(file: Path, fixed: Any) -> None:
    if not isinstance(fixed, dict):
        raise InputError(f"options of {file} is {fixed!r}; give a table, [options]")
    known = KNOWN.keys() - set(AXES.values())
    for name, value in fixed.items():
        if name not in known:
            raise InputError(
                f"options of {file} names {name!r}, which a sweep cannot set; "
                f"the nearest is {nearest(name, sorted(known))!r}"
            )
        if not _fits(value, KNOWN[name]):
            raise InputError(f"{name} of {file} is {value!r}; give {_expected(KNOWN[name])}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from TOML fits a type."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(part, parts[0]) for part in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (str if hint is Path else hint)


def _expected(hint: Any) -> str:
    """What fits a type, for an error message."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_expected(part) for part in get_args(hint) if part is not types.NoneType)
    if get_origin(hint) is tuple:
        return f"a list in which each entry is {_expected(get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a string")


def _anywhere(name: str, value: Any) -> Any:
    """The value of an option; of local models and texts the absolute path, so that it holds in any working directory.

    Raises InputError for synthetic text with wrong parameters.
    """
    keywords = {"model": ("bundled",), "data": ("stdlib", OWN)}
    if name not in keywords or value in keywords[name] or (name == "data" and world_of(value)):
        return value
    place = parsed(value).place if name == "data" else value
    path = Path(place).expanduser()
    return f"{path.resolve()}{value[len(place) :]}" if path.exists() else value


def _name(place: int, chosen: Mapping[str, Any]) -> str:
    """A cell's name, which is also that of its folder."""
    words = [str(chosen.get(name, "")) for name in AXES.values()]
    slug = re.sub(r"[^\w.]+", "-", "-".join(Path(word).name for word in words if word)).strip("-.")[:100]
    return f"{place:04d}-{slug}"


def _takes_value(cell: Mapping[str, Any]) -> bool:
    return cell.get("ablation") in VALUED


def options_of(cell: Mapping[str, Any], folder: Path) -> AnalyzeOptions:
    """The options of `jaxconf analyze` that write the run of a cell into the folder."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in cell.items()}
    if not _takes_value(cell):
        given.pop("ablation_value", None)  # it is meant for other cells
    if "counts" in given:
        given["counts"] = Path(given["counts"])
    return AnalyzeOptions(**given, out=folder, force=True)


def narrowed(cells: Cells) -> Cells:
    """The cells, each of which accepts only such attributes of config.json as its own model has.

    Raises InputError as `jaxconf.models.families.accepted` does.
    """
    models = {name: (cell["model"], cell.get("revision")) for name, cell in cells.items()}
    accept = next(iter(cells.values())).get("accept", ())
    if not accept:
        return cells
    each = list(dict.fromkeys(models.values()))
    passed = dict(zip(each, accepted_by(each, accept), strict=True))
    return {name: {**cell, "accept": list(passed[models[name]])} for name, cell in cells.items()}


def define(cells: Cells, folder: Path) -> None:
    """Write the definition into the folder, unless it is there already.

    Raises InputError if the folder holds another definition.
    """
    text, file = json.dumps(cells, indent=1, sort_keys=True) + "\n", folder / DEFINITION
    if not file.exists():
        with replacing(file) as path:
            path.write_text(text, encoding="utf-8")
    if file.read_text("utf-8") != text:
        raise InputError(f"{folder} holds a sweep with another definition; give another --out")


def defined(folder: Path) -> Cells:
    """The cells of the sweep that a folder holds. Raises InputError if it holds none."""
    try:
        return json.loads((folder / DEFINITION).read_text("utf-8"))
    except (OSError, ValueError) as error:
        problem = f"{folder} holds no sweep" if folder.is_dir() else f"there is no folder {folder}"
        if folder.is_file():
            problem = f"{folder} is a file, not a folder"
        raise InputError(f"{problem}; give a folder that jaxconf sweep wrote") from error
