"""The adaptive engine's audit, which computes pairs again from whole logits: it sees a wrong engine.

Letters: r row, n neuron, d model width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model

from jaxconf.analysis import effects as module
from jaxconf.analysis.ablated_logits import PostNorm
from jaxconf.analysis.effects import Adaptive, Audit, effects
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.unembedding import readout

R = 5


def audit(kind: str) -> Audit:
    """Of every pair, at a loose tolerance, so that few pairs are computed with every token."""
    lm = random_model(kind)
    config, rng = lm.config, np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    x, delta = normal(R, config.d_model), 0.1 * normal(R, config.d_mlp)
    post = PostNorm(normal(R, config.d_model), 1 + jnp.abs(normal(R, 1))) if config.norm_place == "both" else None
    freq, target = frequency(rng.integers(1, 9, config.vocab_size)), jnp.asarray(rng.integers(0, config.vocab_size, R))
    adaptive = Adaptive(1e-2, (np.arange(R), np.arange(config.d_mlp)))
    given: Any = readout(config, lm.params), freq, x, delta, target, jnp.ones((1, R)), post, adaptive
    *_, found = jax.jit(lambda *given: effects(config, *given))(*given)
    assert found is not None
    return found


def shifted(by: float) -> Callable[..., Any]:
    """The engine with a total effect whose losses are too high by so many nats."""

    def engine(*given: Any) -> Any:
        sums, certainty = module_engine(*given)
        return sums._replace(lse_te=sums.lse_te + by), certainty

    module_engine = module.adaptive_softmax
    return engine


@pytest.mark.parametrize("kind", ["large", "large, capped", "large, no norm"])
def test_the_audit_finds_the_error_that_the_engine_makes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = audit(kind)
    assert 0 < sound.error <= sound.bound + 1e-5
    monkeypatch.setattr(module, "adaptive_softmax", shifted(0.03))
    assert abs(audit(kind).error - 0.03) <= sound.error
