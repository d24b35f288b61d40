"""The measures of logit vectors equal those of numpy in float64, also where tokens are equally likely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.whole_logits import Prediction, by_rows, prediction, prediction_of_row

pytestmark = pytest.mark.usefixtures("compiled_well")

VOCAB = 300


@pytest.mark.parametrize("count", [5, 40], ids=["fewer than are mapped together", "more"])
@pytest.mark.parametrize("mapped", [True, False], ids=["by rows", "together"])
def test_the_measures_of_rows(mapped: bool, count: int) -> None:
    rng = np.random.default_rng(count)
    stream = jnp.asarray(rng.integers(-3, 4, (count, VOCAB)), jnp.float32)  # few values, so that many logits are equal
    inv, target = jnp.asarray(rng.uniform(0.3, 1.7, (count, 1)), jnp.float32), rng.integers(0, VOCAB, count)
    f = frequency(rng.integers(1, 9, VOCAB))

    @jax.jit
    def measured(stream: jax.Array, inv: jax.Array) -> tuple[Prediction, jax.Array]:
        if mapped:
            each = by_rows(lambda x, inv, target: prediction_of_row(x * inv + 0.1, f, target))
            return each(stream, inv, target), stream * inv + 0.1
        return prediction(stream * inv + 0.1, f, target), stream * inv + 0.1

    found, logits = measured(stream, inv)
    z, rows, freq = np.asarray(logits, np.float64), np.arange(count), np.asarray(f.f, np.float64)
    lp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    np.testing.assert_array_equal(found.top, z.argmax(1))  # the first of the most likely
    np.testing.assert_array_equal(found.rank, 1 + (z > z[rows, target, None]).sum(1))
    np.testing.assert_allclose(found.loss, -lp[rows, target], atol=1e-5)
    np.testing.assert_allclose(found.entropy, -(np.exp(lp) * lp).sum(1), atol=1e-5)
    np.testing.assert_allclose(found.kl_freq, (freq * (np.log(freq) - lp)).sum(1), atol=1e-5)


def test_the_entropy_of_large_logits_loses_no_digit() -> None:
    """The mean logit is some 20 nats here, which float32 rounds by up to 1e-6 nats."""
    rng = np.random.default_rng(0)
    logits = (20 + 3 * rng.standard_normal((8, 20_000))).astype(np.float32)
    z = logits.astype(np.float64)
    lp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    found = jax.jit(prediction)(jnp.asarray(logits), frequency(np.ones(20_000, int)), np.zeros(8, int))
    np.testing.assert_allclose(found.entropy, -(np.exp(lp) * lp).sum(1), rtol=0, atol=2e-6)
