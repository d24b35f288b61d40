"""What a model predicts of each next token. Letters: s window, t position, v vocabulary."""

import functools
from typing import Any

import jax

from jaxconf.analysis.calibration import Predicted, predicted
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward


@functools.partial(jax.jit, static_argnames="config")
def next_token_predictions(config: DecoderConfig, params: Params, tokens: jax.Array) -> Predicted:
    """The predictions of windows int32 [s t], one for each token that follows another: arrays [s t-1]."""
    logits: Any = forward(config, params, tokens[:, :-1]).logits
    return predicted(jax.nn.log_softmax(logits), tokens[:, 1:])
