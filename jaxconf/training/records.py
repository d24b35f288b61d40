"""JSON records that say which run or grid a folder holds, so that no other one is resumed in it."""

import json
from pathlib import Path
from typing import Any

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.training.config import TrackConfig, TrainConfig

# Part of a record → the settings that records of earlier versions lack, with the values that those versions had.
_LATER = {
    "config": {name: getattr(TrainConfig, name) for name in ("hold", "hold_from")},
    "track": {"components": TrackConfig.components},
}


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, in a new folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def record_to_resume(path: Path, record: dict[str, Any], resume: bool, force: bool) -> dict[str, Any] | None:
    """The record at `path` if its run is to be resumed, or None if a new run is to begin.

    With `force` a new run always begins. Raises InputError otherwise if there is a run and `resume` is not given, if it
    is not the run that `record` describes, if its record is damaged, and if the folder holds a model but no record.
    """
    if force:
        return None
    folder = path.parent
    if not path.is_file():
        if (folder / "config.json").exists():
            raise InputError(f"{folder} holds a model already; give another --out, or --force to replace it")
        return None
    if not resume:
        raise InputError(
            f"{folder} holds a run already; give another --out, --resume to go on with it, or --force to replace it"
        )
    try:
        saved, asked = json.loads(path.read_text("utf-8")), json.loads(json.dumps(record))
        saved |= {part: {**later, **saved[part]} for part, later in _LATER.items() if part in saved}
        unlike = [line for part in asked for line in _differences(part, saved[part], asked[part])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged, so the run cannot be resumed; give --force to replace it") from error
    if unlike:
        raise InputError(f"{folder} holds another run: {unlike[0]}; give the same options, or another --out")
    return saved


def _differences(part: str, saved: Any, asked: Any) -> list[str]:
    """The differences in a part of two records, a phrase for each name, such as "steps is 10 there and 20 here"."""
    if not isinstance(asked, dict):
        saved, asked = {part: saved}, {part: asked}
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    return [f"{name} is {saved.get(name)!r} there and {asked.get(name)!r} here" for name in names]
