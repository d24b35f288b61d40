"""The models of a training grid: what may be varied, all combinations, and which models one program can train."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from jaxconf.models.errors import InputError, nearest
from jaxconf.training.config import TrainConfig

# What may be varied, and the type of its values.
VARIED: dict[str, Any] = {
    field.name: field.type for field in dataclasses.fields(TrainConfig) if field.name not in ("seed", "attributes")
}


def parse_vary(given: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each name, from NAME=VALUE,VALUE… texts, one for each name.

    Raises InputError for a name that TrainConfig does not have (with the nearest), one that is given twice, and a value
    of another type than the name has.
    """
    vary: dict[str, list[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.replace("-", "_")
        if not equals or not values:
            raise InputError(f"--vary {text!r} names no values; give NAME=VALUE,VALUE")
        check_varied(name)
        if name in vary:
            raise InputError(f"{name} is varied twice; give all its values at once")
        vary[name] = [_parse(name, VARIED[name], value) for value in values.split(",")]
        if len(set(vary[name])) < len(vary[name]):
            raise InputError(f"--vary {text} has a value twice; give each once")
    return vary


def check_varied(name: str) -> None:
    """Raises InputError for what cannot be varied."""
    if name == "seed":
        raise InputError("the seed is varied by --seeds; give how many")
    if name not in VARIED:
        raise InputError(f"there is no {name!r} to vary; the nearest is {nearest(name, VARIED)!r}")


def _parse(name: str, kind: Any, text: str) -> Any:
    options = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
    for option in options:
        if str(option).lower() == text.lower():
            return option
    number = int if kind in (int, int | None) else float
    try:
        if not options:
            return number(text)
    except ValueError:
        pass
    expected = "a whole number" if number is int else "a number"
    if options:
        expected = "one of " + ", ".join(map(str, options))
    raise InputError(f"{name} is varied to {text!r}, which is not {expected}")


def models_of_grid(base: TrainConfig, vary: Mapping[str, Sequence[Any]], seeds: int) -> dict[str, TrainConfig]:
    """Name → config: a model for each combination of the values and each seed, counted from that of `base`."""
    models = {}
    for values in itertools.product(*vary.values()):
        setting = dict(zip(vary, values, strict=True))
        for seed in range(base.seed, base.seed + seeds):
            name = ",".join(f"{key}={value}" for key, value in {**setting, "seed": seed}.items())
            models[name] = dataclasses.replace(base, **setting, seed=seed)
    return models


def groups_of_one_shape(models: Mapping[str, TrainConfig]) -> list[list[str]]:
    """The names of the models that one program can train: in each group they differ only in PER_MODEL."""
    groups: dict[TrainConfig, list[str]] = {}
    for name, config in models.items():
        groups.setdefault(config.shared(), []).append(name)
    return list(groups.values())
