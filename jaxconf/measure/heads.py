"""The measurement of the last layer's attention heads, and of the bias of its output.

Letters: s window, t position, q position that is kept in some window, p unit that has kept positions in a group, h
head, k head width, d model width, c head or null. A head's activation is the length of what it writes, z_h·W_O,h. The
bias is a head whose one coefficient is always 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.heads import (
    Writers,
    bias_writer,
    compiled_attention,
    head_changes,
    head_values,
    head_vocabulary,
    head_writers,
    second_moments,
    turned,
)
from jaxconf.analysis.metrics import COLUMNS, EFFECTS, UNABLATED, effects_of
from jaxconf.analysis.unembedding import Spectrum
from jaxconf.analysis.whole_logits import Changes, Prediction
from jaxconf.measure.activations import windows_at_once
from jaxconf.measure.gates import gate_columns
from jaxconf.measure.groups import Group, HeadAblation, How, Measured, Seen, collected, frames, judged, shares_of
from jaxconf.measure.reruns import summed
from jaxconf.measure.set_runs import groups_of_windows
from jaxconf.measure.weights import null_space_columns
from jaxconf.measure.work import Part, Work
from jaxconf.models.errors import InputError
from jaxconf.models.mesh import fetched
from jaxconf.models.norms import centre
from jaxconf.runtime.batching import Batch, batches

DIRECT = "_direct"
"""Behind the name of an effect: the direct effect of a component that also acts through the MLP."""
ABREAST = 32  # heads or nulls whose rows are held at once


@dataclasses.dataclass(frozen=True)
class _Heads:
    """What is ablated, and how."""

    work: Work
    bias: bool
    ablation: HeadAblation
    seed: int

    @functools.cached_property
    def writers(self) -> Writers:
        lm = self.work.lm
        return (bias_writer if self.bias else head_writers)(lm.config, lm.params)

    @functools.cached_property
    def others(self) -> np.ndarray:
        """For each window the other one that its heads' values are taken from, int [s]."""
        order = np.random.default_rng(self.seed).permutation(len(self.work.tokens))
        found = np.empty_like(order)
        found[order] = np.roll(order, 1)
        return found

    def batches(self) -> Iterator[Batch]:
        """The windows in groups whose values are computed together."""
        lm, (S, T) = self.work.lm, self.work.tokens.shape
        D = lm.mesh.shape["data"]
        return batches(S, D * min(windows_at_once(lm.config, T, self.work.memory), -(-S // D)))

    def values(self, rows: np.ndarray) -> jax.Array:
        """z at every token of some windows, float32 [s t h k]."""
        lm = self.work.lm
        if self.bias:
            return jnp.ones((len(rows), self.work.tokens.shape[1], 1, 1))
        return head_values(lm.config, lm.params, lm.over_data(self.work.tokens[rows]))

    @functools.cached_property
    def level(self) -> np.ndarray:
        """The mean of z over all tokens, float64 [h k]."""
        total = np.zeros(self.writers.rows.shape[:2])
        for rows, real in self.batches():
            total += fetched(_total(self.values(rows), real))
        return total / self.work.tokens.size

    def deltas(self, z: jax.Array, rows: np.ndarray, positions: np.ndarray) -> jax.Array:
        """How the ablation changes z at these positions of some windows, float32 [s t h k] like z."""
        if self.bias or self.ablation == "zero":
            return -z
        if self.ablation == "mean":
            return jnp.asarray(self.level, jnp.float32) - z
        return self.values(self.others[rows])[:, positions] - z


@jax.jit
def _total(z: jax.Array, real: jax.Array) -> jax.Array:
    return jnp.where(real[:, None, None, None], z, 0).sum((0, 1))


@jax.jit
def _lengths(z: jax.Array, rows: jax.Array) -> jax.Array:
    """‖z_h·W_O,h‖, float32 [s t h], from the rows [h k d]."""
    return jnp.linalg.norm(jnp.einsum("sthk,hkd->sthd", z, rows, precision="highest"), axis=-1)


def measured_heads(work: Work, how: How, seen: Seen, group: Group, memory: int) -> Measured:
    """Measure the heads of the last layer, or the bias of its attention, in so much `memory`, bytes of a device.

    The bias is set to 0. Each null has the changes of a head, and its rows turned to a random subspace. Raises
    InputError for the ablation "resample" with one window.
    """
    ablation = how.head_ablation
    if ablation == "resample" and len(work.tokens) < 2:
        raise InputError("head_ablation is resample, but the text is one window; give at least two windows of tokens")
    weights = seen.spectrum.values, fetched(head_writers(work.lm.config, work.lm.params).written)
    which = (group.names, ablation, how.nulls, how.seed, *weights)
    heads = _Heads(work.resuming(memory, *which), group.constant, ablation, how.seed)
    count = len(group.names)
    order = np.random.default_rng(how.seed).permutation(count)
    own = np.concatenate([np.arange(count), np.resize(order, how.nulls)])  # c: whose changes each has
    of, lengths = _statistics(heads)
    found = collected(heads.work, _parts(heads, seen, own, how), count, how)
    columns = _weight_columns(heads, how, seen, of)
    every = lengths.reshape(-1, count).astype(np.float64)
    columns |= {"activation_mean": every.mean(0), "activation_std": every.std(0), **found.columns}
    columns |= _correlations(work, lengths, found.positions) | gate_columns(None, {}, count)
    effects = {name: value / work.kept.sum() for name, value in found.others.items()}
    nulls = [(fetched(_turned(heads, how, c, own[c])), of[own[c]]) for c in range(count, len(own))]
    null_columns = {
        "neuron": own[count:],
        "w_norm": columns["w_norm"][own[count:]],
        **{name: value for name, value in effects.items() if name in EFFECTS},
        **shares_of(effects),
        "rho": np.array([_rho(*null, seen.spectrum, how.k) for null in nulls]),
    }
    columns |= judged(columns, null_columns)
    columns |= {name: np.full(count, np.nan) for name in COLUMNS if name not in columns and not name.startswith("is_")}
    del columns["layer"], columns["neuron"]
    return Measured(*frames(group, columns, null_columns), found.notes, None, None)


def _statistics(heads: _Heads) -> tuple[np.ndarray, np.ndarray]:
    """The mean of δ·δᵀ over the kept positions, float64 [h k k], and the heads' activations, float32 [s t h]."""
    work = heads.work
    h, k, _ = heads.writers.rows.shape
    of, lengths = np.zeros((h, k, k)), np.zeros((*work.tokens.shape, h), np.float32)
    work.progress("heads", 0, work.tokens.size)
    for rows, real in heads.batches():
        z = heads.values(rows)
        deltas = heads.deltas(z, rows, np.arange(z.shape[1]))
        of += fetched(second_moments(deltas, work.kept[rows] & real[:, None]))
        lengths[rows[real]] = fetched(_lengths(z, heads.writers.rows))[real]
        work.progress("heads", (int(rows[real][-1]) + 1) * work.tokens.shape[1], work.tokens.size)
    return of / work.kept.sum(), lengths


def _parts(heads: _Heads, seen: Seen, own: np.ndarray, how: How) -> Iterator[Part]:
    """The effects of each head and null, EFFECTS and those with DIRECT [p c], one group of windows after the other."""
    work, lm, count = heads.work, heads.work.lm, len(heads.writers.rows)
    (S, T), counted = work.tokens.shape, np.flatnonzero(work.kept.any(0))

    def compute(rows: np.ndarray, real: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
        mask = work.kept[rows] & real[:, None]
        member = ((work.units[rows] == units[:, None, None]) & mask)[..., counted]  # p s q
        mask = mask[:, counted]
        changes, before = _changes(heads, seen, rows, counted)
        sums: dict[str, list[np.ndarray]] = {}
        for some, real_ones in batches(len(own), min(ABREAST, len(own))):
            written = jnp.stack([
                heads.writers.written[own[c]] if c < count else _turned(heads, how, c, own[c]) for c in some
            ])  # fmt: skip
            both = changes(own[some], Writers(heads.writers.rows[own[some]], written))
            for suffix, change in zip(("", DIRECT), both, strict=True):
                for name, effect in effects_of(change).items():
                    total = fetched(summed(effect, mask, member))[:, real_ones]
                    sums.setdefault(name + suffix, []).append(total)
            done = int(rows[0]) * len(own) + (int(some[real_ones][-1]) + 1) * int(real.sum())
            work.progress("effects of heads", done * T // len(own), S * T)
        found = {name: np.concatenate(chunks, 1) for name, chunks in sums.items()}
        return found | {name: fetched(getattr(before, name))[mask] for name in UNABLATED}

    work.progress("effects of heads", 0, S * T)
    for rows, real in groups_of_windows(lm, work.memory, S, T, len(counted)):
        units = work.units_in(rows[real])
        found = work.part(f"{rows[0]}", functools.partial(compute, rows, real, units))
        sums = {name: found[name] for effect in EFFECTS for name in (effect, effect + DIRECT)}
        yield Part(units, sums, work.positions(rows[real], found), {})


def _changes(
    heads: _Heads, seen: Seen, rows: np.ndarray, positions: np.ndarray
) -> tuple[Callable[[np.ndarray, Writers], tuple[Changes, Changes]], Prediction]:
    """The changes of the total and the direct effects at these positions of some windows, as a function of the last
    arguments of `head_changes`; and the unablated predictions.
    """
    work, lm = heads.work, heads.work.lm
    unembedding = lm.config, lm.params, seen.paper, work.freq
    attention, before = compiled_attention(*unembedding, lm.over_data(work.tokens[rows]), positions)
    z = heads.values(rows)[:, positions] if heads.bias else attention.z
    deltas = heads.deltas(z, rows, positions)
    return functools.partial(head_changes, *unembedding, attention, before, deltas), before


def head_token_changes(
    work: Work, how: How, seen: Seen, group: Group, own: Sequence[int], names: Sequence[str]
) -> list[pd.DataFrame]:
    """The effects `names` of some heads of a group, or of the bias, at every kept position.

    There is a table for each batch of windows and each head, whose name is in the column `neuron`.
    """
    heads, which = _Heads(work, group.constant, how.head_ablation, how.seed), np.asarray(own)
    writers = Writers(heads.writers.rows[which], heads.writers.written[which])
    windows, counted, T = np.flatnonzero(work.kept.any(1)), np.flatnonzero(work.kept.any(0)), work.tokens.shape[1]
    frames = []
    work.progress("tokens of heads", 0, len(windows) * T)
    for batch, real in groups_of_windows(work.lm, work.memory, len(windows), T, len(counted)):
        rows = windows[batch]
        kept = work.kept[rows][:, counted] & real[:, None]  # s q
        changes, _ = _changes(heads, seen, rows, counted)
        effects = effects_of(changes(which, writers)[0])
        found = fetched({name: effects[name] for name in names})  # c s q
        for c, index in enumerate(own):
            frames.append(
                pd.DataFrame({"neuron": group.names[index], **{name: x[c][kept] for name, x in found.items()}})
            )
        work.progress("tokens of heads", (int(batch[real][-1]) + 1) * T, len(windows) * T)
    return frames


def _turned(heads: _Heads, how: How, c: int, head: int) -> jax.Array:
    """The rows of a null of a head, [k d]."""
    key = jax.random.fold_in(jax.random.key(how.seed), c)
    return turned(heads.work.lm.config, heads.writers.written[head], key)


def _weight_columns(heads: _Heads, how: How, seen: Seen, of: np.ndarray) -> dict[str, np.ndarray]:
    """The weight statistics of the heads, [h], where `of` [h k k] is the mean of δ·δᵀ.

    Each is that of a neuron, as a mean over what the ablation changes at the kept positions, weighted by its squared
    length; `w_norm` is the root of that squared length's mean, and `cos_freq` has no sign.
    """
    config, u = heads.work.lm.config, heads.work.freq.u
    rows = heads.writers.rows
    if how.convention == "paper":
        rows = centre(config.final, heads.writers.written)
    pairs = list(zip(fetched(rows).astype(np.float64), of, strict=True))
    columns = null_space_columns(
        config,
        len(pairs),
        seen.spectrum,
        how.k,
        lambda size: np.array([_rho(*pair, seen.spectrum, size) for pair in pairs]),
    )
    found = [fetched(head_vocabulary(seen.own, u, *pair)) for pair in zip(rows, of.astype(np.float32), strict=True)]
    columns["logit_var"], squares = np.array(found, np.float64).T
    columns["w_norm"] = np.array([np.sqrt(_energy(written, spread)) for written, spread in pairs])
    return {**columns, "cos_freq": np.sqrt(squares)}


def _energy(rows: np.ndarray, of: np.ndarray) -> float:
    """The mean of ‖δ·rows‖², from rows [k d] and the mean of δ·δᵀ, [k k]."""
    return float(np.sum((of @ rows) * rows))


def _rho(rows: np.ndarray, of: np.ndarray, spectrum: Spectrum, k: int) -> float:
    """ρ_k of what δ·rows writes: the root of the share of its squared length in the null space; NaN if that is 0."""
    whole = _energy(rows, of)
    return float(np.sqrt(_energy(rows @ spectrum.vectors[:, -k:], of) / whole)) if whole > 0 else float("nan")


def _correlations(work: Work, lengths: np.ndarray, positions: pd.DataFrame) -> dict[str, np.ndarray]:
    """The correlations of the heads' activations, [s t h], with the unablated entropy and loss, float64 [h]."""
    own = lengths[positions["window"], positions["position"]].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return {
            f"{name}_corr": np.corrcoef(own, positions[name], rowvar=False)[-1, :-1] for name in ("entropy", "loss")
        }
