"""Many analyses as two tables: a row for each, and a row for each neuron that any of them names."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS, Kind

WHERE = ("model", "revision", "data", "ablation", "layer")  # what tells analyses apart, as words
SAME = ("model", "data", "ablation", "layer")  # what stays the same over training
METRICS = {
    "entropy neurons": "by the rule",
    "frequency neurons": "by the rule",
    "largest |Δ entropy|": "the largest mean |change of entropy| of a neuron, in nats",
    "largest ln_mediated": "among neurons with rho above chance",
    "largest rho": "of a neuron's output weights in the effective null space of the unembedding",
    "correlation": "of entropy with the divergence from the token frequencies",
    "loss": "of the model without ablation, in nats",
    "entropy": "of the model without ablation, in nats",
}
"""The columns of `summaries` that are drawn → what they mean."""
SHARE: dict[Kind, str] = {"entropy": "ln_mediated", "frequency": "freq_mediated"}


def summaries(tables: Mapping[str, NeuronTable], steps: Mapping[str, float]) -> pd.DataFrame:
    """A row for each analysis: its name (`cell`), WHERE, its training step, the model's parameters, and METRICS.

    `steps`: the name of an analysis → its training step, NaN if it has none. The parameters are NaN in the analyses of
    earlier versions, which do not state them.
    """
    return pd.DataFrame([_summary(name, table, steps[name]) for name, table in tables.items()])


def _summary(name: str, table: NeuronTable, step: float) -> dict[str, Any]:
    frame, facts = table.frame, table.facts
    above = frame[frame["rho"] > frame["rho_chance"]]
    return {
        "cell": name,
        **{key: in_words(facts.get(key)) for key in WHERE},
        "step": step,
        "parameters": facts.get("parameters", float("nan")),
        **{f"{kind} neurons": int(frame[f"is_{kind}_neuron"].sum()) for kind in KINDS},
        "largest |Δ entropy|": frame["entropy_abs_delta"].max(),
        "largest ln_mediated": above["ln_mediated"].max(),
        "largest rho": frame["rho"].max(),
        "chance": frame["rho_chance"].iloc[0],
        "correlation": table.correlation(),
        "loss": facts["loss"],
        "entropy": facts["entropy"],
        "tokens counted": facts.get("counts_tokens"),
        "types seen": facts.get("counts_types"),
        "split-half cosine": facts.get("counts_cosine"),
    }


def named_neurons(tables: Mapping[str, NeuronTable], of: pd.DataFrame) -> pd.DataFrame:
    """A row for each neuron that an analysis names, and for the same neuron at the model's other revisions.

    `of`: the `summaries` of the tables. Columns: `cell`, SAME, `revision`, `step`, `kind`, `neuron` (its name), `share`
    (its mediated share) and `named` (whether this analysis names it).
    """
    parts = []
    for same, group in of.groupby(list(SAME), sort=False):
        frames = {cell: tables[cell].neurons for cell in group["cell"]}
        for kind in KINDS:
            ever = {name for frame in frames.values() for name in frame.index[frame[f"is_{kind}_neuron"]]}
            for row in group.itertuples():
                chosen = frames[row.cell].loc[lambda frame, ever=ever: frame.index.isin(ever)]
                told = {"cell": row.cell, **dict(zip(SAME, same, strict=True)), "revision": row.revision}
                columns = {"neuron": chosen.index, "share": chosen[SHARE[kind]].to_numpy()}
                named = chosen[f"is_{kind}_neuron"].to_numpy(bool)
                parts.append(pd.DataFrame({**told, "step": row.step, "kind": kind, **columns, "named": named}))
    return pd.concat(parts, ignore_index=True)


def in_words(value: object) -> str:
    """A value that tells analyses apart, such as a list of layers, in words."""
    if isinstance(value, list | tuple):
        return f"{value[0]} to {value[-1]}"
    return "" if value is None else str(value)
