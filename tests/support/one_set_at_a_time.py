"""Answers of a model with one neuron set ablated, by their definition: whole passes, without cache or vmap.

Letters: p prompt, t position, v vocabulary, n new token. Log-probabilities and entropies in nats.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.decoder import forward
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Ablate

whole_pass = jax.jit(forward, static_argnames="config")


def log_probabilities(lm: LanguageModel, rows: list[np.ndarray], length: int, edits: dict[str, Any]) -> np.ndarray:
    """Of every next token, [p t v], by whole passes; what is behind a row's end does not matter to it."""
    tokens = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    return np.asarray(jax.nn.log_softmax(whole_pass(lm.config, lm.params, tokens, edits).logits))


def ablation(lm: LanguageModel, members: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    mask, to = np.zeros(lm.config.d_mlp, bool), np.zeros(lm.config.d_mlp, np.float32)
    mask[members], to[members] = True, values
    return {f"blocks.{lm.config.n_layers - 1}.mlp.hook_post": Ablate(jnp.asarray(mask), jnp.asarray(to))}


def alone(
    lm: LanguageModel, prompts: list[np.ndarray], edits: dict[str, Any], n_new: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The greedy continuations, int [p n], and the entropy of the first prediction, [p]."""
    rows = [np.asarray(prompt) for prompt in prompts]
    for step in range(n_new):
        lp = log_probabilities(lm, rows, length, edits)[np.arange(len(rows)), [len(row) - 1 for row in rows]]
        if step == 0:
            entropy = -(np.exp(lp) * lp).sum(-1)
        rows = [np.append(row, of_row.argmax()) for row, of_row in zip(rows, lp, strict=True)]
    return np.stack([row[-n_new:] for row in rows]), entropy


def log_p_alone(
    lm: LanguageModel, prompts: list[np.ndarray], answers: list[np.ndarray], edits: dict[str, Any], length: int
) -> np.ndarray:
    lp = log_probabilities(lm, [np.concatenate(pair) for pair in zip(prompts, answers, strict=True)], length, edits)
    return np.array(
        [
            sum(lp[p, len(prompts[p]) - 1 + a, token] for a, token in enumerate(answer))
            for p, answer in enumerate(answers)
        ]
    )
