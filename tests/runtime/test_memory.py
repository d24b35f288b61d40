"""How much the work takes beside the weights: XLA's own plan against what was allowed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import marked

from jaxconf.analysis.ablated_logits import PostNorm
from jaxconf.analysis.effects import Adaptive, effects
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.programs import compiler_options
from jaxconf.analysis.unembedding import Readout
from jaxconf.measure.last_layer import rows_at_once
from jaxconf.models.families import config_from_hf
from jaxconf.runtime.memory import LEAST, fitting

pytestmark = pytest.mark.usefixtures("compiled_well")

SHAPE = {
    "hidden_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 3072,
    "vocab_size": 50257,
}
KINDS = {
    "plain": {"model_type": "llama"},
    "a norm behind the MLP": {"model_type": "olmo2"},
    "soft caps": {"model_type": "gemma2", "head_dim": 768, "num_key_value_heads": 1, "final_logit_softcapping": 30.0},
}


@pytest.mark.parametrize(
    ("kind", "adaptive", "memory"),
    marked(
        [
            ("plain", False, 5 * 10**8),
            ("plain", True, 10**9),
            ("a norm behind the MLP", False, 10**9),
            ("a norm behind the MLP", True, 10**9),
            ("soft caps", False, 10**9),
            ("soft caps", True, 10**9),
        ],
        quick=[("plain", False, 5 * 10**8)],
    ),
)
def test_the_plan_keeps_to_the_memory(kind: str, adaptive: bool, memory: int) -> None:
    config = config_from_hf({"max_position_embeddings": 64, **SHAPE, **KINDS[kind]})
    d, N, V = config.d_model, config.d_mlp, config.vocab_size
    rows = rows_at_once(config, memory, adaptive)
    assert rows > 1

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    post = PostNorm(array(rows, d), array(rows, 1)) if config.norm_place in ("post", "both") else None
    how = Adaptive(1e-4, (array(8, dtype=jnp.int32), array(64, dtype=jnp.int32))) if adaptive else None
    readout = Readout(array(d, V), array(V), array(N, d), array(N, d), array(d))
    frequency = Frequency(array(V), array(V), array(V))
    lowered = jax.jit(functools.partial(effects, config), compiler_options=compiler_options()).lower(
        readout, frequency, array(rows, d), array(rows, N), array(rows, dtype=jnp.int32), array(1, rows), post, how
    )
    plan = lowered.compile().memory_analysis()
    assert plan is not None
    used = plan.temp_size_in_bytes + plan.output_size_in_bytes
    assert memory / 4 < used < memory * 7 / 10  # no more, and not much less


def test_other_failures_and_too_little_memory_are_not_tried_again() -> None:
    tried: list[int] = []

    def fails(message: str, memory: int) -> None:
        tried.append(memory)
        raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fitting(functools.partial(fails, "INTERNAL: bug"), 2**40, lambda *_: None)
    assert tried == [2**40]
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        fitting(functools.partial(fails, "RESOURCE_EXHAUSTED: no"), 4 * LEAST, lambda *_: None)
    np.testing.assert_array_equal(tried[1:], [4 * LEAST, 2 * LEAST, LEAST, LEAST // 2])
