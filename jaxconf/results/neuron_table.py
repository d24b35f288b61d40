"""The result of one analysis: a row of figures for every neuron, the facts of the run, and what the pictures need.

N neurons, D singular values of the folded unembedding, m chosen neurons. Losses, entropies and divergences are in nats.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxconf.analysis.kinds import VALUED
from jaxconf.analysis.metrics import COLUMNS, UNABLATED
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.results.words import number

Kind = Literal["entropy", "frequency"]

MAIN_COLUMNS = (
    "w_norm", "logit_var", "rho", "rho_chance", "cos_freq", "ln_mediated", "freq_mediated",
    "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "kl_freq_abs_delta", "top1_change",
)  # fmt: skip

SETS = "sets.parquet"  # what `jaxconf.ablate_sets` found, in a run folder
PER_TOKEN = "per_token.parquet"  # and what `jaxconf.per_token` found
POSITION_COLUMNS = ("window", "position", "token", "target", *UNABLATED)


# How the facts of a model's shape read.
ADAPTIVE = (
    ("within {} nats for every neuron and position", "tolerance"),
    ("{} of {} such pairs computed again with every token", "pairs_redone", "pairs"),
    ("largest bound on an error {:.2g} nats, of a reciprocal rank {:.2g}", "largest_bound", "largest_rr_bound"),
    ("true error at most {:.2g} nats in {} random pairs", "audit_error", "audit_pairs"),
)
SHAPE = (
    ("{}", "model_type"),
    ("{} layers", "n_layers"),
    ("width {}", "d_model"),
    ("{} neurons a layer", "n_neurons"),
    ("{} tokens in the vocabulary", "vocab_size"),
)


@dataclass(frozen=True)
class Rules:
    """When a neuron counts as an entropy neuron or as a frequency neuron.

    min_ln_mediated, min_freq_mediated: least mediated share. kl_top: share (0 to 1) of a layer's neurons, those with the largest
    kl_freq_abs_delta, among which a frequency neuron must be. Raises InputError where kl_top is no such share.
    """

    min_ln_mediated: float = 0.3
    min_freq_mediated: float = 0.15
    kl_top: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.kl_top <= 1:
            raise InputError(f"kl_top is {self.kl_top}, but it is a share of the neurons: choose a number above 0 and at most 1.")

    def describe(self) -> list[str]:
        """The rules in words, a sentence each."""
        return [
            "An entropy neuron has rho above the chance level (the 99% quantile of the largest rho among as many random "
            f"directions) and ln_mediated of at least {self.min_ln_mediated:g}.",
            f"A frequency neuron has freq_mediated of at least {self.min_freq_mediated:g} and kl_freq_abs_delta among the "
            f"largest {100 * self.kl_top:g}% of its layer.",
            "A neuron whose ablation changes the loss by no more than 1e-6 nats on average has no mediated share, and meets neither rule.",
        ]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of `frame` with boolean columns is_entropy_neuron and is_frequency_neuron. NaN never passes."""
        kl = frame["kl_freq_abs_delta"]
        enough = kl.groupby(frame["layer"]).transform("quantile", 1 - self.kl_top)
        return frame.assign(
            is_entropy_neuron=(frame["rho"] > frame["rho_chance"]) & (frame["ln_mediated"] >= self.min_ln_mediated),
            is_frequency_neuron=(frame["freq_mediated"] >= self.min_freq_mediated) & (kl >= enough),
        )

    def shortfall(self, frame: pd.DataFrame, kind: Kind) -> pd.Series:
        """How far each neuron is from meeting a rule: the sum of what it lacks to the rule's two thresholds.

        All thresholds are shares, so the two add up; for kl_freq_abs_delta it is the neuron's rank in its layer that counts.
        Float [N], 0 or more, NaN where the neuron cannot be judged.
        """
        if kind == "entropy":
            first, second = frame["rho_chance"] - frame["rho"], self.min_ln_mediated - frame["ln_mediated"]
        else:
            rank = frame.groupby("layer")["kl_freq_abs_delta"].rank(pct=True)
            first, second = (1 - self.kl_top) - rank, self.min_freq_mediated - frame["freq_mediated"]
        return first.clip(lower=0) + second.clip(lower=0)


@dataclass
class NeuronTable:
    """One analysis.

    frame: a row per neuron, with at least the columns COLUMNS (float, but layer and neuron int, is_… bool); those in
    INTERVAL_COLUMNS may also have `_lo` and `_hi`. facts: how it was made, JSON-able. singular_values [D], float, descending, of
    the folded unembedding, without the direction that the norm ignores. cosines [m, D], float: cosine of chosen neurons' write
    directions with the left singular vectors, in the same order; cosine_neurons: their m names. positions: a row per kept
    position with POSITION_COLUMNS (loss, entropy and kl_freq in nats). Raises InputError where columns or rows are missing.
    """

    frame: pd.DataFrame
    facts: dict[str, Any]
    singular_values: np.ndarray
    cosines: np.ndarray
    cosine_neurons: list[str]
    positions: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame]
        if missing:
            raise InputError(f"The table lacks the column {missing[0]}; make it anew with `jaxconf analyze`.")
        if self.frame.empty:
            raise InputError("The table has no neurons; analyse a layer that has some.")

    def to_pandas(self) -> pd.DataFrame:
        """A copy of the frame, a row per neuron, indexed by the neurons' names."""
        return self.frame.set_axis(pd.Index(self.names, name="name"))

    @property
    def names(self) -> list[str]:
        """The neurons' names, "layer.index", in the order of the frame."""
        return [f"{layer}.{neuron}" for layer, neuron in zip(self.frame["layer"], self.frame["neuron"], strict=True)]

    @property
    def rules(self) -> Rules:
        """The rules by which the neurons were named."""
        return Rules(**self.facts.get("rules", {}))

    @property
    def where(self) -> str:
        """The analysed layers in words: "layer 11", or "layers 10, 11"."""
        layers = sorted(set(self.frame["layer"]))
        return f"layer{'s' * (len(layers) > 1)} {', '.join(str(layer) for layer in layers)}"

    def members(self, kind: Kind) -> pd.DataFrame:
        """The rows (as `to_pandas`) of the neurons that meet a rule, largest rho or kl_freq_abs_delta first."""
        ranked = self._ranked(kind)
        return ranked[ranked[f"is_{kind}_neuron"]]

    def nearest(self, kind: Kind, count: int = 6) -> pd.DataFrame:
        """The rows (as `to_pandas`) of the `count` neurons that come nearest to a rule without meeting it, nearest first."""
        ranked = self._ranked(kind)
        return ranked[~ranked[f"is_{kind}_neuron"] & ranked["shortfall"].notna()].head(count)

    def _ranked(self, kind: Kind) -> pd.DataFrame:
        frame = self.to_pandas()
        frame["shortfall"] = self.rules.shortfall(frame, kind)
        size = {"entropy": "rho", "frequency": "kl_freq_abs_delta"}[kind]
        return frame.sort_values(["shortfall", size], ascending=[True, False], kind="stable")

    def correlation(self) -> float:
        """Pearson correlation, over the kept positions, of the entropy with D_KL(P_freq || P_model); NaN where there is none."""
        both = self.positions[["entropy", "kl_freq"]].astype(float).dropna()
        return float(both.corr().iloc[0, 1]) if both.std().min() > 0 else float("nan")

    def verdict(self) -> list[str]:
        """What was found, in words: one sentence on entropy neurons, one on frequency neurons."""
        return [self._verdict("entropy"), self._verdict("frequency")]

    def _verdict(self, kind: Kind) -> str:
        found = list(self.members(kind).index)
        if found:
            more = f" and {len(found) - 8:,} more" if len(found) > 8 else ""
            return f"{len(found):,} {kind} neuron{'s' * (len(found) > 1)} in {self.where}: {', '.join(found[:8])}{more}."
        none = f"No neuron of {self.where} meets the {kind} rule"
        near = self.nearest(kind, 1)
        if near.empty:
            return f"{none}, and none can be judged by it: no effect on the loss was measured."
        best = {column: number(near[column].iloc[0]) for column in MAIN_COLUMNS}
        if kind == "entropy":
            how = f"rho {best['rho']} where chance gives up to {best['rho_chance']}, ln_mediated {best['ln_mediated']}"
            asked = self.rules.min_ln_mediated
        else:
            layer = self.frame.loc[self.frame["layer"] == near["layer"].iloc[0], "kl_freq_abs_delta"]
            top = f"the largest {100 * self.rules.kl_top:g}% begin at {number(layer.quantile(1 - self.rules.kl_top))}"
            how = f"kl_freq_abs_delta {best['kl_freq_abs_delta']} where {top}, freq_mediated {best['freq_mediated']}"
            asked = self.rules.min_freq_mediated
        return f"{none}; {near.index[0]} comes nearest ({how} where the rule asks for {asked:g})."

    def summary(self) -> dict[str, Any]:
        """Facts, counts, rules and verdict in words, named neurons and leaders with their main figures; JSON-able, nats."""
        frame = self.to_pandas()
        intervals = [f"{column}_{end}" for column in MAIN_COLUMNS for end in ("lo", "hi") if f"{column}_{end}" in frame]

        def rows(chosen: pd.DataFrame) -> list[dict[str, Any]]:
            columns = [*MAIN_COLUMNS, *intervals]
            return [{"name": name, **row} for name, row in chosen[columns].to_dict("index").items()]

        summary = {
            "facts": self.facts,
            "verdict": self.verdict(),
            "rules": self.rules.describe(),
            "counts": {
                "neurons": len(frame),
                "above_rho_chance": (frame["rho"] > frame["rho_chance"]).sum(),
                "entropy_neurons": frame["is_entropy_neuron"].sum(),
                "frequency_neurons": frame["is_frequency_neuron"].sum(),
            },
            "baseline": {"loss": self.facts.get("loss"), "entropy": self.facts.get("entropy")},
            "entropy_kl_freq_correlation": self.correlation(),
            "entropy_neurons": rows(self.members("entropy")),
            "frequency_neurons": rows(self.members("frequency")),
            "top_rho": rows(frame.nlargest(10, "rho")),
            "top_ln_mediated": rows(frame.nlargest(10, "ln_mediated")),
            "top_abs_cos_freq": rows(frame.loc[frame["cos_freq"].abs().nlargest(10).index]),
        }
        return _plain(summary)

    def facts_in_words(self) -> list[tuple[str, str]]:
        """What a reader wants to know of the run, as (name, value), in reading order; facts that it lacks are left out."""
        facts = self.facts

        def told(template: str, *keys: str) -> str:
            values = [facts.get(key) for key in keys]
            if any(value is None for value in values):
                return ""
            return template.format(*(f"{value:,}" if isinstance(value, int) else value for value in values))

        def joined(*parts: str) -> str:
            return ", ".join(part for part in parts if part)

        value = facts.get("ablation_value") if facts.get("ablation") in VALUED else None
        baseline = [f"{word} {number(facts[word])} nats" for word in ("loss", "entropy") if facts.get(word) is not None]
        words = [
            ("Model", joined(told("{}", "model"), told("revision {}", "revision"))),
            ("Shape", joined(*(told(*item) for item in SHAPE))),
            ("Data", joined(told("{}", "data"), told("{} windows", "windows"), told("{} tokens", "tokens"))),
            ("SHA-256 of the data", told("{}", "data_sha256")),
            ("Kept positions", told("{}", "positions")),
            ("Baseline", joined(*baseline)),
            ("Weights", " ".join([told("{} convention.", "convention").capitalize(), *facts.get("convention_notes", [])]).strip()),
            ("Ablation", told("{}", "ablation") + (f" ({number(value)})" if isinstance(value, (int, float)) else "")),
            ("Engine", joined(told("{}", "engine"), *(told(*item) for item in ADAPTIVE))),
            ("Null space", told("k = {}, the number of smallest singular values", "k")),
            ("Token counts", told("{}", "counts")),
            ("Intervals", told("{} bootstrap samples", "bootstrap")),
            ("Seed", told("{}", "seed")),
            ("Time", joined(told("{:.1f} s", "seconds"), told("{:.1f} s of them compiling", "seconds_compiling"), told("on {}", "device"))),
            ("Mesh", joined(*(f"{axis}={size}" for axis, size in facts.get("mesh", {}).items()))),
            ("Throughput", told("{:.3g} pairs of a token and a neuron in a second", "pairs_per_second")),
            ("Peak memory", f"{facts['peak_memory'] / 1e9:.2f} GB" if "peak_memory" in facts else ""),
            ("Made", told("{}", "created")),
            ("Versions", joined(*(f"{name} {version}" for name, version in facts.get("versions", {}).items()))),
        ]
        return [(name, text) for name, text in words if text]

    def save(self, folder: str | Path) -> None:
        """Writes neurons.parquet, positions.parquet, spectrum.npz and summary.json, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "positions.parquet") as path:
            self.positions.to_parquet(path, index=False)
        with replacing(folder / "spectrum.npz") as path, path.open("wb") as file:
            names = np.array(self.cosine_neurons, dtype=str)
            np.savez(file, singular_values=self.singular_values, cosines=self.cosines, cosine_neurons=names)
        with replacing(folder / "summary.json") as path:
            path.write_text(json.dumps(self.summary(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        # Last: a folder counts as a result once this file is there.
        with replacing(folder / "neurons.parquet") as path:
            neurons = pa.Table.from_pandas(self.frame, preserve_index=False)
            facts = json.dumps(_plain(self.facts)).encode()
            pq.write_table(neurons.replace_schema_metadata({**(neurons.schema.metadata or {}), b"jaxconf": facts}), path)

    @classmethod
    def load(cls, source: str | Path) -> "NeuronTable":
        """Reads back what `save` wrote, from its folder or its neurons.parquet (alone, it gives only the neurons and the facts).

        Raises InputError where there is no such file, or one that `save` did not write.
        """
        source = Path(source)
        path = source / "neurons.parquet" if source.is_dir() else source
        advice = "give the folder of a finished run, or its neurons.parquet."
        if not path.is_file():
            raise InputError(f"{path} does not exist; {advice}")
        try:
            neurons = pq.read_table(path)
            facts = json.loads((neurons.schema.metadata or {})[b"jaxconf"])
        except (pa.ArrowInvalid, KeyError) as error:
            raise InputError(f"{path} is not a table of jaxconf; {advice}") from error
        singular_values, cosines, names = np.zeros(0), np.zeros((0, 0)), []
        if (spectrum := path.with_name("spectrum.npz")).is_file():
            with np.load(spectrum) as arrays:
                singular_values, cosines, names = arrays["singular_values"], arrays["cosines"], arrays["cosine_neurons"].tolist()
        positions = pd.DataFrame(columns=list(POSITION_COLUMNS))
        if (kept := path.with_name("positions.parquet")).is_file():
            positions = pd.read_parquet(kept)
        return cls(neurons.to_pandas(), facts, singular_values, cosines, names, positions)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    # JSON has no NaN.
    return None if isinstance(value, float) and not np.isfinite(value) else value


SET_COLUMNS = ("loss_delta", "entropy_delta", "kl_freq_delta", "loss_abs_delta", "ln_mediated", "top1_change")


def sets_in_words(effects: pd.DataFrame) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Of each set in what `jaxconf.ablate_sets` found, a heading and a table, its first row the names of its columns: the set's effects with
    their intervals, beside the median of its random sets and how many of those lie below.
    """
    found = []
    for _, rows in effects.groupby("set"):
        own, controls = rows.iloc[0], rows.iloc[1:]
        names = ("", "the set", "95% interval")
        table: list[tuple[str, ...]] = [(*names, f"median of {len(controls)} random sets", "random sets below") if len(controls) else names]
        for column in SET_COLUMNS:
            row = (column, number(own[column]), f"{number(own[f'{column}_lo'])} to {number(own[f'{column}_hi'])}")
            beside = (number(controls[column].median()), f"{(controls[column] < own[column]).sum()}")
            table.append((*row, *beside) if len(controls) else row)
        together = "neuron ablated" if own["size"] == 1 else "neurons ablated together"
        found.append((f"{own['size']:,} {together}: {own['neurons']}", table))
    return found
