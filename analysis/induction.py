"""What a model does when a sequence says the same twice: the sequences, and the heads that look back.

Letters: b sequence, L tokens that are repeated, t position, l layer, h head, q and s query and source. A sequence is BOS, L tokens, the same
again, so that t is 2L + 1; from position L + 1 on the next token can be told from what followed the same token L positions before.

Sources: Stolfo et al. 2024 (arXiv 2406.16254), section 5; the score of a head: Olsson et al. 2022 (arXiv 2209.11895).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Ablate


def repeated(text: np.ndarray, bos: int) -> np.ndarray:
    """BOS, the text, and the text again: int [b 2L+1], from [b L]."""
    return np.hstack([np.full((len(text), 1), bos, text.dtype), text, text])


def halves(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bool [2L+1] each: the positions of the first copy and of its repeat."""
    t = np.arange(2 * length + 1)
    return (t >= 1) & (t <= length), t > length


def predictions(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bool [2L+1] each: the positions in each copy whose next token lies in the same copy."""
    first, second = halves(length)
    t = np.arange(2 * length + 1)
    return first & (t < length), second & (t < 2 * length)


@functools.partial(jax.jit, static_argnames="config")
def head_scores(config: DecoderConfig, params: Params, tokens: jax.Array, real: jax.Array) -> jax.Array:
    """The induction score of every head, summed over the real sequences, [l h]: its mean attention, over the positions of the repeat, to the
    token after the first occurrence of the present one.

    `tokens`: from `repeated`. `real`: float [b], 1 where a sequence counts, else 0. The attention of one layer at a time is held.
    """
    length = tokens.shape[1] // 2
    resid = forward(config, params, tokens, stop_at_layer=0).resid
    scores = []
    for layer in range(config.n_layers):
        site = f"blocks.{layer}.attn.hook_pattern"
        assert resid is not None
        output = forward(config, params, resid, start_at_layer=layer, stop_at_layer=layer + 1, capture=[site])
        resid = output.resid
        looked = jnp.diagonal(output.captured[site], 1 - length, 2, 3)  # b h q−L+1: each position to that L − 1 before it
        scores.append(jnp.einsum("b,bh->h", real, looked[:, :, 2:].astype(jnp.float32).mean(2)))
    return jnp.stack(scores)


def bos_ablation(config: DecoderConfig, heads: jax.Array, length: int) -> dict[str, Ablate]:
    """Edits after which each head of `heads`, bool [l h], looks at position 0 alone; for sequences of `length` positions."""
    at_bos = jnp.arange(length) == 0
    return {f"blocks.{layer}.attn.hook_pattern": Ablate(heads[layer][:, None, None], at_bos) for layer in range(config.n_layers)}
