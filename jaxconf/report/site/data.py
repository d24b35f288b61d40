"""What the site's scripts are given: of the site, of each run, and of each neuron; plain values for JSON.

Numbers that the site shows are those of the tables; of passages they have the three digits that are shown, and numbers
that are only drawn have four.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.metrics import COLUMNS, MIXTURE_COLUMNS
from jaxconf.report.passages.passage import visible
from jaxconf.report.shown import drawn, title
from jaxconf.results.files import plain
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import NeuronPages
from jaxconf.results.rules import KINDS
from jaxconf.results.verdicts import citation, standings, verdicts
from jaxconf.results.words import facts_in_words

INDEX = (
    "rho", "ln_mediated", "freq_mediated", "entropy_delta", "entropy_abs_delta", "loss_delta", "loss_abs_delta",
    "kl_freq_abs_delta", "top1_change", "w_norm", "logit_var", "cos_freq",
)  # fmt: skip
"""The columns of the table of neurons; the figures draw some of them."""
BACKGROUND = 1200  # neurons without a page that a figure draws behind those with one
BARS = 512  # cosines that a page draws at most
FEW = 5  # tokens that the table names of each neuron


class Run(NamedTuple):
    """A run on the site."""

    key: str  # its name; on the site its folder, and its part of a permalink
    table: NeuronTable
    pages: NeuronPages
    hash: str  # SHA-256 of the file of its neuron table, or of its track


def of_site(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs that the site has, and what each column means."""
    every = COLUMNS | MIXTURE_COLUMNS
    return {"runs": [_head(run) for run in runs], "columns": every}


def _head(run: Run) -> dict[str, Any]:
    counts = {kind: int(run.table.neurons[f"is_{kind}_neuron"].sum()) for kind in KINDS}
    told = {name: run.table.facts.get(name) for name in ("revision", "loss", "entropy")}
    return plain({"key": run.key, "shape": shape_of(run), **told, "named": counts})


def shape_of(run: Run) -> list[Any]:
    """The shape of a run's model: a neuron of one run can be told in another of the same shape."""
    return [run.table.facts.get(name) for name in ("model_type", "n_layers", "d_model", "n_neurons")]


def of_run(run: Run, shown: Collection[str], background: int = BACKGROUND) -> dict[str, Any]:
    """A run: its facts, and a row for each neuron that has a page here or is among those `shown`.

    `background`: how many of the others are drawn.
    """
    table, frame = run.table, run.table.neurons
    places = {name: place for place, name in enumerate(run.pages.names)}
    rows = [name for name in frame.index if name in places or name in shown]
    few = run.pages.neurons.set_index("name")["promoted"]
    here = frame.loc[rows]
    others = set(frame.index) - set(rows)
    rest = [name for name in drawn(table) if name in others][:background]
    return plain(
        {
            "key": run.key,
            "title": title(table),
            "verdict": table.verdict(),
            "rules": table.rules.describe(),
            "facts": [*facts_in_words(table.facts), ("SHA-256 of the table", run.hash)],
            "citation": citation(table, run.hash[:16]),
            "names": rows,
            "pages": [places.get(name, -1) for name in rows],
            "layers": here["layer"].tolist(),
            "kinds": [[kind for kind in KINDS if row[f"is_{kind}_neuron"]] for row in here.to_dict("records")],
            "tokens": [[visible(token) for token in few[name][:FEW]] if name in places else [] for name in rows],
            "values": {name: here[name].astype(float).tolist() for name in INDEX},
            "background": {name: _rounded(frame.loc[rest, name]) for name in INDEX},
            "guides": _guides(table),
            "count": len(frame),
            "D": len(table.singular_values),
            "k": table.facts.get("k"),
        }
    )


def _guides(table: NeuronTable) -> dict[str, list[float]]:
    """Column → thresholds of the rules, which the figures mark."""
    frame, rules = table.neurons, table.rules
    return {
        "rho": np.sort(frame["rho_chance"].dropna().unique()).tolist(),
        "ln_mediated": [rules.least_share("entropy", frame)],
        "freq_mediated": [rules.least_share("frequency", frame)],
        "kl_freq_abs_delta": rules.least_changes(frame),
    }


def of_neurons(run: Run) -> list[dict[str, Any]]:
    """What the page of each neuron shows, in the order of `NeuronPages.neurons`."""
    table, frame = run.table, run.table.neurons
    numeric = [name for name in COLUMNS | MIXTURE_COLUMNS if name in frame and frame[name].dtype.kind == "f"]
    where, passages = (
        standings(table, run.pages.names, numeric),
        dict(list(run.pages.passages.groupby("neuron", sort=False))),
    )
    of, records = verdicts(table, run.pages.names), frame.loc[run.pages.names].to_dict("index")
    return [
        {
            "name": row["name"],
            "verdict": of[row["name"]],
            "values": plain({name: _value(records[row["name"]], name, where[row["name"]][name]) for name in numeric}),
            **_drawn(row),
            "passages": _passages(passages.get(row["name"], run.pages.passages.head(0))),
        }
        for row in run.pages.neurons.to_dict("records")
    ]


def _value(row: Mapping[Any, Any], name: str, standing: Any) -> list[Any]:
    """Value, ends of its interval, and the fields of `Standing`."""
    return [float(row[name]), *(float(row.get(f"{name}_{end}", np.nan)) for end in ("lo", "hi")), *standing]


def _drawn(row: dict[str, Any]) -> dict[str, Any]:
    """What a page draws of a row of `NeuronPages.neurons`, and the tokens and neurons that it names."""
    tokens = {
        which: [[visible(token) for token in row[which]], row[f"{which}_by"].tolist()]
        for way in ("promoted", "suppressed")
        for which in (way, f"{way}_frozen")
    }
    return {
        **plain({name: row[name] for name in ("low", "high")}),
        "histogram": row["histogram"].tolist(),
        **{name: _rounded(row[name]) for name in row if name.startswith(("group_", "sample_"))},
        **tokens,
        "cosines": _rounded(_joined(np.asarray(row["cosines"], float))),
        "nearest": list(zip(row["nearest"].tolist(), row["nearest_cosine"].tolist(), strict=True)),
    }


def _passages(frame: pd.DataFrame) -> dict[str, Any]:
    """The passages of a neuron, with its tokens as places in a list of words."""
    words: dict[str, int] = {}
    columns = {name: frame[name].to_numpy() for name in frame}
    begins = np.flatnonzero(~frame[["kind", "number"]].duplicated().to_numpy())
    found = []
    for begin, end in zip(begins, [*begins[1:], len(frame)], strict=True):
        of = {name: values[begin:end] for name, values in columns.items()}
        ids = [words.setdefault(visible(token), len(words)) for token in (*of["token"], of["target"][-1])]
        first = {name: of[name][0] for name in ("kind", "quantile", "window", "at")}
        shown = of["at"][0] - of["position"][0]
        change = [float(of[f"{name}_ablated"][shown]) - float(of[name][shown]) for name in ("loss", "entropy")]
        values = {name: _rounded(of[name], 3) for name in ("activation", "loss", "entropy")}
        after = {name: _rounded(of[f"{name}_ablated"], 3) for name in ("loss", "entropy")}
        found.append(
            {
                **plain(first),
                "start": int(of["position"][0]),
                "tokens": ids,
                **values,
                "after": after,
                "change": plain(change),
            }
        )
    return {"words": list(words), "each": found}


def _joined(values: np.ndarray) -> np.ndarray:
    """Values [D], of which neighbours are joined by their root mean square, so that at most BARS are left."""
    begins = np.unique(np.arange(BARS) * len(values) // BARS)
    counts = np.diff(begins, append=len(values))
    return np.sqrt(np.add.reduceat(np.square(values), begins) / counts) if len(values) > BARS else values


def _rounded(values: Any, digits: int = 4) -> list[float | None]:
    """The values with so many digits; None where they are not finite."""
    return [
        float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in np.asarray(values, float).tolist()
    ]


def key_of(name: str, taken: Collection[str]) -> str:
    """A run's part of a permalink, made of its name, which no other run has."""
    own = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in name) or "run"
    return next(key for key in (own, *(f"{own}-{i}" for i in range(2, 2 + len(taken)))) if key not in taken)
