"""The measurement of a group of components: weight statistics, effects, nulls, intervals and correlations of each.

A group is the neurons of a layer, or the directions of a dictionary in the last one. What is said of neurons and
activations here holds for directions and coefficients too. Letters: d model width, n neuron.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import Ablation, LayerAblation
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.intervals import Rows, bootstrap, columns_of, share, signs
from jaxconf.analysis.metrics import EFFECTS, ROUTED, SHARES
from jaxconf.analysis.nulls import Nulls, draw_nulls, p_values, q_values, tail_p_values, with_nulls
from jaxconf.analysis.rerun import Frozen, streams
from jaxconf.analysis.unembedding import Convention, Readout, Spectrum, at_layer, of_directions, readout, spectrum
from jaxconf.analysis.weights import rho
from jaxconf.measure.activations import LayerActivations, activation_correlations, activation_statistics
from jaxconf.measure.gates import Gates, gate_columns, gates_of
from jaxconf.measure.last_layer import Ablations, last_layer_parts
from jaxconf.measure.reruns import neuron_parts
from jaxconf.measure.weights import weight_columns
from jaxconf.measure.work import Part, Work
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.mlp import expert_of_each

HeadAblation = Literal["mean", "zero", "resample"]


class How(NamedTuple):
    """The checked arguments of `jaxconf.analyze` that say how to measure."""

    ablation: Ablation
    head_ablation: HeadAblation
    convention: Convention
    frozen: Frozen
    tolerance: float | None  # of the adaptive engine, or None for the exact engine
    k: int
    nulls: int
    bootstrap_draws: int
    seed: int
    token_changes: int  # at about how many positions the changes of the loss are kept one by one; 0: at none


class Seen(NamedTuple):
    """The unembedding: in the convention of the weight statistics, in the paper's for the effects, and its spectrum."""

    own: Readout
    paper: Readout
    spectrum: Spectrum


def seen_by(lm: LanguageModel, convention: Convention) -> Seen:
    """The unembedding of a model. `convention`: that of the weight statistics."""
    own = readout(lm.config, lm.params, convention)
    paper = own if convention == "paper" else readout(lm.config, lm.params)
    return Seen(own, paper, spectrum(lm.config, lm.params, convention))


@dataclasses.dataclass(frozen=True)
class Group:
    """Components of one kind: a layer's neurons, a dictionary's directions, or the heads or the bias of attention."""

    component: str  # their kind: "neuron", "bias", "null" …
    layer: int
    names: Sequence[str]
    dictionary: Dictionary | None = None
    constant: bool = False  # whether the coefficients do not vary, so that only an ablation to 0 changes anything
    attention: bool = False

    def readout(self, lm: LanguageModel, seen: Readout, convention: Convention) -> Readout:
        """The readout `seen` with the write directions of the group."""
        if self.dictionary is None:
            return at_layer(lm.config, lm.params, seen, convention, self.layer)
        return of_directions(lm.config, seen, convention, self.dictionary.w)


class Measured(NamedTuple):
    """What was found of a group."""

    frame: pd.DataFrame  # its rows of the neuron table, without the columns that the rules add
    nulls: pd.DataFrame  # as `NeuronTable.nulls`
    parts: list[Part]  # without their sums, which are large
    ablation: LayerAblation | None  # None for heads and the bias of attention
    # In the windows `Work.some_windows(How.token_changes)`; None if no changes are kept one by one, if layers are run
    # again for the effects, and for heads and the bias of attention.
    activity: LayerActivations | None


def measured(work: Work, how: How, seen: Seen, group: Group, memory: int) -> Measured:
    """Measure a group in so much `memory`, bytes of a device."""
    work = dataclasses.replace(work, dictionary=group.dictionary)
    lm, config, dictionary, number = work.lm, work.lm.config, group.dictionary, group.layer
    here = group.readout(lm, seen.own, how.convention)
    paper = here if how.convention == "paper" else group.readout(lm, seen.paper, "paper")
    of_weights = number if dictionary is None else None
    columns = weight_columns(config, lm.params, here, work.freq, seen.spectrum, how.k, of_weights)
    kind = Ablation("zero") if group.constant else how.ablation
    activity = LayerActivations(lm, work.tokens, number, memory, dictionary)
    statistics = activation_statistics(activity, work.progress, ordered=kind.ordered)
    weights = (seen.spectrum.values, *(columns[name] for name in sorted(columns)))
    which = (group.component, number, kind, how.frozen, how.tolerance, how.nulls, how.seed)
    work = work.resuming(memory, *which, *statistics, *weights)
    w_out, ablation = fetched(paper.w_out), kind.of_layer(statistics)
    nulls, size, gates = draw_nulls(config, w_out, how.nulls, how.seed), len(w_out), None
    streamed = dictionary is not None or streams(config, number, how.frozen)
    if streamed:
        gates = gates_of(work, activity, columns["null_proxy"], statistics.mean)
        parts = last_layer_parts(work, activity, *_rows(paper, w_out, ablation, nulls, gates), how.tolerance, how.seed)
    else:
        parts = neuron_parts(work, number, paper, ablation, nulls, how.frozen)
    found = collected(work, parts, size, how)
    columns |= {"activation_mean": statistics.mean, "activation_std": statistics.std, **found.columns}
    correlated, routed = _correlations(work, activity, statistics, found.positions)
    count = len(nulls.neurons)
    null_columns = _null_columns(nulls, {name: value[:count] / work.kept.sum() for name, value in found.others.items()})
    columns |= correlated | gate_columns(gates, {name: value[count:] for name, value in found.others.items()}, size)
    columns |= judged(columns, null_columns)
    null_columns["rho"] = rho(nulls.directions, seen.spectrum, how.k)
    if config.experts and dictionary is None:
        where = {f"{name}{ROUTED}": columns[name] / np.where(routed > 0, routed, np.nan) for name in EFFECTS}
        columns |= {"expert": expert_of_each(config), "routed_share": routed, **where}
    some = activity.some(work.some_windows(how.token_changes)) if streamed and how.token_changes else None
    return Measured(*frames(group, columns, null_columns), found.notes, ablation, some)


def frames(
    group: Group, columns: dict[str, np.ndarray], nulls: dict[str, np.ndarray]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a group, and of its nulls."""
    place = {"layer": group.layer, "neuron": np.arange(len(group.names))}
    kind = {"component": group.component, "name": list(group.names)}
    return pd.DataFrame({**place, **columns, **kind}), pd.DataFrame(
        {"layer": group.layer, **nulls, "component": group.component}
    )


class Collected(NamedTuple):
    """The effects of the components, and what is behind them on the axis n: nulls and gates."""

    columns: dict[str, np.ndarray]  # of the components, with intervals
    others: dict[str, np.ndarray]  # effect → its sums over the kept positions, for each further row
    notes: list[Part]

    @property
    def positions(self) -> pd.DataFrame:
        return pd.concat([part.positions for part in self.notes])


def collected(work: Work, parts: Iterator[Part], size: int, how: How) -> Collected:
    """The effects of `size` components, whose rows come first in the sums of the parts."""
    notes: list[Part] = []
    others: dict[str, np.ndarray] = {}

    def sums() -> Iterator[Rows]:
        for part in parts:
            notes.append(part._replace(sums={}))
            for name, value in part.sums.items():
                others[name] = others.get(name, 0) + value[:, size:].sum(0, dtype=np.float64)
            yield part.units, {name: value[:, :size] for name, value in part.sums.items()}

    columns = columns_of(bootstrap(sums(), work.unit_counts, SHARES, how.bootstrap_draws, how.seed))
    columns["confidence_sign"] = signs(columns["entropy_delta_lo"], columns["entropy_delta_hi"])
    return Collected(columns, others, notes)


def judged(columns: dict[str, np.ndarray], nulls: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns that set the mediated shares of components beside those of their nulls."""
    found = {}
    for name in ("ln_mediated", "freq_mediated"):
        found[f"{name}_p"] = p_values(columns[name], nulls[name])
        found[f"{name}_q"] = q_values(tail_p_values(columns[name], nulls[name]))
    known = nulls["freq_mediated"][~np.isnan(nulls["freq_mediated"])]
    chance = np.quantile(known, 0.99) if len(known) else np.nan
    return {**found, "freq_mediated_chance": np.full(len(columns["freq_mediated"]), chance)}


def shares_of(effects: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mediated shares that follow from mean effects, [n]."""
    return {name: share(effects[part], effects[whole]) for name, (part, whole) in SHARES.items()}


def _null_columns(nulls: Nulls, effects: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of `NeuronTable.nulls` but `layer` and `rho`."""
    lengths = np.linalg.norm(nulls.directions, axis=1)
    return {"neuron": nulls.neurons, "w_norm": lengths, **effects, **shares_of(effects)}


def _correlations(
    work: Work, activity: LayerActivations, statistics: ActivationStatistics, positions: pd.DataFrame
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The correlations of each neuron's activation with the unablated model's entropy and loss, float64 [n].

    Beside them, the share of the kept positions at which each neuron's expert is chosen, [n]; 1 without experts.
    """
    values = np.zeros((2, *work.kept.shape), np.float32)
    values[:, positions["window"], positions["position"]] = positions[["entropy", "loss"]].T
    found, routed = activation_correlations(activity, statistics.mean, work.kept, values, work.progress)
    return dict(zip(("entropy_corr", "loss_corr"), found, strict=True)), routed / work.kept.sum()


def _rows(
    paper: Readout, w_out: np.ndarray, ablation: LayerAblation, nulls: Nulls, gates: Gates
) -> tuple[Readout, Ablations]:
    """The rows of the last layer: its neurons, whose write directions are `w_out` [n d], their nulls, and the gates."""
    further = Nulls(
        np.concatenate([nulls.neurons, gates.neurons]), np.concatenate([nulls.directions, w_out[gates.neurons]])
    )
    ablated = np.concatenate([np.arange(len(w_out)), nulls.neurons])
    return with_nulls(paper, further), [(ablation, ablated), (gates.ablation, gates.neurons)]
