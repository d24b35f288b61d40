"""A run of the study of repeated text on a random model. Letters: b sequence, t position."""

import functools
from typing import Any

import numpy as np
from random_models import random_model, with_repeats

from jaxconf.analysis.induction import repeated
from jaxconf.models.language_model import LanguageModel
from jaxconf.studies.induction.study import Induction, induction

L = 10
MEMORY = 3 * 10**5


def in_nats(logits: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Entropy [b t] and loss [b t], whose last position has none, in float64."""
    lp = np.asarray(logits, np.float64)
    lp = lp - np.logaddexp.reduce(lp, axis=-1, keepdims=True)
    loss = np.full(tokens.shape, np.nan)
    loss[:, :-1] = -np.take_along_axis(lp[:, :-1], tokens[:, 1:, None], -1)[..., 0]
    return {"entropy": -(np.exp(lp) * lp).sum(-1), "loss": loss}


@functools.cache
def of_random_model() -> tuple[LanguageModel, np.ndarray, np.ndarray, Induction]:
    lm = random_model("layer")
    text = np.random.default_rng(3).integers(1, lm.config.vocab_size, (5, L))
    windows = np.random.default_rng(4).integers(1, lm.config.vocab_size, (3, 24))
    return lm, repeated(text, 0), windows, by_name(lm, text, windows)


def by_name(lm: LanguageModel, text: np.ndarray, windows: np.ndarray, memory: int = MEMORY) -> Induction:
    last = lm.config.n_layers - 1
    named: dict[str, Any] = {"neurons": [(last, 2), (0, 5), (last, 7)], "heads": [(0, 1), (last, 0)]}
    return induction(
        lm,
        windows,
        sequences=text,
        natural=with_repeats(lm.config.vocab_size),
        controls=3,
        bootstrap_draws=20,
        memory=memory,
        **named,
    )
