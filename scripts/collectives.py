"""The collectives of the last layer's programs: how many bytes each should have, and has in the compiled text.

Letters: D devices on the mesh's axis `data`, M devices on `model`, s window of one device, t position, d width, r row
(a kept position on one device), p unit, n neuron, v vocabulary.
"""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.effects import ablated_rows, last_layer, sharded_effects
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.metrics import EFFECTS, UNABLATED
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import leaves
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import sharding

FLOAT32 = 4  # bytes
SIZES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "f64": 8}  # bytes of an element
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
COLLECTIVE = re.compile(rf" = (.*?) ({KINDS})(?:-start)?\(")
ALONE = re.compile(r"replica_groups=\{\{\d+\}")  # groups of one device, which send nothing


class Run(NamedTuple):
    """How much the devices do together."""

    windows: int  # s
    length: int  # t
    rows: int  # r
    units: int  # p


def predicted_rows(config: DecoderConfig, run: Run, M: int) -> Counter[str]:
    """Kind of collective → bytes of its results on a device, for running the model over windows.

    The embedding's rows, and what heads and neurons write in each layer, are summed over `model`, [s t d]. So are the
    changes of the activations at the kept positions, [r n].
    """
    streams = (1 + 2 * config.n_layers) * run.windows * run.length * config.d_model
    return Counter({"all-reduce": FLOAT32 * (streams + run.rows * config.d_mlp)} if M > 1 else {})


def predicted_effects(config: DecoderConfig, run: Run, D: int, M: int) -> Counter[str]:
    """The same for the exact engine: EFFECTS [p n], and UNABLATED of all devices' rows, [D r]."""
    sums = FLOAT32 * len(EFFECTS) * run.units * config.d_mlp
    found = Counter({"all-gather": sums if M > 1 else 0, "all-reduce": sums // M if D > 1 else 0})
    found["all-gather"] += FLOAT32 * len(UNABLATED) * D * run.rows if D > 1 else 0
    return +found


def compiled_programs(config: DecoderConfig, run: Run, mesh: Mesh) -> dict[str, str]:
    """The compiled text of both programs, from shapes alone."""
    D, d, v, n = mesh.shape["data"], config.d_model, config.vocab_size, config.d_mlp

    def array(*shape: int, split: str | None = None, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(split)))

    def leaf_of(axes: Any, shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding(mesh, axes, shape))

    params = nest((leaf.path, leaf_of(leaf.axes, leaf.shape(config))) for leaf in leaves(config))
    tokens = array(D * run.windows, run.length, split="data", dtype=jnp.int32)
    places = array(D, run.rows, 2, split="data", dtype=jnp.int32)
    ablations: Any = [(LayerAblation("linear", jnp.zeros(n), 0.0), array(n, dtype=jnp.int32))]

    @jax.jit
    def rows(params: Any, tokens: jax.Array, *of_rows: Any) -> Any:
        return ablated_rows(last_layer(config, params, tokens)[0], *of_rows)

    readout: Any = Readout(array(d, v), array(v), array(n, d), array(n, d), 1.0)
    of_rows = [array(D, run.rows, *more, split="data") for more in ((d,), (n,))]
    of_rows += [array(D, run.rows, split="data", dtype=jnp.int32), array(D, run.units, run.rows, split="data")]
    engine = jax.jit(sharded_effects, static_argnames=("mesh", "config"))
    effects = engine.lower(mesh, config, readout, Frequency(array(v), array(v), array(v)), *of_rows)
    of_model = rows.lower(params, tokens, places, ablations)
    return {"rows": of_model.compile().as_text(), "effects": effects.compile().as_text()}


def collectives(text: str) -> Counter[str]:
    """Kind of collective → bytes of its results on a device, from the text of a compiled program.

    Groups of one device do not count. What a loop does counts once; programs of a few layers have no collective in one.
    """
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if (collective := COLLECTIVE.search(line)) and not ALONE.search(line):
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", collective[1])
            size = sum(SIZES[kind] * math.prod(map(int, filter(None, of.split(",")))) for kind, of in arrays)
            found[collective[2]] += size
    return found
