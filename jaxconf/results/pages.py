"""What the pages of single neurons show, beside the neuron table: two tables, which the run folder holds.

`NeuronPages.neurons` has a row for each neuron that has a page, and `NeuronPages.passages` a row for each token of each
of its passages. Losses and entropies are in nats. Letters: D singular values, k tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.models.errors import InputError
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS
from jaxconf.results.run_folder import PAGES, PASSAGES, staging

PAGED = 200  # neurons that have a page by default, beside those that are named

NEURON_COLUMNS = {
    "name": "the neuron",
    "low": "its smallest activation over all tokens",
    "high": "its largest activation",
    "histogram": "in how many tokens its activation lies in each of equal bins from low to high",
    "group_activation": "mean activation of each of ten groups of equally many kept positions, by activation",
    "group_entropy": "mean entropy of the unablated model in each of these groups, nats",
    "sample_activation": "activations at a random sample of kept positions",
    "sample_entropy": "entropies of the unablated model at the same positions, nats",
    "promoted": "tokens whose logits a rise of the activation raises most, on average over the kept positions",
    "promoted_by": "by how much, for each unit of what the neuron writes along its direction",
    "suppressed": "tokens whose logits it lowers most",
    "suppressed_by": "by how much",
    "promoted_frozen": "as promoted, while the final norm keeps its scale: the order is that of w·W_U",
    "promoted_frozen_by": "by how much",
    "suppressed_frozen": "as suppressed, while the final norm keeps its scale",
    "suppressed_frozen_by": "by how much",
    "cosines": "cosines of its direction with the unembedding's left singular vectors, largest singular value first",
    "nearest": "the neurons of its layer whose directions are nearest, in either sense",
    "nearest_cosine": "the cosines of these directions with its own",
}
"""The columns of `NeuronPages.neurons`."""

PASSAGE_COLUMNS = {
    "neuron": "the neuron",
    "kind": "why the passage is shown: top (largest activation), quantile (of the activation), loss or entropy (where "
    "ablating the neuron changes these most)",
    "number": "of the passage among those of its kind, from 0",
    "quantile": "the quantile of the activation, for that kind",
    "at": "the position for which the passage is shown",
    "window": "the window, as in windows.npy",
    "position": "the position in it",
    "token": "the token there",
    "target": "the token that follows",
    "activation": "the neuron's activation there",
    "loss": "of the prediction of the next token, nats",
    "loss_ablated": "with the neuron ablated",
    "entropy": "of that prediction, nats",
    "entropy_ablated": "with the neuron ablated",
}
"""The columns of `NeuronPages.passages`. Losses and entropies are NaN at the last position of a window."""


class NeuronPages(NamedTuple):
    """What the pages of neurons show."""

    neurons: pd.DataFrame
    passages: pd.DataFrame

    def some(self, names: Sequence[str]) -> "NeuronPages":
        """Those of the neurons `names`, in this order."""
        own = self.neurons.set_index("name", drop=False).loc[list(names)].reset_index(drop=True)
        return NeuronPages(own, self.passages[self.passages["neuron"].isin(names)])

    @property
    def names(self) -> list[str]:
        return self.neurons["name"].tolist()

    def tables(self) -> dict[str, pd.DataFrame]:
        """File name in the run folder → table."""
        return {PAGES: self.neurons, PASSAGES: self.passages}

    def save(self, folder: Path) -> None:
        """Write both tables into a run folder, or neither."""
        with staging(folder, PAGES) as there:
            for name, frame in self.tables().items():
                frame.to_parquet(there / name, index=False)

    @classmethod
    def load(cls, folder: Path) -> "NeuronPages":
        """What the run folder holds; without rows if it holds nothing."""
        if not (folder / PAGES).is_file():
            return no_pages()
        return cls(pd.read_parquet(folder / PAGES), pd.read_parquet(folder / PASSAGES))


def no_pages() -> NeuronPages:
    """Pages of no neuron."""
    return NeuronPages(*(pd.DataFrame(columns=list(columns)) for columns in (NEURON_COLUMNS, PASSAGE_COLUMNS)))


def paged(table: NeuronTable, neurons: int | Literal["all"] = PAGED) -> list[str]:
    """The neurons that have a page: those that a rule names, and so many of those with the largest effects on the loss.

    Their order is that of the effects, mean |change of loss|. Raises InputError if `neurons` is below 0, and if the
    table has no neurons but other components.
    """
    check_paged(neurons)
    frame = table.neurons.sort_values("loss_abs_delta", ascending=False, kind="stable")
    if frame.empty:
        raise InputError("the table has no neurons, of which alone there are pages; analyse a layer's neurons")
    if neurons == "all":
        return frame.index.tolist()
    named = frame[[f"is_{kind}_neuron" for kind in KINDS]].any(axis=1).to_numpy()
    return frame.index[named | (np.arange(len(frame)) < neurons)].tolist()


def check_paged(neurons: int | Literal["all"]) -> None:
    """Raises InputError if `neurons` is below 0."""
    if neurons != "all" and neurons < 0:
        raise InputError(f"neurons is {neurons}; give how many neurons get a page, or all")
