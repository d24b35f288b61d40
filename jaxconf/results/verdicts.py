"""What is said of a single neuron: its verdict, its rank in its layer, and its place among the nulls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS, Kind
from jaxconf.results.words import model_title, sign

NOUNS: dict[Kind, str] = {"entropy": "an entropy neuron", "frequency": "a token-frequency neuron"}


class Standing(NamedTuple):
    """Where a neuron's value stands among the neurons of its layer, and among the nulls if these have the column."""

    rank: int  # from 1, the largest value; 0 without a value
    of: int  # neurons of the layer that have a value
    null_median: float | None = None
    null_high: float | None = None  # their 99% quantile
    as_large: int | None = None  # nulls with at least this value
    nulls: int | None = None


def verdicts(table: NeuronTable, names: Sequence[str]) -> dict[str, list[str]]:
    """Neuron → what it is by the rules of the table, in a sentence, and then why, a sentence for each rule."""
    frame = table.neurons.loc[list(names)]
    judged = {kind: table.rules.shortfall(table.neurons, kind).loc[list(names)].notna() for kind in KINDS}
    found = {}
    for name, row in frame.to_dict("index").items():
        meets = [kind for kind in KINDS if row[f"is_{kind}_neuron"]]
        sentences = [_first(str(name), meets, row["confidence_sign"])]
        for kind in KINDS:
            what = "met" if kind in meets else "not met"
            told = f"{what} ({table.rules.told(kind, row)})" if judged[kind][name] else "cannot be judged"
            sentences.append(f"{kind.capitalize()} rule: {told}.")
        found[str(name)] = sentences
    return found


def _first(name: str, meets: Sequence[Kind], effect: float) -> str:
    """The first sentence about a neuron that meets these rules. `effect`: its confidence_sign."""
    if not meets:
        return f"{name} is neither {NOUNS['entropy']} nor {NOUNS['frequency']}."
    does = f"; as the model uses it, it {sign(effect)} the entropy" if effect in (1, -1) else ""
    return f"{name} is {' and '.join(NOUNS[kind] for kind in meets)}{does}."


def standings(table: NeuronTable, names: Sequence[str], columns: list[str]) -> dict[str, dict[str, Standing]]:
    """Neuron → column → its standing among all of its layer, for the neurons with these `names`."""
    found: dict[str, dict[str, Standing]] = {name: {} for name in names}
    for layer, frame in table.neurons.groupby("layer"):
        own = frame.index[frame.index.isin(found)]
        if not len(own):
            continue
        nulls = table.nulls[table.nulls["layer"] == layer] if len(table.nulls) else table.nulls
        for column in columns:
            values = frame[column].astype(float)
            ranks, of = values.rank(ascending=False, method="min"), int(values.notna().sum())
            beside = _beside(np.sort(nulls[column].dropna().to_numpy(float))) if column in nulls else None
            for name, value, rank in zip(own, values[own], ranks[own], strict=True):
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
    tokens = f"{facts['tokens']:,}" if "tokens" in facts else "n/a"
    return (
        f"{model_title(facts)}{revision}, {table.where}, on {facts.get('data', 'text')}, {tokens} tokens. "
        f"jaxconf {version}, {str(facts.get('created', ''))[:10]}, run {run}."
    )
