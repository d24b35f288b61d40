"""The table and the figure that compare the models of a training grid."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.report.style import ENTROPY, NORMAL, grid_of, styled
from jaxconf.results.words import COUNT_FACTS
from jaxconf.training.config import TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.run import RECORD
from jaxconf.training.vary import models_of_grid

GRID = "study.json"
TABLE = "study.parquet"
FIGURE = "study.png"
MODELS = "models"

OUTCOMES: dict[str, str] = {
    "held_out_loss": "held-out loss, nats per token",
    "entropy": "mean entropy of the predictions, nats",
    "ece": "expected calibration error, 0 to 1",
    "above_chance": "neurons with rho above chance",
    "first_above_chance": "first step with a neuron above chance",
    "max_ln_mediated": "largest ln_mediated of those above chance",
    "entropy_neurons": "entropy neurons by the rule",
    "frequency_neurons": "frequency neurons by the rule",
    "bottom_singular_value": "smallest singular value / median",
}


def tabulate(out: Path) -> pd.DataFrame:
    """Write study.parquet and study.png of a finished grid. Returns the table, which has a row for each model.

    Raises InputError if there is no grid, or if a model is still to be trained.
    """
    record = read_grid(out)
    config = record["config"]
    base, vary = TrainConfig(**{**config, "attributes": tuple(config["attributes"])}), record["vary"]
    rows = []
    for name, config in models_of_grid(base, vary, record["seeds"]).items():
        folder = out / MODELS / name
        if not finished(folder):
            raise InputError(f"{out} is not finished: {name} is still to be trained; go on with --resume")
        result = result_of(out, name)
        track = None if "diverged_at" in result else Emergence.load(folder)
        found = (
            result if track is None else outcome(track, result) | {name: track.facts.get(name) for name in COUNT_FACTS}
        )
        rows.append({"model": name, **{key: getattr(config, key) for key in vary}, "seed": config.seed, **found})
    table = pd.DataFrame(rows).reindex(columns=["model", *vary, "seed", *OUTCOMES, *COUNT_FACTS, "diverged_at"])
    with replacing(out / TABLE) as path:
        table.to_parquet(path)
    with replacing(out / FIGURE) as path:
        grid_figure(table, list(vary)).savefig(path, dpi=150, format="png")
    return table


def read_grid(out: Path) -> dict[str, Any]:
    """The record of the grid in a folder. Raises InputError if there is none."""
    path = out / GRID
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read; give the folder of a grid made with `jaxconf train --vary`"
        ) from error


def finished(folder: Path) -> bool:
    """Whether the training of a grid's model has ended, also if the model has diverged."""
    path = folder / RECORD
    return path.is_file() and "result" in json.loads(path.read_text("utf-8"))


def result_of(out: Path, model: str) -> dict[str, Any]:
    """What the training of a grid's model resulted in, as `jaxconf.train` returns it."""
    return json.loads((out / MODELS / model / RECORD).read_text("utf-8"))["result"]


def outcome(e: Emergence, result: Mapping[str, Any]) -> dict[str, float]:
    """The OUTCOMES of one model, from its track and the result of its training."""
    chance = e.neurons["step"].map(e.steps.set_index("step")["rho_chance"])
    above = e.neurons[e.neurons["rho"] > chance]
    last = e.steps.iloc[-1]
    above_last, neurons = above[above["step"] == last["step"]], e.neurons[e.neurons["step"] == last["step"]]
    values = e.singular_values[-1]
    return {
        "held_out_loss": result["held_out_loss"],
        "entropy": last["entropy"],
        "ece": last["ece"],
        "above_chance": len(above_last),
        "first_above_chance": above["step"].min(),
        "max_ln_mediated": above_last["ln_mediated"].max(),
        "entropy_neurons": int(neurons["is_entropy_neuron"].sum()),
        "frequency_neurons": int(neurons["is_frequency_neuron"].sum()),
        "bottom_singular_value": values[-1] / np.median(values),
    }


@styled
def grid_figure(table: pd.DataFrame, vary: list[str]) -> Figure:
    """A panel for each outcome, with a point for each model, and beside the points their median over seeds."""
    settings = table[vary].astype(str).agg("\n".join, axis=1) if vary else pd.Series("", index=table.index)
    labels = list(dict.fromkeys(settings))
    rows, columns = grid_of(len(OUTCOMES), 3)
    figure = Figure(figsize=(max(9.0, 1.0 + 0.55 * len(labels) * columns), 2.6 * rows), layout="constrained")
    title = ", ".join(vary) or "seeds"
    figure.suptitle(f"{len(table)} models by {title}; points: each seed; dashes: median", fontsize="medium")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, meaning) in zip(panels, OUTCOMES.items(), strict=False):
        for place, label in enumerate(labels):
            values = table.loc[settings == label, name].dropna().to_numpy(float)
            axes.plot(np.full(len(values), place - 0.12), values, "o", color=NORMAL, markersize=3.5, alpha=0.7)
            if len(values):
                axes.plot(place + 0.12, np.median(values), "_", color=ENTROPY, markersize=12, markeredgewidth=2)
        if table[name].isna().all():
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center")
        axes.set_title(meaning, fontsize="small", loc="left")
        axes.set_xticks(range(len(labels)), labels, fontsize="x-small")
        axes.set_xlim(-0.6, len(labels) - 0.4)
    return figure
