"""The effects of the last layer's neurons, computed in groups of windows, and how large these groups are.

Letters: s window, p unit that has kept positions in a group, n neuron or null, r row (a kept position on one device), D
devices that windows are split over.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxconf.analysis import ablated_softmax, adaptive_softmax
from jaxconf.analysis.ablated_softmax import BLOCK_N
from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.adaptive_softmax import BLOCK_V, HEAD, entries_held
from jaxconf.analysis.effects import Adaptive, Audit, ablated_rows, adaptive_losses, sharded_effects
from jaxconf.analysis.metrics import EFFECTS, UNABLATED
from jaxconf.analysis.programs import Program
from jaxconf.analysis.unembedding import Readout
from jaxconf.measure.activations import LayerActivations, windows_at_once
from jaxconf.measure.work import Part, Work
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches, even_size

Engine = Literal["auto", "exact", "adaptive"]
Ablations = Sequence[tuple[LayerAblation, np.ndarray]]
ADAPTIVE_FROM = 16384  # the vocabulary size from which on the adaptive engine is faster, measured on a CPU
# Rows and neurons, drawn in each block of rows, at which the adaptive engine is compared with whole logits.
AUDITED = 8, 64


def chosen_tolerance(config: DecoderConfig, engine: Engine, tolerance: float) -> float | None:
    """The tolerance of the adaptive engine, in nats, or None for the exact engine.

    Raises InputError for a tolerance of 0 or less, and for the adaptive engine where the vocabulary is too small for
    it.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance:g}; give a number of nats above 0, or engine 'exact' instead")
    if engine == "adaptive" and config.vocab_size <= HEAD:
        raise InputError(
            f"engine 'adaptive' needs a vocabulary of more than {HEAD} tokens, and the model's has "
            f"{config.vocab_size}; give engine 'exact' or 'auto'"
        )
    adaptive = engine == "adaptive" or (engine == "auto" and config.vocab_size >= ADAPTIVE_FROM)
    return tolerance if adaptive else None


def engine_facts(
    tolerance: float | None, audits: list[dict[str, np.ndarray]], devices: int, pairs: int
) -> dict[str, Any]:
    """The facts of a result about the engine; a pair is a position and a neuron."""
    if tolerance is None or not audits:
        return {"engine": "exact"}
    audit = {name: np.concatenate([part[name] for part in audits]) for name in Audit._fields}
    return {
        "engine": "adaptive",
        "tolerance": tolerance,
        "pairs": pairs,
        "pairs_redone": int(audit["redone"].sum()),
        "largest_bound": float(audit["bound"].max()),
        "largest_rr_bound": float(audit["rr_bound"].max()),
        "audit_pairs": len(audit["error"]) * devices * AUDITED[0] * AUDITED[1],
        "audit_error": float(audit["error"].max()),
    }


def group_of_a_device(
    config: DecoderConfig,
    length: int,
    count: int,
    memory: int,
    adaptive: bool,
    further: int = 0,
    directions: int = 0,
) -> tuple[int, int]:
    """How many of its `count` windows a device runs together, and at how many positions it ablates neurons together.

    `further`: how many rows are ablated beside the layer's neurons, such as nulls. `directions`: how many a dictionary
    has, which stand in the neurons' place; `further` is then less by as many neurons as the layer has.
    """
    rows = rows_at_once(config, memory, adaptive, further)
    most = min(windows_at_once(config, length, memory, directions), max(1, rows // length), count)
    return even_size(count, most), rows  # the last group is computed as if it were as large as the others


def rows_at_once(config: DecoderConfig, memory: int, adaptive: bool, further: int = 0) -> int:
    """At how many positions a device ablates every neuron together, in seven tenths of `memory` bytes."""

    def fit(rows: int) -> bool:
        return bytes_of_rows(config, rows, adaptive, further) <= memory * 7 // 10

    rows = 1
    while fit(2 * rows):
        rows *= 2
    while fit(rows + _block(rows, adaptive)):
        rows += _block(rows, adaptive)
    return rows


def rows_together(count: int, most: int, adaptive: bool) -> int:
    """The size of every batch for `count` positions, where `most` of `rows_at_once` fit.

    Batches are as few as can be, and then as small as can be in whole blocks, since an engine would copy large arrays
    to fill up its last block.
    """
    size = even_size(count, most)
    block = _block(size, adaptive)
    return -(-size // block) * block


def _block(rows: int, adaptive: bool) -> int:
    """How many positions a block of the engine has where so many are computed together."""
    return (adaptive_softmax if adaptive else ablated_softmax).positions_of_a_block(rows)


def bytes_of_rows(config: DecoderConfig, rows: int, adaptive: bool, further: int = 0) -> int:
    """Bytes for ablating every neuron at `rows` positions, in whole blocks. The numbers of arrays are those of XLA."""
    neurons = config.d_mlp + further
    filled = config.vocab_size % int(BLOCK_V) > 0  # arrays are copied to fill up the last block of the vocabulary
    held = (8 + 6 * filled) * entries_held(config.vocab_size, neurons)
    fixed = 4 * neurons * config.d_model + (held if adaptive else 4 * config.vocab_size * int(BLOCK_N))
    capped = config.logit_softcap is not None
    vectors = 4 + 2 * (config.norm_place in ("post", "both")) + 6 * (adaptive and capped)
    blocks = 16 * _block(rows, adaptive) * int(BLOCK_V) if adaptive else 0  # arrays over a block of the tail's tokens
    return fixed + 4 * (blocks + rows * (vectors * config.vocab_size + 24 * neurons))


def last_layer_parts(
    work: Work, activity: LayerActivations, readout: Readout, ablations: Ablations, tolerance: float | None, seed: int
) -> Iterator[Part]:
    """The effects of each row of `readout` in the last layer, EFFECTS [p n], one group of windows after the other.

    `activity`: of the last layer. `readout`: in the paper's convention. `ablations`: each with the neurons whose
    changes of activation the next rows have. `tolerance`: that of the adaptive engine, in nats; None for the exact
    engine. `seed`: draws the pairs at which the adaptive engine is compared with whole logits.
    """
    (S, T), D = work.tokens.shape, work.lm.mesh.shape["data"]
    further = len(readout.w_out) - work.lm.config.d_mlp
    directions = 0 if work.dictionary is None else len(work.dictionary.w)
    how = (work.memory, tolerance is not None, further, directions)
    windows, rows = group_of_a_device(work.lm.config, T, -(-S // D), *how)
    most = max(int((work.kept[some] & real[:, None]).sum()) for some, real in batches(S, windows))
    groups = [(group, real, work.units_in(group[real])) for group, real in batches(S, windows * D)]
    units = max(len(of_group) for *_, of_group in groups)
    together = rows_together(most, rows, tolerance is not None)
    stream = _Stream(work, activity, readout, ablations, tolerance, seed, windows, together, most, units)
    work.progress("effects", 0, S * T)
    for group, real, of_group in groups:
        found = work.part(f"{group[0]}", functools.partial(stream.effects, group, real, of_group))
        audit = {} if tolerance is None else {name: found[name] for name in Audit._fields}
        sums = {name: found[name] for name in EFFECTS}
        yield Part(of_group, sums, work.positions(group[real], found), audit)
        work.progress("effects", int(group[real][-1] + 1) * T, S * T)


@dataclasses.dataclass(frozen=True)
class _Stream:
    work: Work
    activity: LayerActivations
    readout: Readout
    ablations: Ablations
    tolerance: float | None
    seed: int
    windows: int  # how many windows of a group each device has
    rows: int  # how many rows a device works on together
    most: int  # the most rows that a device has in any group
    units: int  # the most units that have kept positions in any group

    def effects(self, group: np.ndarray, real: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
        """For a group of windows: EFFECTS [p n], UNABLATED at the kept positions, and the fields of Audit [1].

        `units`: those that have kept positions in the group, int [p].
        """
        lm, rng = self.work.lm, np.random.default_rng([self.seed, group[0]])
        places, counts = self._places(group, real, units)
        where, target = map(lm.over_data, (places[..., :2], places[..., 2]))
        x, delta, post = ablated_rows(self.activity.last_layer(group), where, self.ablations)
        blocks = [
            self._block(some, places, counts, (x, delta, target, post), rng)
            for some, _ in batches(max(1, *counts), self.rows)
        ]
        sums, before, audits = zip(*blocks, strict=True)
        found = {name: np.sum([part[name] for part in sums], 0)[: len(units)] for name in EFFECTS}
        for name in UNABLATED:
            of_rows = np.concatenate([part[name] for part in before], 1)
            found[name] = np.concatenate([of_device[:count] for of_device, count in zip(of_rows, counts, strict=True)])
        if self.tolerance is not None:
            worst = {name: np.max([getattr(part, name) for part in audits], keepdims=True) for name in Audit._fields}
            found |= {**worst, "redone": np.sum([part.redone for part in audits], keepdims=True)}
        return found

    def _places(self, group: np.ndarray, real: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """The rows of each device, int [D r 4], and how many of them are real.

        A row has the index of its window among the device's windows of the group, its position, the next token, and the
        index of its unit among the group's `units`.
        """
        tokens, mask = self.work.tokens[group], self.work.kept[group] & real[:, None]
        own = self.work.units[group]
        D = len(group) // self.windows
        places, counts = np.zeros((D, self.most, 4), np.int64), []
        for i in range(D):
            part = slice(i * self.windows, (i + 1) * self.windows)
            window, position = np.nonzero(mask[part])
            unit = np.searchsorted(units, own[part][window, position])
            places[i, : len(window)] = np.stack([window, position, tokens[part][window, position + 1], unit], 1)
            counts.append(len(window))
        return places, counts

    def _block(
        self, some: np.ndarray, places: np.ndarray, counts: list[int], rows: Any, rng: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Audit | None]:
        """`sharded_effects` of some rows of each device. `rows`: x, delta, target and post of all rows."""
        lm, first = self.work.lm, some[0]
        member = np.zeros((len(counts), self.units, len(some)), np.float32)
        for i, count in enumerate(counts):
            real = np.arange(max(0, min(len(some), count - first)))
            member[i, places[i, first + real, 3], real] = 1
        adaptive = None
        if self.tolerance is not None:
            neurons = -(-len(self.readout.w_out) // lm.mesh.shape["model"])
            among = max(1, min(len(some), counts[0] - first))
            audited = rng.integers(among, size=AUDITED[0]), rng.integers(neurons, size=AUDITED[1])
            adaptive = Adaptive(self.tolerance, audited)
        x, delta, target, post = _some_of(rows, some)
        how = (lm.mesh, lm.config, self.readout, self.work.freq)
        return fetched(compiled_effects(*how, x, delta, target, lm.over_data(member), post, adaptive))


@jax.jit
def _some_of(rows: Any, some: np.ndarray) -> Any:
    """Some of each device's rows: one program for all arrays, since each operation by itself is compiled too."""
    return jax.tree.map(lambda y: y[:, some], rows)


compiled_effects = Program(sharded_effects, ("mesh", "config"))
compiled_adaptive_losses = Program(adaptive_losses)
