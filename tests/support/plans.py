"""Models of which only the shape is there, and what is planned and what XLA says of them."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxconf.analysis import rerun, streamed_sets
from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import abstract_params
from jaxconf.models.families import config_from_hf
from jaxconf.runtime.memory import bytes_of_a_window
from jaxconf.sweeps.estimate import Devices, Plan, estimate

ONE = Devices(1, math.inf, 1.0, math.inf)  # seconds are operations
MEDIUM = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 4096,
}
MEMORY = 48 * 10**6


def config_of(model_type: str = "llama", **sizes: Any) -> DecoderConfig:
    return config_from_hf({"model_type": model_type, "max_position_embeddings": 64, **MEDIUM, **sizes})


def planned(config: DecoderConfig, devices: Devices = ONE, **how: Any) -> Plan:
    last: dict[str, Any] = {
        "layers": [config.n_layers - 1],
        "adaptive": False,
        "frozen": "final",
        "memory": MEMORY,
        "tokens": 1024,
    }
    return estimate(config, devices, **last | how)


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def frequencies(V: int) -> Frequency:
    return Frequency(array(V), array(V), array(V))


def used(compiled: jax.stages.Compiled) -> int:
    plan: Any = compiled.memory_analysis()
    return plan.temp_size_in_bytes + plan.output_size_in_bytes


@functools.cache
def reran(frozen: Frozen, block: int = streamed_sets.BLOCK) -> tuple[DecoderConfig, int, jax.stages.Compiled]:
    """Layer 0 run again for as many sets as a window and the memory allow, with so many tokens in a block."""
    config, s, t = config_of(), 1, 64
    params, tokens = abstract_params(config), array(s, t, dtype=jnp.int32)
    freq = frequencies(config.vocab_size)
    read = jax.eval_shape(lambda params: readout(config, params), params)
    at = array(t, dtype=jnp.int32)
    entry, before = jax.eval_shape(
        lambda *x: rerun.compiled_entry(config, (0,), *x, frozen=frozen), params, read, freq, tokens, at
    )
    sets = MEMORY // bytes_of_a_window(config, t)
    ablation = LayerAblation("linear", array(config.d_mlp), 0.0)  # type: ignore[arg-type]
    masks = rerun.Masks({0: array(sets, config.d_mlp, dtype=jnp.bool_)}, {0: ablation})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streamed_sets, "BLOCK", block)
        patched.setattr(rerun, "compiled_sums", rerun.sums_of_set)  # no program is called within another
        base = jax.eval_shape(lambda *x: rerun.unablated_sums(config, *x), read, freq, entry)
        changes = jax.jit(lambda *x: rerun.changes(config, *x))  # no program of another block size
        lowered = changes.lower(params, read, freq, entry, before, base, masks)
    return config, sets, lowered.compile()


def folder_of(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path
