"""The sums over the vocabulary that every single-neuron ablation needs, in plain XLA and without storing any logits.

Letters: t position, n neuron, d width, v vocabulary; c chunk of U tokens, B block of chunks.
`jaxconf.analysis.softmax_sums` defines the terms of the sums; this module fixes the order of the loops. For a [t n]
tile of accumulators, the loop goes over the vocabulary, so that the tile stays in a CPU's cache, and neurons lie in the
vector lanes. Measurements chose this order.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.blocks import Size
from jaxconf.analysis.softmax_sums import (
    Cells,
    Named,
    Rows,
    Sums,
    Tile,
    Token,
    Vocabulary,
    at_tokens,
    each_token,
    named_tokens,
    pad,
    swept,
    without_named,
)

BLOCK_T, BLOCK_N, BLOCK_V, UNROLL = Size("exact_t"), Size("exact_n"), Size("exact_v"), Size("exact_unroll")


def positions_of_a_block(T: int) -> int:
    """How many of T positions a block has; the last block is filled up."""
    return min(int(BLOCK_T), T)


def ablated_softmax(rows: Rows, cells: Cells, w: jax.Array, vocabulary: Vocabulary) -> Sums:
    """All sums, for write directions w [n d]; float32, exact up to rounding.

    It should not run under `jax.vmap`: each tile's second attempt (`swept`) would then run even if none is needed.
    """
    (T, V), (N, d) = rows.A.shape, w.shape
    block_t, block_n, unroll = positions_of_a_block(T), min(int(BLOCK_N), N), int(UNROLL)
    n_t, n_n = -(-T // block_t), -(-N // block_n)
    n_v = -(-V // int(BLOCK_V))
    chunks = -(-V // (n_v * unroll))
    size_t, size_n, size_v = n_t * block_t, n_n * block_n, n_v * chunks * unroll

    def in_blocks(x: jax.Array) -> jax.Array:
        return pad(x.T, size_v, size_t).reshape(n_v, chunks, unroll, n_t, block_t).transpose(3, 0, 1, 2, 4)[..., None]

    streams = in_blocks(without_named(rows)), None if rows.P is None else in_blocks(rows.P)  # t-blocks B c U t 1
    offsets = [pad(x, size_v, value=value).reshape(n_v, chunks, unroll, 1, 1) for x, value in each_token(vocabulary)]
    rows_of = jax.tree.map(lambda x: pad(x, size_t).reshape(n_t, block_t, 1), (named_tokens(rows), rows.along_u))
    inv = pad(rows.inv, size_t, value=1.0).reshape(n_t, block_t, 1)
    cells = jax.tree.map(
        lambda x: pad(x, size_t, size_n).reshape(n_t, block_t, n_n, block_n).transpose(2, 0, 1, 3), cells
    )
    writes = pad(w, size_n, d).reshape(n_n, block_n, d)

    def one_tile(block: tuple[Any, tuple[Named, jax.Array | None], jax.Array, Cells], M: jax.Array) -> Sums:
        streams, (named, along_u), inv, cells = block
        M_blocks = M.reshape(n_v, chunks, unroll, 1, block_n)

        def sweep(start: Any, step: Callable[[Any, Token], Any], merge: Callable[[Any, Any], Any]) -> Any:
            def block(total: Any, x: Any) -> tuple[Any, None]:
                (A, P), M, offsets = x
                part, _ = lax.scan(
                    lambda carry, tokens: (step(carry, Token(*tokens)), None), start, (A, P, M, *offsets)
                )
                return merge(total, part), None

            return lax.scan(block, start, (streams, M_blocks, offsets))[0]

        tokens = at_tokens(named, [M[ids[:, 0]] for ids in named.ids], vocabulary)
        return swept(sweep, Tile.of(cells, inv, vocabulary.cap), tokens, named.ids[0] == named.ids[1], along_u)

    def some_neurons(block: tuple[jax.Array, Cells]) -> Sums:
        w, cells = block
        # Computed once for all positions; no other cost grows with d.
        M = pad(jnp.einsum("dv,nd->vn", vocabulary.W_U, w), size_v, block_n)
        return lax.map(lambda x: one_tile(x, M), (streams, rows_of, inv, cells))

    with jax.default_matmul_precision("highest"):
        sums = lax.map(some_neurons, (writes, cells))  # n-blocks t-blocks t n
    return jax.tree.map(lambda x: x.transpose(1, 2, 0, 3).reshape(size_t, size_n)[:T, :N], sums)
