"""A model's predictions of the next token. Letters: s window, t position."""

import functools
from typing import Any

import jax

from jaxconf.analysis.calibration import Predicted, predicted
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward


@functools.partial(jax.jit, static_argnames="config")
def next_token_predictions(config: DecoderConfig, params: Params, tokens: jax.Array) -> Predicted:
    """The prediction of each token of the windows `tokens`, int32 [s t], but of the first: arrays [s t-1]."""
    logits: Any = forward(config, params, tokens[:, :-1]).logits
    return predicted(jax.nn.log_softmax(logits), tokens[:, 1:])
