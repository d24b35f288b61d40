"""What a neuron does to the logits, against small changes of its activation in the whole model."""

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, windows_for

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.rerun import compiled_entry
from jaxconf.analysis.unembedding import readout
from jaxconf.analysis.written_logits import extremes, steps, stream_moments
from jaxconf.models.decoder import final_norm_name
from jaxconf.models.sites import Replace

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("kind", ["layer", "rms", "no norm"])
def test_mean_changes_of_the_logits(kind: str) -> None:
    lm = random_model(kind)
    config, tokens = lm.config, windows_for(lm, 2, 12)
    kept = np.random.default_rng(1).random(tokens.shape) < 0.7
    seen = readout(config, lm.params)
    entry, _ = compiled_entry(
        config, (config.n_layers - 1,), lm.params, seen, frequency(np.ones(config.vocab_size)), tokens, np.arange(12)
    )
    found = steps(config, np.asarray(seen.w_out), stream_moments(entry.before, jnp.asarray(kept)))
    site, norm = f"blocks.{config.n_layers - 1}.mlp.hook_post", f"{final_norm_name(config)}.hook_scale"
    sites = [site, norm] if config.final_norm else [site]
    before = lm.apply(tokens, capture=sites)
    for neuron in (0, 7):
        changes = []
        for frozen in (False, True):
            kept_scale = {norm: Replace(before.captured[norm])} if frozen and config.final_norm else {}
            ends = [
                lm.apply(
                    tokens, edits={site: Replace(before.captured[site].at[..., neuron].add(step)), **kept_scale}
                ).logits
                for step in (1e-2, -1e-2)
            ]
            mean = np.asarray((ends[0] - ends[1]) / 2e-2, np.float64)[kept].mean(0)
            changes.append(mean - mean.mean())
        for step, expected in zip(found, changes, strict=True):
            of = np.asarray(step[neuron] @ np.asarray(seen.W_U, np.float64))
            np.testing.assert_allclose(of - of.mean(), expected, atol=2e-3 * np.abs(expected).max())
            top = extremes(seen, jnp.asarray(step[[neuron]], jnp.float32), 5)
            assert np.asarray(top.up)[0].tolist() == np.argsort(-of, kind="stable")[:5].tolist()
            assert np.asarray(top.down)[0].tolist() == np.argsort(of, kind="stable")[:5].tolist()
            np.testing.assert_allclose(np.asarray(top.down_by)[0], np.sort(of)[:5], rtol=1e-4)
    if config.final_norm:
        assert np.abs(found[0] - found[1]).max() > 1e-3
