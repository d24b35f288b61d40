"""A measurement: what it runs on, and what it finds in a group of windows.

Letters: s window, t position, p unit that has kept positions in the group.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.intervals import units_of
from jaxconf.analysis.metrics import UNABLATED
from jaxconf.measure.inputs import Text, prepared
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.resume import folder_of, resumed
from jaxconf.runtime.version import __version__


class Part(NamedTuple):
    """What was found in a group of windows."""

    units: np.ndarray  # int [p]: the unit of each row of the sums
    sums: dict[str, np.ndarray]  # effect → [p n], summed over the kept positions that a unit has in the group
    positions: pd.DataFrame  # a row per kept position, with UNABLATED
    audit: dict[str, np.ndarray]  # of the adaptive engine, if it was used


@dataclasses.dataclass(frozen=True)
class Work:
    """A model, the text that it runs on, and the memory and the folder that the measurement may use."""

    lm: LanguageModel
    tokens: np.ndarray  # int32 [s t]
    kept: np.ndarray  # bool [s t]: positions that count, never the last of a window
    units: np.ndarray  # int [s t]: the unit of each position, which intervals draw again (`intervals.units_of`)
    block: int  # how many windows a unit spans at most; 0: units are documents
    documents: int  # how many documents have kept positions
    counts: np.ndarray  # int [v]: the token counts that the token frequencies are computed from
    freq: Frequency
    memory: int  # bytes of a device that a batch may take
    progress: Progress
    folder: Path | None = None  # for finished parts, from which another call resumes
    dictionary: Dictionary | None = None  # if its directions are measured instead of a layer's neurons

    def resuming(self, memory: int, *depends_on: Any) -> "Work":
        """This work with `memory` bytes, and with a folder that no other measurement uses.

        `depends_on`: what the results depend on besides the model's shape, the text, the memory and the devices.
        """
        if not self.folder:
            return dataclasses.replace(self, memory=memory)
        text = (self.tokens, self.kept, self.units, self.counts)
        own = (__version__, self.lm.config, *text, memory, self.lm.mesh.shape)
        return dataclasses.replace(self, memory=memory, folder=folder_of(self.folder, *own, *depends_on))

    @property
    def unit_counts(self) -> np.ndarray:
        """How many kept positions each unit has, int [u]."""
        return np.bincount(self.units[self.kept], minlength=self.units.max() + 1)

    def units_in(self, windows: np.ndarray) -> np.ndarray:
        """The units that have kept positions in the windows with these indices, int [p], ascending."""
        return np.unique(self.units[windows][self.kept[windows]])

    def some_windows(self, positions: int) -> np.ndarray:
        """The indices of evenly chosen windows, with about so many kept positions in all, int [s], ascending.

        If those have none, all windows are chosen.
        """
        count = min(len(self.kept), -(-positions * len(self.kept) // int(self.kept.sum())))
        rows = np.linspace(0, len(self.kept) - 1, count).round().astype(int)
        return rows if self.kept[rows].any() else np.arange(len(self.kept))

    def part(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """A part of the measurement: read from the folder if it has one by this name, or else made by `compute`."""
        return resumed(self.folder / f"{name}.npz" if self.folder else None, compute)

    def unit_facts(self) -> dict[str, Any]:
        """What the intervals of a result draw again."""
        return {
            "documents": self.documents,
            "units": int(np.count_nonzero(self.unit_counts)),
            "resampled": self._unit,
        }

    @property
    def _unit(self) -> str:
        if self.block == 0:
            return "documents"
        return "windows or parts of one" if self.block == 1 else f"blocks of up to {self.block} windows of a document"

    def positions(self, windows: np.ndarray, found: dict[str, np.ndarray]) -> pd.DataFrame:
        """A row for each kept position of the windows with these indices, with UNABLATED as `found` there."""
        at, position = np.nonzero(self.kept[windows])
        window = windows[at]
        place = {
            "window": window,
            "position": position,
            "token": self.tokens[window, position],
            "target": self.tokens[window, position + 1],
        }
        return pd.DataFrame({**place, **{name: found[name] for name in UNABLATED}})


def work_on(
    lm: LanguageModel,
    text: Text,
    kept: np.ndarray | None,
    memory: int,
    progress: Progress,
    folder: Path | None = None,
) -> Work:
    """The measurement of a model on a text. Raises InputError as `jaxconf.measure.inputs.prepared` does."""
    tokens, kept = prepared(lm, text.windows, kept)
    documents = text.windows.documents
    units, block = units_of(documents, kept)
    several = len(np.unique(documents[kept]))
    counts = text.counts
    return Work(lm, tokens, kept, units, block, several, counts, frequency(counts), memory, progress, folder)
