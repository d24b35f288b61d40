"""Results in words: numbers, counts, the facts of an analysis, and the effects of neuron sets."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.intervals import FEWEST
from jaxconf.analysis.kinds import VALUED
from jaxconf.models.hub import HUB_ID
from jaxconf.results.columns import SET_COLUMNS

# Each entry is a template, followed by the names of the facts that fill it.
SHAPE = (
    ("{}", "model_type"),
    ("layers: {}", "n_layers"),
    ("width {}", "d_model"),
    ("{} neurons a layer", "n_neurons"),
    ("{} experts for each token", "experts_per_token"),
    ("{} tokens in the vocabulary", "vocab_size"),
)
ADAPTIVE = (
    ("within {} nats for every neuron and position", "tolerance"),
    ("{} of {} such pairs computed again with every token", "pairs_redone", "pairs"),
    ("largest bound on an error {:.2g} nats, of a reciprocal rank {:.2g}", "largest_bound", "largest_rr_bound"),
    ("true error at most {:.2g} nats in {} random pairs", "audit_error", "audit_pairs"),
)
COUNTS = (
    ("{}", "counts"),
    ("{} tokens of {} types", "counts_tokens", "counts_types"),
    ("{} smoothing", "counts_smoothing"),
    ("the directions from two halves have a cosine of {:.3f}", "counts_cosine"),
)
COUNT_FACTS = ("counts_tokens", "counts_types", "counts_cosine")
"""The facts that say how far a token-frequency direction can be trusted, as columns of a table over models."""
SURE = 0.9  # the least split-half cosine of a frequency direction that can be relied on
READING = (("rows without text skipped: {}", "rows_skipped"), ("rows joined to documents at {}", "rows_joined_at"))
TIME = (("{:.1f} s", "seconds"), ("{:.1f} s of them compiling", "seconds_compiling"), ("on {}", "device"))


def number(value: float | None) -> str:
    """A number for a reader: three significant digits, or "n/a" if there is none."""
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.3g}"


def sign(value: float | None) -> str:
    """What a neuron with this `confidence_sign` does to the entropy, as the model uses it."""
    if value is None or np.isnan(value):
        return "n/a"
    return {1: "lowers", -1: "raises"}.get(int(value), "unclear")


def counted(count: int, noun: str) -> str:
    """How many there are, for example "1 position" or "1,280 positions"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def count_of(count: int, kind: str) -> str:
    """How many neurons of a kind there are, for example "2 entropy neurons"."""
    return counted(count, f"{kind} neuron")


def model_title(facts: Mapping[str, Any]) -> str:
    """The name of a result's model for a title; the path that it was read from stands among the facts."""
    return titled(str(facts.get("model", "unnamed model")), facts.get("revision", ""))


def titled(model: str, revision: str | None = "") -> str:
    """A model's name for a title: a hub id as it is, and of a folder the last part of its path.

    `revision`: as a model has it, None for a folder. Without one, whatever can be a hub id counts as one. A folder in
    the hub's cache has the id of its model.
    """
    if revision is not None and re.fullmatch(HUB_ID, model):
        return model
    *_, repository, snapshots, name = ("", "", *Path(model).absolute().parts)
    cached = snapshots == "snapshots" and repository.startswith("models--")
    return repository.removeprefix("models--").replace("--", "/") if cached else name


def noun_of(name: str) -> str:
    """What has this name: "neuron" for 11.584, and "component" for others, such as sae.12."""
    return "neuron" if name.replace(".", "").isdigit() else "component"


def counts_doubts(facts: Mapping[str, Any]) -> list[str]:
    """A sentence that warns if a token-frequency direction cannot be relied on, by the facts about its counts.

    No sentence if it can, or if an older version did not write these facts.
    """
    cosine = facts.get("counts_cosine")
    if cosine is None or not cosine < SURE:
        return []
    return [
        f"The token-frequency direction is uncertain: it is from {int(facts['counts_tokens']):,} tokens, and the "
        f"directions of two halves of them have a cosine of {cosine:.2f}; give --counts of more text."
    ]


def interval_doubts(facts: Mapping[str, Any]) -> list[str]:
    """A sentence that warns if the documents are too few for intervals over them, by the facts about what was drawn.

    No sentence if they suffice, or if an older version did not write these facts.
    """
    documents = facts.get("documents")
    if documents is None or documents >= FEWEST:
        return []
    return [
        f"The intervals are likely too narrow: the text has {counted(documents, 'document')}, and at least {FEWEST} "
        f"are needed. Instead, {facts['units']} {facts['resampled']} were drawn again; analyse more or shorter "
        "documents."
    ]


def reading_notes(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing that was done to the rows of the text, beside reading it, by the facts that say so."""
    skipped, joined = facts.get("rows_skipped"), facts.get("rows_joined_at")
    said = []
    if skipped:
        said.append(f"{counted(skipped, 'row')} without text {'was' if skipped == 1 else 'were'} skipped.")
    if joined:
        said.append(f"The rows of the text are lines, which are joined to documents at {joined}.")
    return said


def facts_in_words(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of an analysis for a reader, (name, value) in reading order; facts that are missing are left out."""

    def told(template: str, *keys: str) -> str:
        values = [facts.get(key) for key in keys]
        if any(value is None for value in values):
            return ""
        return template.format(*(f"{value:,}" if isinstance(value, int) else value for value in values))

    def joined(*templates: tuple[str, ...]) -> str:
        return ", ".join(filter(None, (told(*template) for template in templates)))

    convention = [told("{} convention.", "convention").capitalize(), *facts.get("convention_notes", [])]
    value = facts.get("ablation_value") if facts.get("ablation") in VALUED else None
    baseline = [f"{name} {number(facts[name])} nats" for name in ("loss", "entropy") if facts.get(name) is not None]
    knee = ""
    if (found := facts.get("knee")) is not None:
        knee = f"; the steepest fall of the smaller half of them is by a factor of {number(found['ratio'])}, above the "
        knee += "smallest value" if found["k"] == 1 else counted(found["k"], "smallest value")
    words = [
        ("Model", joined(("{}", "model"), ("revision {}", "revision"))),
        ("Accepted in config.json", ", ".join(facts.get("accepted", []))),
        ("Shape", joined(*SHAPE)),
        ("Data", joined(("{}", "data"), ("{} windows", "windows"), ("{} tokens", "tokens"), *READING)),
        ("SHA-256 of the data", told("{}", "data_sha256")),
        ("Kept positions", told("{}", "positions")),
        ("Baseline", ", ".join(baseline)),
        ("Weights", " ".join(convention).strip()),
        ("Ablation", told("{}", "ablation") + (f" ({number(value)})" if value is not None else "")),
        ("Engine", joined(("{}", "engine"), *ADAPTIVE)),
        ("Null space", told("k = {}, the number of smallest singular values", "k") + knee),
        ("Token counts", joined(*COUNTS)),
        ("Nulls", told("{} random directions in each layer", "nulls")),
        ("Intervals", joined(("{} bootstrap samples", "bootstrap"), ("of {} {}", "units", "resampled"))),
        ("Seed", told("{}", "seed")),
        ("Time", joined(*TIME)),
        ("Mesh", ", ".join(f"{axis}={size}" for axis, size in facts.get("mesh", {}).items())),
        ("Throughput", told("{:.3g} pairs of a token and a neuron per second", "pairs_per_second")),
        ("Peak memory", f"{facts['peak_memory'] / 1e9:.2f} GB" if "peak_memory" in facts else ""),
        ("Created", told("{}", "created")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())),
    ]
    return [(name, text) for name, text in words if text]


def sets_in_words(effects: pd.DataFrame) -> list[tuple[str, list[tuple[str, ...]]]]:
    """A heading and a table for each set of `effects`, the table of `jaxconf.ablate_sets`.

    The table is a list of rows; the first row has the names of the columns. Each further row has an effect of the set,
    its interval, the median of the effect among the random sets, and how many random sets have a smaller effect.
    """
    found = []
    for _, rows in effects.groupby("set"):
        own, controls = rows.iloc[0], rows.iloc[1:]
        names = ("", "the set", "95% interval", f"median of {len(controls)} random sets", "random sets below")
        table: list[tuple[str, ...]] = [names]
        for column in SET_COLUMNS:
            interval = f"{number(own[f'{column}_lo'])} to {number(own[f'{column}_hi'])}"
            below = (controls[column] < own[column]).sum()
            table.append((column, number(own[column]), interval, number(controls[column].median()), f"{below}"))
        noun = noun_of(own["neurons"].partition(",")[0])
        together = f"{noun} ablated" if own["size"] == 1 else f"{noun}s ablated together"
        compared = table if len(controls) else [row[:3] for row in table]
        found.append((f"{own['size']:,} {together}: {own['neurons']}", compared))
    return found
