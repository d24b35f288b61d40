"""Predictions if the logits are divided by a temperature. Letters: s window, q position that counts, g temperature."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxconf.analysis.calibration import Predicted, predicted
from jaxconf.analysis.rerun import Entry
from jaxconf.analysis.streamed_sets import whole_logits
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig


def at_temperature(config: DecoderConfig, readout: Readout, temperature: float) -> tuple[DecoderConfig, Readout]:
    """The shape and the readout of a model whose logits are divided by a temperature, above 0."""
    if config.logit_softcap is not None:
        config = dataclasses.replace(config, logit_softcap=config.logit_softcap / temperature)
    return config, dataclasses.replace(readout, W_U=readout.W_U / temperature, b_U=readout.b_U / temperature)


@functools.partial(jax.jit, static_argnames="config")
def at_temperatures(config: DecoderConfig, readout: Readout, entry: Entry, temperatures: jax.Array) -> Predicted:
    """The predictions at each temperature [g], which the logits are divided by; [g s q]."""
    before = entry.before
    logits = whole_logits(config, readout, before.x, before.inv)
    return jax.lax.map(lambda T: predicted(jax.nn.log_softmax(logits / T), before.target), jnp.asarray(temperatures))
