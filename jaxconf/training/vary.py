"""The models of a training grid: which settings may be varied, all combinations, and the models of one shape."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from jaxconf.models.errors import InputError, nearest
from jaxconf.training.config import TrainConfig

NOT_VARIED = ("seed", "attributes", "hold", "hold_from")
# The settings that may be varied → the type of their values.
VARIED: dict[str, Any] = {
    field.name: field.type for field in dataclasses.fields(TrainConfig) if field.name not in NOT_VARIED
}


def parse_vary(given: Sequence[str]) -> dict[str, list[Any]]:
    """Name of a setting → its values, from texts NAME=VALUE,VALUE…, one text for each name.

    Raises InputError for a name that TrainConfig does not have (and says the nearest), for a name or a value that is
    given twice, and for a value that is not of the setting's type.
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
    """Raises InputError if the setting of this name cannot be varied."""
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
    raise InputError(f"{name} is varied to {text!r}; give {expected}")


def models_of_grid(base: TrainConfig, vary: Mapping[str, Sequence[Any]], seeds: int) -> dict[str, TrainConfig]:
    """A model's name → its config, for each combination of the values and each seed.

    The seeds are `seeds` consecutive numbers from that of `base` on.
    """
    models = {}
    for values in itertools.product(*vary.values()):
        setting = dict(zip(vary, values, strict=True))
        for seed in range(base.seed, base.seed + seeds):
            name = ",".join(f"{key}={value}" for key, value in {**setting, "seed": seed}.items())
            models[name] = dataclasses.replace(base, **setting, seed=seed)
    return models


def groups_of_one_shape(models: Mapping[str, TrainConfig]) -> list[list[str]]:
    """The models' names in groups that one program can train. The models of a group differ only in PER_MODEL."""
    groups: dict[TrainConfig, list[str]] = {}
    for name, config in models.items():
        groups.setdefault(config.shared(), []).append(name)
    return list(groups.values())
