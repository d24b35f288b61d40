"""What an analysis needs of the devices, and about how long it takes them, from the model's config.json alone.

Letters: s window, t position, r row (a kept position), n neuron, d width, v vocabulary.

Time is counted in two things, of which a device does so many in a second: the operations of float32 matrix products, and the exponentials
of logits, each with the sums that it goes into. docs/sweeps.md says what that leaves out, and how far it was off.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxconf.analysis.ablated_softmax import Cells, Rows, Vocabulary, ablated_softmax, compiler_options
from jaxconf.analysis.adaptive_softmax import HEAD
from jaxconf.analysis.rerun import Frozen
from jaxconf.measure.analyze import bytes_of_rows, group_of_a_device, streams, windows_at_once
from jaxconf.measure.neuron_sets import Neurons
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import leaves
from jaxconf.runtime.memory import bytes_of_a_set, bytes_of_a_window
from jaxconf.runtime.placement import FLOAT32, bytes_needed

DROPPED = 4  # positions of a window that are never kept: the first three and the last
EFFECTS = 3  # which each take an exponential of every logit
REDONE = 0.01  # of the adaptive engine's pairs are computed with every token, at most, by default (docs/benchmarks.md)
# Measured on a CPU:
SMALL = 2  # how often the time of large products those of a few positions and neurons take
GATHERED = 1.5  # how often the time of its exponentials a position's head takes, whose tokens lie scattered
WHOLE_LOGITS = 50  # exponentials' time for what is measured of whole logits in all three effects, of which the top tokens take half


@dataclasses.dataclass(frozen=True)
class Devices:
    """Those of one worker."""

    count: int
    memory: float  # bytes that each has
    flops: float  # operations of float32 matrix products that each does in a second
    exponentials: float  # of logits, with the sums that each goes into, in a second


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one analysis needs: bytes on each device, and seconds of them all together."""

    mesh: tuple[int, int]  # data, model
    weights: int
    unembedding: int  # folded
    working: int  # at most, beside these
    seconds_forward: float  # running the model as it is
    seconds_effects: float  # what ablating changes
    by: str  # how that is found: "exact" or "adaptive" in the last layer, "reruns" elsewhere

    @property
    def held(self) -> int:
        """What lies on each device all the time."""
        return self.weights + self.unembedding

    @property
    def peak(self) -> int:
        return self.held + self.working

    @property
    def seconds(self) -> float:
        return self.seconds_forward + self.seconds_effects


def plan(
    config: DecoderConfig,
    devices: Devices,
    *,
    tokens: int,
    layers: Sequence[int],
    adaptive: bool,
    frozen: Frozen,
    memory: int,
    again: Sequence[tuple[int, int]] = (),
    sizes: tuple[int, int] | None = None,
) -> Plan:
    """An analysis of so many tokens in windows of 256, or of the model's context, and of every neuron of these layers.

    `adaptive`, `frozen` and `memory` as for `jaxconf.analyze`, in whose last layer the exact engine takes the adaptive one's place where that
    is not asked for. `again`: how many sets of neurons are ablated beside that, each with the layer from which it is run again. `sizes`: of
    the mesh; by default as `jaxconf.runtime.placement` chooses them. Raises InputError for a mesh that is not that of the devices.
    """
    if sizes and math.prod(sizes) != devices.count:
        raise InputError(
            f"a mesh of data={sizes[0]},model={sizes[1]} has {math.prod(sizes)} devices and the plan is for {devices.count}; "
            f"give sizes whose product is {devices.count}"
        )
    data, model = sizes or _chosen(config, devices)
    d, N, V, length = config.d_model, config.d_mlp, config.vocab_size, min(256, config.n_positions)
    windows = -(-max(1, tokens // length) // data)  # of a device
    unembedding = 2 * (config.d_embed or d) * V
    of_layer = _operations_of_a_layer(config, length)

    def seconds(flops: float, exponentials: float = 0) -> float:
        return flops / devices.flops + exponentials / devices.exponentials

    def passes(count: float) -> float:
        """Seconds of running so many layers over all windows."""
        return seconds(windows * length * count * of_layer / model)

    working = [min(windows, windows_at_once(config, length, memory)) * bytes_of_a_window(config, length)]
    forward = effects = 0.0
    for layer in layers:
        forward += 2 * passes(layer + 1)  # for the means, and for the activations
        if streams(config, layer, frozen):
            group, rows = group_of_a_device(config, length, windows, memory, adaptive)
            rows = min(rows, group * (length - DROPPED))
            blocks = -(-windows // group) * -(-group * (length - DROPPED) // rows)
            neurons = -(-N // model)
            positions, pairs = blocks * rows, blocks * rows * neurons
            flops = 2 * d * V * (blocks * neurons + positions)
            if adaptive:
                flops += SMALL * 2 * V * _products(config) * pairs
            tokens_of_a_pair = GATHERED * HEAD + REDONE * V if adaptive else V
            exponentials = WHOLE_LOGITS * V * positions + EFFECTS * tokens_of_a_pair * pairs
            effects += seconds(flops, exponentials)
            working.append(bytes_of_rows(config, rows, adaptive))
        else:
            forward += passes(config.n_layers - layer) + seconds(windows * length * unembedding / model)
    reruns = [*again, *((layer, N) for layer in layers if not streams(config, layer, frozen))]
    for layer, sets in reruns:
        above = (config.n_layers - 1 - layer) * (1 if frozen == "final" else 2) * of_layer + 2 * d * N
        effects += windows * length * sets / model * seconds(SMALL * (above + 2 * unembedding), WHOLE_LOGITS * V)
        of_a_set = bytes_of_a_set(config, length)
        working.append(min(windows * sets, max(1, memory // of_a_set)) * of_a_set)
    by = [("adaptive" if adaptive else "exact")] * any(streams(config, layer, frozen) for layer in layers) + ["reruns"] * bool(reruns)
    folded = FLOAT32 * d * V
    return Plan((data, model), bytes_needed(config, model) - folded, folded, max(working), forward, effects, ", ".join(by))


def _chosen(config: DecoderConfig, devices: Devices) -> tuple[int, int]:
    """All devices on `data`, but for as many on `model` as the weights demand; all of them there, if even that is not enough."""
    model = next(
        (n for n in range(1, devices.count) if devices.count % n == 0 and bytes_needed(config, n) <= devices.memory), devices.count
    )
    return devices.count // model, model


def _operations_of_a_layer(config: DecoderConfig, length: int) -> float:
    """For each token: a multiplication and an addition for every parameter, and for every source of its attention."""
    parameters = sum(math.prod(leaf.shape(config)) for leaf in leaves(config) if leaf.path.startswith("blocks/"))
    return 2 * parameters / config.n_layers + 4 * length * config.n_heads * config.d_head


def _products(config: DecoderConfig) -> int:
    """Matrix products of the positions' tails with the neurons that the adaptive engine forms (`jaxconf.analysis.adaptive_softmax`)."""
    bases = 2 if config.norm_place in ("post", "both") else 1
    return 5 + 2 * bases if config.logit_softcap is None else 11 + 6 * bases


def sets_again(sets: Sequence[Neurons], controls: int, single: Neurons) -> list[tuple[int, int]]:
    """How many sets are run again, each from which layer on: those with their controls, and single neurons."""
    layers = [layer for layer, _ in single]
    return [(min(layer for layer, _ in neurons), 1 + controls) for neurons in sets] + [
        (layer, layers.count(layer)) for layer in sorted(set(layers))
    ]


def in_words(found: Mapping[tuple[str, str, Plan], int]) -> tuple[list[list[str]], list[list[str]]]:
    """(model, layer, plan) → how many cells have it, as rows of words, heads first: the memory of a device, and the time, with the total last."""
    memory = [["model", "layer", "data×model", "weights", "unembedding", "working", "peak"]]
    times = [["model", "layer", "cells", "by", "forward", "effects", "each", "all"]]
    for (model, layer, of_one), cells in found.items():
        mesh = f"{of_one.mesh[0]}×{of_one.mesh[1]}"
        memory.append([model, layer, mesh, *map(_size, (of_one.weights, of_one.unembedding, of_one.working, of_one.peak))])
        seconds = (of_one.seconds_forward, of_one.seconds_effects, of_one.seconds, cells * of_one.seconds)
        times.append([model, layer, f"{cells:,}", of_one.by, *map(_duration, seconds)])
    total = sum(cells * of_one.seconds for (_, _, of_one), cells in found.items())
    times.append(["total", "", f"{sum(found.values()):,}", *[""] * 4, _duration(total)])
    return memory, times


def described(devices: Devices) -> str:
    each = f"{devices.flops:.2g} operations and {devices.exponentials:.2g} exponentials in a second"
    if devices.count == 1:
        return f"A worker has 1 device of {_size(devices.memory)}, which does {each}."
    return f"A worker has {devices.count} devices of {_size(devices.memory)}, each of which does {each}."


def warnings(found: Iterable[tuple[str, str, Plan]], devices: Devices) -> list[str]:
    """A sentence for each model that does not fit the devices, alone or with what its analysis takes at most."""
    said = []
    for model, _, of_one in found:
        held, peak, each = (_size(size) for size in (of_one.held, of_one.peak, devices.memory))
        if of_one.held > devices.memory:
            said.append(
                f"{model} needs {held} on each of {devices.count} devices, split {of_one.mesh[1]} ways, and each has {each}; "
                "use more or larger devices."
            )
        elif of_one.peak > devices.memory:
            said.append(f"{model} may take {peak} on a device, and each has {each}; set a smaller memory in [options].")
    return list(dict.fromkeys(said))


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 99.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:,.0f} days"


def measured_rates(clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """What a device at hand does in a second of the clock: operations of float32 matrix products, and exponentials in the exact engine."""
    size, T, N, V, d = 2048, 256, 64, 4096, 64
    square, product = jnp.ones((size, size)), jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    of_vocabulary, of_rows, of_cells = jnp.zeros(V), jnp.zeros(T, jnp.int32), jnp.ones((T, N))
    rows = Rows(jnp.zeros((T, V)), None, jnp.ones(T), of_rows, of_rows)
    arguments = (
        rows,
        Cells(of_cells, None, of_cells, of_cells),
        jnp.ones((N, d)),
        Vocabulary(jnp.ones((d, V)), of_vocabulary, of_vocabulary, of_vocabulary),
    )
    engine = jax.jit(ablated_softmax, compiler_options=compiler_options())
    return 2 * size**3 / _seconds(lambda: product(square), clock), EFFECTS * T * N * V / _seconds(lambda: engine(*arguments), clock)


def _seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The quickest of three runs, after one that compiles."""
    took = []
    for _ in range(4):
        begun = clock()
        jax.block_until_ready(run())
        took.append(clock() - begun)
    return min(took[1:])
