"""The sums of the three effects of a set against float64 sums over every token, also where many overtake the top token.

Letters: q position, d model width, v vocabulary, k neuron of the set.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.set_effects import sums_of_set
from jaxconf.analysis.streamed_sets import BLOCK, Moved, Written, shared, unembedded
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.softcap import capped

pytestmark = pytest.mark.usefixtures("compiled_quickly")
Q, V = 6, 700


@pytest.mark.parametrize("factor", [1.2, -1.0, -60.0])  # of the stream: the top token stays, or sinks
@pytest.mark.parametrize("kind", ["rms", "large, capped"])
@pytest.mark.parametrize("by_algebra", [True, False])
def test_the_sums_are_those_over_every_token(factor: float, kind: str, by_algebra: bool) -> None:
    config, rng = random_model(kind).config, np.random.default_rng(0)
    cap, d = config.logit_softcap, config.d_model
    assert int(BLOCK) < V
    x, W_U, b_U = rng.standard_normal((Q, d)), rng.standard_normal((d, V)) / 2, rng.standard_normal(V) / 10
    target, freq = rng.integers(0, V, Q), frequency(rng.integers(0, 1000, V))
    inv = 1 / np.sqrt((x**2).mean(1) + config.norm_eps)
    logits = x @ W_U * inv[:, None] + b_U
    order = np.argsort(logits, 1)
    target[:3] = order[0, -1], order[1, 0], order[2, -2]
    moved = factor * x
    overtakes = W_U[:, target[2]] - W_U[:, order[2, -1]]
    behind = (logits[2, order[2, -1]] - logits[2, target[2]]) / inv[2]
    moved[2] = x[2] + 1.3 * behind * overtakes / (overtakes @ overtakes)  # only the target overtakes the top token

    def f32(y: np.ndarray) -> jax.Array:
        return jnp.asarray(y, jnp.float32)

    readout = Readout(f32(W_U), f32(b_U), f32(np.zeros((1, d))), f32(np.zeros((1, d))), 1.0)
    before, _ = unembedded(config, readout, freq, f32(x)[None], jnp.asarray(target)[None])
    # The stream of position q changes along its own neuron k = q alone.
    written = Written(None, f32(np.eye(Q))[None], f32(moved - x)) if by_algebra else None
    parts = shared(readout, before, None) if by_algebra else None
    sums, inv_te = sums_of_set(config, readout, freq, before, parts, Moved(f32(moved)[None], None, written))

    new = 1 / np.sqrt((moved**2).mean(1) + config.norm_eps)
    np.testing.assert_allclose(inv_te[0, 0], new, rtol=1e-5)
    u, f, n = np.asarray(freq.u, float), np.asarray(freq.f, float), np.arange(Q)
    as_it_was, te, ln = (
        np.asarray(capped(of @ W_U * scale[:, None] + b_U, cap), float)
        for of, scale in ((x, inv), (moved, new), (moved, inv))
    )
    fr = te + ((as_it_was - te) @ u)[:, None] * u
    expected = {"n_above_target": (te > te[n, target][:, None]).sum(1), "mean_f": te @ f}
    expected["top_changed"] = te.argmax(1) != as_it_was.argmax(1)
    for name, z in {"te": te, "ln": ln, "fr": fr}.items():
        lse = np.logaddexp.reduce(z, axis=1)
        expected |= {f"lse_{name}": lse, f"target_{name}": z[n, target]}
        if name != "fr":
            expected[f"mean_{name}"] = (np.exp(z - lse[:, None]) * z).sum(1)
    above = (te > te[n, as_it_was.argmax(1)][:, None]).sum(1)
    assert above[2] == 1
    assert (above[0] > 0.9 * V) == (factor < 0)
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(getattr(sums, name))[0, 0], value, rtol=2e-5, atol=2e-4, err_msg=name)
