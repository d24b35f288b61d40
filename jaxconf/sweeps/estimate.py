"""Estimates of the memory and the time that one analysis needs, from the model's config.json alone.

Letters: s window, t position, r row (a kept position), n neuron, d width, v vocabulary.

The time follows from two counts and a device's rate for each: the operations of float32 matrix products, and the
exponentials of logits, each with the sums that it is added to. docs/sweeps.md says what is left out, and how far the
estimates were off.
"""

import dataclasses
import math
from collections.abc import Sequence

from jaxconf.analysis.adaptive_softmax import HEAD
from jaxconf.analysis.rerun import Frozen, streams
from jaxconf.measure.activations import windows_at_once
from jaxconf.measure.gates import PROXY
from jaxconf.measure.last_layer import bytes_of_rows, group_of_a_device, rows_together
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import leaves
from jaxconf.runtime.memory import bytes_of_a_window
from jaxconf.runtime.placement import FLOAT32, bytes_needed

DROPPED = 4  # positions of a window that are never kept: the first three and the last
EFFECTS = 3  # in total, with the scale frozen, with the frequency kept; each takes an exponential of every logit
REDONE = 0.01  # at most this share of the adaptive engine's pairs is computed with every token (docs/benchmarks.md)
# These were measured on a CPU:
SMALL = 2  # for the same operations, products of few positions and neurons take this many times as long as large ones
GATHERED = 1.5  # exponentials of a position's head, whose tokens lie scattered, take this many times as long as others
WHOLE_LOGITS = 50  # measuring a whole logit in all three effects takes as long as this many exponentials


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of one worker."""

    count: int
    memory: float  # bytes of each
    flops: float  # operations of float32 matrix products that each does in a second
    exponentials: float  # of logits that each sums in a second


@dataclasses.dataclass(frozen=True)
class Plan:
    """The needs of one analysis: bytes on each device, and seconds on all devices, which work at the same time."""

    mesh: tuple[int, int]  # data, model
    weights: int
    unembedding: int  # folded
    working: int  # the most bytes that the work takes besides these
    seconds_forward: float  # of running the unablated model
    seconds_effects: float  # of computing the effects of ablations
    by: str  # the engine of the effects: "exact" or "adaptive" in the last layer, "reruns" elsewhere

    @property
    def held(self) -> int:
        """The bytes that each device holds all the time."""
        return self.weights + self.unembedding

    @property
    def peak(self) -> int:
        return self.held + self.working

    @property
    def seconds(self) -> float:
        return self.seconds_forward + self.seconds_effects


def estimate(
    config: DecoderConfig,
    devices: Devices,
    *,
    tokens: int,
    layers: Sequence[int],
    adaptive: bool,
    frozen: Frozen,
    memory: int,
    nulls: int = 0,
    again: Sequence[tuple[int, int]] = (),
    sizes: tuple[int, int] | None = None,
) -> Plan:
    """The plan of an analysis of every neuron of the `layers`, and of their `nulls`, on so many `tokens`.

    The windows have 256 tokens, or as many as fit into the model's context. `adaptive`: whether the adaptive engine is
    used in the last layer, else the exact one. `frozen` and `memory` (bytes): as for `jaxconf.analyze`. `again`:
    (layer, count) of neuron sets that are ablated too, each by running the model again from that layer. `sizes`: of the
    mesh's axes `data` and `model`; by default as `jaxconf.runtime.placement` chooses them. Raises InputError for a mesh
    with another number of devices.
    """
    if sizes and math.prod(sizes) != devices.count:
        raise InputError(
            f"a mesh of data={sizes[0]},model={sizes[1]} has {math.prod(sizes)} devices "
            f"and the plan is for {devices.count}; give sizes whose product is {devices.count}"
        )
    data, model = sizes or _chosen(config, devices)
    length = min(256, config.n_positions)
    work = _Work(config, devices, length, -(-max(1, tokens // length) // data), model, memory, nulls)
    streamed = [layer for layer in layers if streams(config, layer, frozen)]
    others = [layer for layer in layers if layer not in streamed]
    reruns = [*again, *((layer, config.d_mlp + nulls) for layer in others)]
    working = [min(work.windows, windows_at_once(config, length, memory)) * bytes_of_a_window(config, length)]
    working += [work.bytes_of_stream(adaptive)] * bool(streamed) + [work.bytes_of_rerun(sets) for _, sets in reruns]
    by = ["adaptive" if adaptive else "exact"] * bool(streamed) + ["reruns"] * bool(reruns)
    folded = FLOAT32 * config.d_model * config.vocab_size
    return Plan(
        (data, model),
        weights=bytes_needed(config, model) - folded,
        unembedding=folded,
        working=max(working),
        seconds_forward=sum(map(work.forward, layers)) + sum(map(work.before_reruns, others)),
        seconds_effects=len(streamed) * work.stream(adaptive) + sum(work.rerun(*of_sets, frozen) for of_sets in reruns),
        by=", ".join(by),
    )


def _chosen(config: DecoderConfig, devices: Devices) -> tuple[int, int]:
    """The sizes of the axes `data` and `model`.

    `model` has as few devices as can hold the weights, or all devices if fewer cannot. `data` has the others.
    """
    model = next(
        (n for n in range(1, devices.count) if devices.count % n == 0 and bytes_needed(config, n) <= devices.memory),
        devices.count,
    )
    return devices.count // model, model


@dataclasses.dataclass(frozen=True)
class _Work:
    """The parts of an analysis: the seconds and the bytes that each part takes on a device."""

    config: DecoderConfig
    devices: Devices
    length: int  # tokens in a window
    windows: int  # that one device runs
    model: int  # size of the mesh's axis `model`
    memory: int
    nulls: int

    def _seconds(self, flops: float, exponentials: float = 0) -> float:
        return flops / self.devices.flops + exponentials / self.devices.exponentials

    @property
    def _tokens(self) -> int:
        return self.windows * self.length

    @property
    def _unembedding(self) -> int:
        """Operations of the unembedding, for each token."""
        return 2 * (self.config.d_embed or self.config.d_model) * self.config.vocab_size

    def _passes(self, count: float) -> float:
        """Seconds of running so many layers over all windows."""
        return self._seconds(self._tokens * count * _operations_of_a_layer(self.config, self.length) / self.model)

    def forward(self, layer: int) -> float:
        """Seconds of running the model up to a layer: for the activations, and below the last layer for the streams."""
        return (1 if layer == self.config.n_layers - 1 else 2) * self._passes(layer + 1)

    def before_reruns(self, layer: int) -> float:
        """Seconds of running the unablated model from a layer on, with which the layer's reruns are compared."""
        return self._passes(self.config.n_layers - layer) + self._seconds(self._tokens * self._unembedding / self.model)

    @property
    def _further(self) -> int:
        """The rows of the last layer beside its neurons: the nulls, and the neurons of the rule `gates`."""
        return self.nulls + round((1 - PROXY) * self.config.d_mlp)

    def _group(self, adaptive: bool) -> tuple[int, int]:
        """The windows, and the positions, that are processed together in the last layer."""
        group, rows = group_of_a_device(self.config, self.length, self.windows, self.memory, adaptive, self._further)
        return group, rows_together(group * (self.length - DROPPED), rows, adaptive)

    def stream(self, adaptive: bool) -> float:
        """Seconds of computing the effects of the last layer's neurons, as sums over the vocabulary."""
        V, (group, rows) = self.config.vocab_size, self._group(adaptive)
        blocks = -(-self.windows // group) * -(-group * (self.length - DROPPED) // rows)
        neurons = -(-(self.config.d_mlp + self._further) // self.model)
        positions, pairs = blocks * rows, blocks * rows * neurons
        flops = 2 * self.config.d_model * V * (blocks * neurons + positions)
        if adaptive:
            linear, squares = _products(self.config)
            flops += SMALL * 2 * V * (linear * self.config.d_model * positions + squares * pairs)
        tokens_of_a_pair = GATHERED * HEAD + REDONE * V if adaptive else V
        return self._seconds(flops, WHOLE_LOGITS * V * positions + EFFECTS * tokens_of_a_pair * pairs)

    def bytes_of_stream(self, adaptive: bool) -> int:
        return bytes_of_rows(self.config, self._group(adaptive)[1], adaptive, self._further)

    def rerun(self, layer: int, sets: int, frozen: Frozen) -> float:
        """Seconds of computing the effects of so many neuron sets by running the model again from a layer."""
        config = self.config
        passes = (config.n_layers - 1 - layer) * (1 if frozen == "final" else 2)
        above = passes * _operations_of_a_layer(config, self.length) + 2 * config.d_mlp * config.d_model
        each = self._seconds(
            SMALL * (above + (1 if frozen == "final" else 2) * self._unembedding), EFFECTS * config.vocab_size
        )
        return self._tokens * sets / self.model * each

    def bytes_of_rerun(self, sets: int) -> int:
        of_a_set = bytes_of_a_window(self.config, self.length)
        return min(self.windows * sets, max(1, self.memory // of_a_set)) * of_a_set


def _operations_of_a_layer(config: DecoderConfig, length: int) -> float:
    """Operations of a layer for each token, averaged over the layers.

    These are a multiplication and an addition for every parameter, and the products of attention with every position of
    the window.
    """
    parameters = sum(math.prod(leaf.shape(config)) for leaf in leaves(config) if leaf.path.startswith("blocks/"))
    return 2 * parameters / config.n_layers + 4 * length * config.n_heads * config.d_head


def _products(config: DecoderConfig) -> tuple[int, int]:
    """How many matrix products of the positions' tails the adaptive engine forms: with W_U, and with the neurons' M².

    See `jaxconf.analysis.adaptive_tail`.
    """
    bases = 2 if config.norm_place in ("post", "both") else 1
    return (3 + 2 * bases, 2) if config.logit_softcap is None else (5 + 6 * bases, 6)


def sets_again(
    sets: Sequence[Sequence[Sequence[int]]], controls: int, single: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """(layer, count) of the ablations for which the model runs again from a layer.

    These are the neuron `sets`, each with its `controls`, from their lowest layer, and the `single` neurons.
    """
    layers = [layer for layer, *_ in single]
    return [(min(layer for layer, *_ in neurons), 1 + controls) for neurons in sets] + [
        (layer, layers.count(layer)) for layer in sorted(set(layers))
    ]
