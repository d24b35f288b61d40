"""The result of one analysis: a row for every neuron, the facts of the analysis, and the arrays that its figures need.

Letters: D singular values of the folded unembedding, m chosen neurons. Losses, entropies and divergences are in nats.
"""

import json
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jaxconf.analysis.metrics import COLUMNS, EFFECTS, GATES, PUBLISHED, RHO_AT, TIGHIDET
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.models.errors import InputError, listed
from jaxconf.results.columns import (
    BY_RULE_COLUMNS,
    EVIDENCE_COLUMNS,
    MAIN_COLUMNS,
    NAMED_COLUMNS,
    POSITION_COLUMNS,
)
from jaxconf.results.experts import experts_in_words, of_experts
from jaxconf.results.files import plain, read_parquet, write_parquet
from jaxconf.results.published_rules import entropy_rules
from jaxconf.results.rules import CHANGE, KINDS, Kind, Rules, rules_from
from jaxconf.results.run_folder import NEURONS, NULLS, POSITIONS, SPECTRUM, SUMMARY, TOKEN_CHANGES, staging
from jaxconf.results.words import counted, counts_doubts, interval_doubts, number

SIZE: dict[Kind, str] = {"entropy": "rho", "frequency": "kl_freq_abs_delta"}  # the column that ranks a kind
MOST_NAMED = 8  # neurons that a sentence names
MOST_SHOWN = 10  # neurons of a table in a notebook
LATER = (
    *EFFECTS, *GATES, *RHO_AT, PUBLISHED, TIGHIDET, "null_proxy", "rho_p", "rho_z", "entropy_corr", "loss_corr",
    "ln_mediated_p", "ln_mediated_q", "freq_mediated_p", "freq_mediated_q", "freq_mediated_chance", "entropy_mediated",
    "confidence_sign",
)  # fmt: skip
"""Columns that tables of earlier versions may lack."""


@dataclass
class NeuronTable:
    """The result of one analysis.

    frame: a row per neuron, or other component, with at least the columns COLUMNS (float, but layer and neuron int,
    is_… bool). Those in INTERVAL_COLUMNS may also have `_lo` and `_hi`, a mixture of experts has MIXTURE_COLUMNS, and
    a table of other components than neurons has `component` (its kind) and `name`. facts: how the result was made,
    JSON-able. singular_values [D]: float, descending, of the folded unembedding, without the direction that the norm
    ignores. cosines [m, D]: float, the cosines of the chosen neurons' write directions with the left singular vectors,
    in the order of the singular values. cosine_neurons: the names of the m chosen neurons. positions: a row per kept
    position with POSITION_COLUMNS (loss, entropy and kl_freq in nats). nulls: a row per null with `layer`, `neuron`
    (whose activations it has), `w_norm`, `rho`, the effects and the mediated shares. token_changes: |change of loss| at
    single positions, a row per position and neuron that figures 2c and 3c show, with `neuron` (its name),
    `loss_abs_delta`, `loss_abs_delta_ln_frozen` and `loss_abs_delta_freq_frozen`, in nats. Raises InputError if a
    column of COLUMNS is missing or if there are no rows.
    """

    frame: pd.DataFrame
    facts: dict[str, Any]
    singular_values: np.ndarray
    cosines: np.ndarray
    cosine_neurons: list[str]
    positions: pd.DataFrame
    nulls: pd.DataFrame = field(default_factory=pd.DataFrame)
    token_changes: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame]
        if missing:
            raise InputError(f"the neuron table lacks the column {missing[0]}; make it anew with `jaxconf analyze`")
        if self.frame.empty:
            raise InputError("the neuron table has no rows; analyse a layer that has neurons")

    def to_pandas(self) -> pd.DataFrame:
        """A copy of the frame, a row per neuron, indexed by the neurons' names."""
        return self.frame.set_axis(pd.Index(self.names, name="name"))

    @property
    def names(self) -> list[str]:
        """The neurons' names, "layer.index" or "layer.expert.index", in the order of the frame.

        In a table of other components they are those of its column `name`.
        """
        if "name" in self.frame:
            return self.frame["name"].tolist()
        places = zip(self.frame["layer"].tolist(), self.frame["neuron"].tolist(), strict=True)
        return [neuron_name(*pair, self.facts.get("experts", ())) for pair in places]

    @property
    def noun(self) -> str:
        """What a row is."""
        return "component" if "component" in self.frame else "neuron"

    @property
    def neurons(self) -> pd.DataFrame:
        """The rows of `to_pandas` that are neurons."""
        frame = self.to_pandas()
        return frame[frame["component"] == "neuron"] if "component" in frame else frame

    @property
    def experts(self) -> pd.DataFrame:
        """What each expert carries: a row for each, with EXPERT_COLUMNS of `jaxconf.results.experts`.

        Empty if the model is not a mixture of experts.
        """
        return of_experts(self.frame)

    @property
    def rules(self) -> Rules:
        """The rules by which the neurons were named."""
        return rules_from(self.facts)

    @property
    def where(self) -> str:
        """The analysed layers in words: "layer 11", or "layers 10, 11"."""
        layers = sorted(set(self.frame["layer"]))
        return f"layer{'s' * (len(layers) > 1)} {', '.join(str(layer) for layer in layers)}"

    @property
    def has_rules(self) -> bool:
        """Whether the other rules can be applied: to neurons, if no earlier version made the table."""
        return "null_spaces" in self.facts and len(self.neurons) > 0

    def members(self, kind: Kind) -> pd.DataFrame:
        """The rows (as `to_pandas`) of the neurons that meet a rule, in descending order of rho or kl_freq_abs_delta.

        Entropy neurons are ordered by rho, frequency neurons by kl_freq_abs_delta.
        """
        ranked = self._ranked(kind)
        return ranked[ranked[f"is_{kind}_neuron"]]

    def nearest(self, kind: Kind, count: int = 6) -> pd.DataFrame:
        """The rows (as `to_pandas`) of the `count` neurons that come nearest to meeting a rule, nearest first."""
        ranked = self._ranked(kind)
        return ranked[~ranked[f"is_{kind}_neuron"] & ranked["shortfall"].notna()].head(count)

    def _ranked(self, kind: Kind) -> pd.DataFrame:
        frame = self.to_pandas()
        frame["shortfall"] = self.rules.shortfall(frame, kind)
        return frame.sort_values(["shortfall", SIZE[kind]], ascending=[True, False], kind="stable")

    def correlation(self) -> float:
        """Pearson correlation of entropy and D_KL(P_freq || P_model) over kept positions; NaN if one is constant."""
        both = self.positions[["entropy", "kl_freq"]].astype(float).dropna()
        return float(both.corr().iloc[0, 1]) if both.std().min() > 0 else float("nan")

    def verdict(self) -> list[str]:
        """What was found, in words: a sentence on each kind of neuron, and one on each doubt about what it rests on."""
        doubts = counts_doubts(self.facts) + interval_doubts(self.facts)
        of_experts = experts_in_words(self.experts, self.facts)
        return [self._verdict("entropy"), *self._of_named(), self._verdict("frequency"), *of_experts, *doubts]

    def by_rule(self) -> pd.DataFrame:
        """The entropy neurons of every rule: a row, as `to_pandas`, for each neuron that some rule names.

        A bool column for each rule (`default` and those of `jaxconf.results.published_rules`), and BY_RULE_COLUMNS.
        Neurons that more rules name come first, among equals those with a larger rho.
        """
        frame = self.neurons
        rules = {rule.name: rule.named.to_numpy() for rule in entropy_rules(self.rules, frame)}
        named = pd.DataFrame(rules, frame.index)
        some = frame.assign(names=named.sum(axis=1)).loc[named.any(axis=1)]
        order = some.sort_values(["names", "rho"], ascending=False, kind="stable").index
        return named.loc[order].join(frame[list(BY_RULE_COLUMNS)])

    def by_size(self) -> dict[int, list[str]]:
        """k, the size of the null space, ascending → the entropy neurons, if rho were taken at that k.

        Empty for the tables of earlier versions, which have rho at one k.
        """
        found, neurons = {}, self.neurons
        for column, of in self.facts.get("null_spaces", {}).items():
            frame = self.rules.apply(neurons.assign(rho=neurons[column], rho_chance=of["chance"]))
            found[of["k"]] = list(frame.index[frame["is_entropy_neuron"]])
        if found:
            found[self.facts["k"]] = list(neurons.query("is_entropy_neuron").index)
        return dict(sorted(found.items()))

    def _of_named(self) -> list[str]:
        """What the entropy neurons do to the entropy, and whether they depend on the size of the null space."""
        sentences, members, found = [], self.members("entropy"), self.by_size()
        does = [
            f"{listed(names, MOST_NAMED)} {verb if len(names) > 1 else f'{verb}s'} the entropy"
            for sign, verb in ((1, "lower"), (-1, "raise"))
            if (names := list(members.index[members["confidence_sign"] == sign]))
        ]
        if does:
            sentences.append(f"As the model uses {'it' if len(members) == 1 else 'them'}, {' and '.join(does)}.")
        if any(found.values()):
            same = len(set(map(tuple, found.values()))) == 1
            sizes = ", ".join(map(str, found))
            each = "; ".join(f"k = {k}: {listed(names, MOST_NAMED) if names else 'none'}" for k, names in found.items())
            sentences.append(
                f"The entropy neurons are the same at every size of the null space that was tried (k = {sizes})."
                if same
                else f"The entropy neurons depend on the size of the null space ({each})."
            )
        return sentences

    def _verdict(self, kind: Kind) -> str:
        found = list(self.members(kind).index)
        if found:
            return f"{counted(len(found), f'{kind} {self.noun}')} in {self.where}: {listed(found, MOST_NAMED)}."
        none = f"No {self.noun} of {self.where} meets the {kind} rule"
        near = self.nearest(kind, 1)
        if near.empty:
            return f"{none}, and none can be judged by it: {self._unjudged(kind)}."
        return f"{none}; {near.index[0]} comes nearest: {self.rules.told(kind, near.iloc[0].to_dict())}."

    def _unjudged(self, kind: Kind) -> str:
        """Why no neuron can be judged by a rule."""
        if self.frame[CHANGE[kind]].isna().all() or self.facts.get("nulls") != 0:
            return "no effect on the loss was measured, or it has no interval"
        return "there are no nulls"

    def summary(self) -> dict[str, Any]:
        """Facts, verdict, rules and counts, and the MAIN_COLUMNS of the neurons that stand out; JSON-able."""
        frame = self.to_pandas()
        evidence = [column for column in EVIDENCE_COLUMNS if frame[column].notna().any()]
        intervals = [f"{column}_{end}" for column in MAIN_COLUMNS for end in ("lo", "hi") if f"{column}_{end}" in frame]

        def rows(chosen: pd.DataFrame) -> list[dict[str, Any]]:
            columns = [*MAIN_COLUMNS, *evidence, *intervals]
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
        if len(self.experts):
            summary["experts"] = self.experts.to_dict("records")
        if self.has_rules:
            summary["entropy_rules"] = {rule.name: rule.text for rule in entropy_rules(self.rules, self.neurons)}
            summary["entropy_neurons_by_rule"] = self.by_rule().reset_index().to_dict("records")
            summary["entropy_neurons_by_size"] = self.by_size()
        return plain(summary)

    @property
    def plot(self) -> Any:
        """The figures of the table by name: `table.plot.null_space()`.

        They are the methods of `jaxconf.report.table_plots.TablePlots`; each returns a figure of matplotlib or Plotly.
        """
        # Drawing is above tables, so it is looked up when somebody draws, as pandas does with its `plot`.
        return import_module("jaxconf.report.table_plots").TablePlots(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, and the neurons that meet each rule or come nearest to it."""
        parts = [f"<p>{escape(sentence)}</p>" for sentence in self.verdict()]
        for kind in KINDS:
            found = self.members(kind)
            rows = found if len(found) else self.nearest(kind)
            if len(rows):
                heading = f"{kind.capitalize()} {self.noun}s" if len(found) else f"Nearest to the {kind} rule"
                shown = rows.head(MOST_SHOWN)[list(NAMED_COLUMNS[kind])].map(number).rename_axis(index=None)
                more = f", {MOST_SHOWN} of {len(rows):,}" if len(rows) > MOST_SHOWN else ""
                parts.append(f"<p><b>{heading}</b>{more}</p>{shown.to_html()}")
        return "".join(parts)

    def save(self, folder: str | Path) -> None:
        """Writes the table into `folder`: its frames as .parquet, spectrum.npz and summary.json.

        If that fails, none of these files is written.
        """
        with staging(Path(folder), NEURONS) as there:
            self.positions.to_parquet(there / POSITIONS, index=False)
            self.nulls.to_parquet(there / NULLS, index=False)
            self.token_changes.to_parquet(there / TOKEN_CHANGES, index=False)
            names = np.array(self.cosine_neurons, dtype=str)
            arrays = {"singular_values": self.singular_values, "cosines": self.cosines, "cosine_neurons": names}
            np.savez(there / SPECTRUM, allow_pickle=False, **arrays)
            summary = json.dumps(self.summary(), indent=2, ensure_ascii=False)
            (there / SUMMARY).write_text(summary + "\n", encoding="utf-8")
            write_parquet(pa.Table.from_pandas(self.frame, preserve_index=False), self.facts, there / NEURONS)

    @classmethod
    def load(cls, source: str | Path) -> "NeuronTable":
        """Reads what `save` wrote, from its folder or from its neurons.parquet.

        A neurons.parquet without the files beside it gives the neurons and the facts alone. Raises InputError if there
        is no such file, or if `save` did not write it.
        """
        source = Path(source)
        path = source / NEURONS if source.is_dir() else source
        neurons, facts = read_parquet(path, "neuron table", f"give the folder of a finished analysis, or its {NEURONS}")
        singular_values, cosines, names = np.zeros(0), np.zeros((0, 0)), []
        if (spectrum := path.with_name(SPECTRUM)).is_file():
            with np.load(spectrum) as arrays:
                singular_values, cosines = arrays["singular_values"], arrays["cosines"]
                names = arrays["cosine_neurons"].tolist()
        kept = path.with_name(POSITIONS)
        positions = pd.read_parquet(kept) if kept.is_file() else pd.DataFrame(columns=list(POSITION_COLUMNS))
        frame = neurons.to_pandas()
        # What the version which wrote the table did not know was not measured.
        frame = frame.assign(**{name: np.nan for name in LATER if name not in frame})
        nulls, changes = (
            pd.read_parquet(file) if (file := path.with_name(name)).is_file() else pd.DataFrame()
            for name in (NULLS, TOKEN_CHANGES)
        )
        return cls(frame, facts, singular_values, cosines, names, positions, nulls, changes)
