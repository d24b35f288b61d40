"""Answers of a model with one neuron set ablated, by their definition: whole passes, without cache or vmap.

Letters: p prompt, t position, v vocabulary, n new token. Log-probabilities and entropies in nats.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.decoder import forward
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Ablate


@functools.partial(jax.jit, static_argnames="config")
def log_softmax(config: Any, params: Any, tokens: np.ndarray, edits: dict[str, Any], at: np.ndarray) -> jax.Array:
    """By a whole pass, at positions [p n] of the tokens [p t]: [p n v]."""
    logits = jnp.take_along_axis(forward(config, params, tokens, edits).logits, at[:, :, None], 1)
    return jax.nn.log_softmax(logits)


def log_probabilities(
    lm: LanguageModel, rows: list[np.ndarray], length: int, edits: dict[str, Any], at: list[np.ndarray]
) -> np.ndarray:
    """Of the tokens after the positions `at` of each row, [p n v]; what is behind a row's end does not matter to it."""
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    return np.asarray(log_softmax(lm.config, lm.params, tokens, edits, np.stack(at)))


def ablation(lm: LanguageModel, members: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    mask, to = np.zeros(lm.config.d_mlp, bool), np.zeros(lm.config.d_mlp, np.float32)
    mask[members], to[members] = True, values
    return {f"blocks.{lm.config.n_layers - 1}.mlp.hook_post": Ablate(mask, to)}


def alone(
    lm: LanguageModel, prompts: list[np.ndarray], edits: dict[str, Any], n_new: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The greedy continuations, int [p n], and the entropy of the first prediction, [p]."""
    rows = [np.asarray(prompt) for prompt in prompts]
    for step in range(n_new):
        lp = log_probabilities(lm, rows, length, edits, [np.array([len(row) - 1]) for row in rows])[:, 0]
        if step == 0:
            entropy = -(np.exp(lp) * lp).sum(-1)
        rows = [np.append(row, of_row.argmax()) for row, of_row in zip(rows, lp, strict=True)]
    return np.stack([row[-n_new:] for row in rows]), entropy


def log_p_alone(
    lm: LanguageModel, prompts: list[np.ndarray], answers: list[np.ndarray], edits: dict[str, Any], length: int
) -> np.ndarray:
    most = max(map(len, answers))
    at = [np.minimum(len(prompt) - 1 + np.arange(most), length - 1) for prompt in prompts]
    rows = [np.concatenate(pair) for pair in zip(prompts, answers, strict=True)]
    lp = log_probabilities(lm, rows, length, edits, at)
    return np.array([of_row[np.arange(len(a)), a].sum() for of_row, a in zip(lp, answers, strict=True)])
