"""A track: what was measured of one model at many steps of its training, in one Parquet file.

S measured steps, n neurons of the last layer, D singular values of the folded unembedding. Losses and entropies are in
nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.results.files import read_parquet, write_parquet
from jaxconf.results.run_folder import COMPONENTS, OPTIMUM

if TYPE_CHECKING:
    from jaxconf.training.track_plots import TrackPlots

FILE = "emergence.parquet"

STEP_COLUMNS: dict[str, str] = {
    "step": "optimiser steps that the model had been trained for",
    "revision": "the hub's revision, if a hub model was measured",
    "train_loss": "mean training loss since the previous measured step, nats per token",
    "loss": "held-out loss, nats per token",
    "entropy": "mean entropy of the predictions on held-out text, nats",
    "accuracy": "share (0 to 1) of held-out positions whose most likely token is the one that follows",
    "ece": "expected calibration error (0 to 1) of the most likely token, 15 bins of equal width",
    "rho_chance": "99% quantile of the largest rho among as many random directions as the layer has neurons",
}


@dataclass(frozen=True)
class Emergence:
    """The track of one model.

    `steps`: a row for each measured step, with the STEP_COLUMNS that apply. `neurons`: a row for each step and neuron,
    with columns of `jaxconf.analysis.metrics.COLUMNS`; at steps at which only the weights were measured, the columns of
    effects are NaN and those of rules are False. `singular_values`: float64 [S D], largest first. `facts`: model,
    recipe, data, k, rules and versions. `optimum`: the predictions beside the best possible ones, if these are known:
    `step`, and the columns of `jaxconf.measure.optimum.Beside.sets`; otherwise no rows. `components`: if others than
    neurons were asked for, a row for each step with effects and component, with `step` and the columns of
    `NeuronTable.frame`.
    """

    steps: pd.DataFrame
    neurons: pd.DataFrame
    singular_values: np.ndarray
    facts: dict[str, Any]
    optimum: pd.DataFrame = field(default_factory=pd.DataFrame)
    components: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def plot(self) -> "TrackPlots":
        """The figures of the track by name: `track.plot.rho()`."""
        from jaxconf.training.track_plots import TrackPlots  # which draws tracks, and so imports this module

        return TrackPlots(self)

    @classmethod
    def load(cls, source: str | Path) -> "Emergence":
        """Read an emergence.parquet, or the one in a folder.

        Raises InputError if there is no such file, or if it holds no track.
        """
        path = Path(source) / FILE if Path(source).is_dir() else Path(source)
        advice = (
            "give the folder of a tracked training run (jaxconf train tracks its models unless --track.points is 0), "
            f"or the {FILE} that holds its track"
        )
        # The columns tell it from the table of an analysis, which has facts too.
        table, facts = read_parquet(path, "track", advice, ["step", "rho", "rho_chance", "singular_values"])
        rows = table.to_pylist()
        if not rows:
            raise InputError(f"{path} holds no measured step; {advice}")
        scalars = [name for name in STEP_COLUMNS if name in rows[0]]
        lists = [name for name in rows[0] if name not in (*scalars, "singular_values")]
        steps = pd.DataFrame({name: [row[name] for row in rows] for name in scalars})
        neurons = pd.concat([_neurons(row, lists) for row in rows], ignore_index=True)
        optimum, components = (
            pd.read_parquet(file) if (file := path.parent / name).is_file() else pd.DataFrame()
            for name in (OPTIMUM, COMPONENTS)
        )
        return cls(steps, neurons, np.array([row["singular_values"] for row in rows]), facts, optimum, components)


def _neurons(row: Mapping[str, Any], lists: list[str]) -> pd.DataFrame:
    unmeasured = {name: False if name.startswith("is_") else np.nan for name in lists if row[name] is None}
    measured = {name: row[name] for name in lists if name not in unmeasured}
    frame = pd.DataFrame({"step": row["step"], "neuron": np.arange(len(row["rho"])), **measured, **unmeasured})
    return frame[["step", "neuron", *lists]]


def append(folder: Path, row: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Add one measured step to the emergence.parquet of a folder.

    Rows of this step and of later ones are removed, because a resumed run measures them again. `row`: the STEP_COLUMNS
    that apply, `singular_values` [D], and for each neuron column an array [n], or None if it was not measured. `facts`:
    replace those of the file.
    """
    path, new = folder / FILE, _row(row)
    if path.is_file():
        old = pq.read_table(path)
        kept = old.filter(pc.less(old["step"], row["step"])).replace_schema_metadata(None)
        new = pa.concat_tables([kept, new], promote_options="default")  # an older version measured fewer columns
    write_parquet(new, facts, path)  # the whole file is written: a Parquet file cannot be appended to


def append_rows(folder: Path, file: str, step: int, rows: pd.DataFrame) -> None:
    """Add the rows of one measured step to a file of a folder, in place of those of it and later steps.

    `file`: OPTIMUM or COMPONENTS. `rows`: those of `Emergence` without the step.
    """
    path, new = folder / file, rows.assign(step=step)
    if path.is_file():
        old = pd.read_parquet(path)
        new = pd.concat([old[old["step"] < step], new], ignore_index=True)
    with replacing(path) as temporary:
        new.to_parquet(temporary, index=False)


def _row(row: Mapping[str, Any]) -> pa.Table:
    def column(name: str, value: Any) -> pa.Array:
        if name in STEP_COLUMNS:
            kind = {"step": pa.int64(), "revision": pa.string()}.get(name, pa.float64())
            return pa.array([value], kind)
        kind = pa.list_(pa.bool_() if name.startswith("is_") else pa.float64())
        return pa.array([None if value is None else np.asarray(value)], kind)

    return pa.table({name: column(name, value) for name, value in row.items()})
