"""The text of the study, and its parts: which documents name the sets, and which are held out.

Letters: s window, t position, u unit. A unit is a document, or a block of windows where documents are fewer than 20
(`jaxconf.analysis.intervals.units_of`). The first four tenths of the units are training units in every split, and the
neuron sets are named on them alone. They are dealt at random into four parts, and the other units into six. Each split
holds out three of the six parts; the penalties are chosen by leaving out each of its seven training parts in turn.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxconf.analysis.intervals import units_of
from jaxconf.data.own_text import source_for
from jaxconf.data.windows import Windows, digest
from jaxconf.measure.inputs import prepared, windows_and_facts
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.words import counted

NAMING, PARTS = 4, 10
HELD_OUT = ((4, 5, 6), (6, 7, 8), (8, 9, 4))
"""The parts that each split holds out."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that the study is done on."""

    name: str
    tokens: np.ndarray  # int32 [s t]
    documents: np.ndarray  # int [s t]
    kept: np.ndarray  # bool [s t]: the positions that count
    units: np.ndarray  # int [s t]
    part: np.ndarray  # int [u]: the part of each unit
    naming: np.ndarray  # int: the windows that hold nothing but units on which sets are named
    others: np.ndarray  # int: the windows that hold nothing of those
    facts: dict[str, Any]


def training(held_out: tuple[int, ...]) -> list[int]:
    """The parts that a split does not hold out."""
    return [part for part in range(PARTS) if part not in held_out]


def read_text(lm: LanguageModel, tokens: np.ndarray | Windows | int, data: str, seed: int) -> Text:
    """The text for the arguments of `jaxconf.carry`, which has the same names.

    Raises InputError for a text that is too short for its parts, and as `jaxconf.measure.inputs.windows_of` does.
    """
    name = source_for(data, lm.folder) if isinstance(tokens, int) else "tokens"
    read, of_reading = windows_and_facts(tokens, data, lm)
    checked, kept = prepared(lm, read, None)
    units, block = units_of(read.documents, kept)
    part, naming, others = parts_of(units, kept, seed)
    facts = {
        "data_sha256": digest(checked),
        "tokens": int(checked.size),
        "positions": int(kept.sum()),
        "documents": len(np.unique(read.documents[kept])),
        "units": len(np.unique(units[kept])),
        "resampled": f"blocks of up to {block} windows" if block > 1 else "windows" if block else "documents",
        **of_reading,
    }
    return Text(name, checked, read.documents, kept, units, part, naming, others, facts)


def parts_of(units: np.ndarray, kept: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of each unit, int [u]; the windows of units on which sets are named alone, and those of other units.

    `units`: that of each position, int [s t]. `kept`: bool [s t]. A unit without kept positions is in a part too, but
    it counts for nothing. Raises InputError if there are too few units or windows.
    """
    first = np.unique(units, return_index=True)[1]  # u: where each unit begins
    used = np.unique(units[kept])
    if len(used) < PARTS:
        raise InputError(
            f"the text has {counted(len(used), 'document')} or windows to split, but {PARTS} are needed; give more text"
        )
    order = used[np.argsort(first[used])]
    early = first < first[order[round(len(order) * NAMING / PARTS)]]
    rng, part = np.random.default_rng(seed), np.empty(len(first), int)
    for of, begin, number in ((order[early[order]], 0, NAMING), (order[~early[order]], NAMING, PARTS - NAMING)):
        part[rng.permutation(of)] = begin + np.arange(len(of)) % number
    part[np.setdiff1d(np.arange(len(first)), used)] = 0
    naming, others = (np.flatnonzero(own[units].all(1)) for own in (early, ~early))
    if not kept[naming].any() or not kept[others].any():
        raise InputError("the windows of the text hold too many documents each to split them; give more text")
    return part, naming, others
