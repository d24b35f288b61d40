"""What is said of a single neuron: its verdict, its rank in its layer, and its place among the nulls."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS, Kind
from jaxconf.results.words import sign

NOUNS: dict[Kind, str] = {"entropy": "an entropy neuron", "frequency": "a token-frequency neuron"}


class Standing(NamedTuple):
    """Where a neuron's value stands among the neurons of its layer, and among the nulls if these have the column."""

    rank: int  # from 1, the largest value; 0 without a value
    of: int  # neurons of the layer that have a value
    null_median: float | None = None
    null_high: float | None = None  # their 99% quantile
    as_large: int | None = None  # nulls with at least this value
    nulls: int | None = None


def verdict_of(table: NeuronTable, name: str) -> list[str]:
    """What a neuron is by the rules of the table, in a sentence, and then why, a sentence for each rule."""
    frame = table.neurons
    row = frame.loc[name].to_dict()
    meets = [kind for kind in KINDS if row[f"is_{kind}_neuron"]]
    if meets:
        effect = sign(row["confidence_sign"])
        does = f"; as the model uses it, it {effect} the entropy" if effect in ("raises", "lowers") else ""
        first = f"{name} is {' and '.join(NOUNS[kind] for kind in meets)}{does}."
    else:
        first = f"{name} is neither {NOUNS['entropy']} nor {NOUNS['frequency']}."
    sentences = [first]
    for kind in KINDS:
        shortfall = table.rules.shortfall(frame.loc[[name]], kind).iloc[0]
        what = "met" if kind in meets else "not met"
        told = f"{what} ({table.rules.told(kind, row)})" if pd.notna(shortfall) else "cannot be judged"
        sentences.append(f"{kind.capitalize()} rule: {told}.")
    return sentences


def standings(table: NeuronTable, columns: list[str]) -> dict[str, dict[str, Standing]]:
    """Neuron → column → its standing, for every neuron of the table."""
    found: dict[str, dict[str, Standing]] = {name: {} for name in table.neurons.index}
    for layer, frame in table.neurons.groupby("layer"):
        nulls = table.nulls[table.nulls["layer"] == layer] if len(table.nulls) else table.nulls
        for column in columns:
            values = frame[column].astype(float)
            ranks, of = values.rank(ascending=False, method="min"), int(values.notna().sum())
            beside = _beside(np.sort(nulls[column].dropna().to_numpy(float))) if column in nulls else None
            for name, value, rank in zip(frame.index, values, ranks, strict=True):
                known = np.isfinite(rank)
                of_nulls = beside(value) if beside and known else ()
                found[name][column] = Standing(int(rank) if known else 0, of, *of_nulls)
    return found


def _beside(nulls: np.ndarray) -> Any:
    """The further fields of `Standing` as a function of a value; `nulls`: ascending."""
    if not len(nulls):
        return None
    median, high = (float(np.quantile(nulls, q)) for q in (0.5, 0.99))
    return lambda value: (median, high, len(nulls) - int(np.searchsorted(nulls, value)), len(nulls))


def citation(table: NeuronTable, run: str) -> str:
    """How to cite a run: its model, what it was measured on, and its hash `run`."""
    facts = table.facts
    revision = f", revision {facts['revision']}" if facts.get("revision") else ""
    version = facts.get("versions", {}).get("jaxconf", "")
    text = f"{facts.get('data', 'text')}, {number_of(facts.get('tokens'))} tokens"
    return (
        f"{facts.get('model', 'unnamed model')}{revision}, {table.where}, on {text}. "
        f"jaxconf {version}, {str(facts.get('created', ''))[:10]}, run {run}."
    )


def number_of(count: int | None) -> str:
    """A count with commas."""
    return "n/a" if count is None else f"{count:,}"
