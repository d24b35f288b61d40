"""Sequences whose second half repeats the first, and the heads that attend from there to the first half.

Letters: b sequence, L repeated tokens, t position, l layer, h head, q query position. A sequence is BOS, L tokens, and
the same L tokens again: 2L + 1 positions. From position L + 1 on, the next token follows from the first copy.

Sources: Stolfo et al. 2024 (arXiv 2406.16254), section 5; the score of a head: Olsson et al. 2022 (arXiv 2209.11895).
"""

import collections
import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.sites import Ablate


def repeated(text: np.ndarray, bos: int) -> np.ndarray:
    """BOS, the text, and the text again: int [b 2L+1], from the text, int [b L]."""
    return np.hstack([np.full((len(text), 1), bos, text.dtype), text, text])


def halves(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the first copy and of the second, bool [2L+1] each."""
    t = np.arange(2 * length + 1)
    return (t >= 1) & (t <= length), t > length


def predictions(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of each copy whose next token belongs to the same copy, bool [2L+1] each."""
    first, second = halves(length)
    t = np.arange(2 * length + 1)
    return first & (t < length), second & (t < 2 * length)


@functools.partial(jax.jit, static_argnames="config")
def head_scores(config: DecoderConfig, params: Params, tokens: jax.Array, real: jax.Array) -> jax.Array:
    """The induction score of every head, summed over the real sequences, float32 [l h].

    The score of a head on a sequence is its mean attention from a token of the second copy to the token that followed
    this token in the first copy. `tokens`: from `repeated`, int [b 2L+1]. `real`: float32 [b], 1 for a sequence that
    counts, else 0. The attention patterns of only one layer at a time are in memory.
    """
    length = tokens.shape[1] // 2
    resid = forward(config, params, tokens, stop_at_layer=0).resid
    scores = []
    for layer in range(config.n_layers):
        site = f"blocks.{layer}.attn.hook_pattern"
        assert resid is not None
        output = forward(config, params, resid, start_at_layer=layer, stop_at_layer=layer + 1, capture=[site])
        resid = output.resid
        # b h q−L+1: from each position q to the one L − 1 before it
        looked = jnp.diagonal(output.captured[site], 1 - length, 2, 3)
        scores.append(jnp.einsum("b,bh->h", real, looked[:, :, 2:].astype(jnp.float32).mean(2)))
    return jnp.stack(scores)


def bos_ablation(heads: jax.Array, layers: Iterable[int], length: int) -> dict[str, Ablate]:
    """The edits with which each head of `heads`, bool [l h], attends to position 0 alone, in sequences of `length`.

    `layers`: those that are edited, at least those of the heads.
    """
    at_bos = jnp.arange(length) == 0
    return {f"blocks.{layer}.attn.hook_pattern": Ablate(heads[layer][:, None, None], at_bos) for layer in layers}


def random_heads(
    config: DecoderConfig, heads: Sequence[tuple[int, int]], count: int, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """Up to `count` different random sets of heads, (layer, head) each, as large as `heads` and without any of them.

    If each layer has enough other heads, a set has as many heads in each layer as `heads` has; else its heads are drawn
    from all layers. There is no set if the model has too few other heads.
    """
    others = [
        (layer, head)
        for layer in range(config.n_layers)
        for head in range(config.n_heads)
        if (layer, head) not in heads
    ]
    of_layer = {layer: [head for head in others if head[0] == layer] for layer, _ in heads}
    wanted = collections.Counter(layer for layer, _ in heads)
    pools = [(of_layer[layer], n) for layer, n in wanted.items()]
    if any(len(pool) < n for pool, n in pools):
        pools = [(others, len(heads))]
    if any(len(pool) < n for pool, n in pools):
        return []
    found = {
        tuple(sorted(pool[i] for pool, n in pools for i in rng.choice(len(pool), n, replace=False)))
        for _ in range(count)
    }
    return [list(members) for members in sorted(found)]
