"""The sums of `jaxconf.analysis.ablated_softmax` at a fraction of the cost, with a bound on the error of every pair.

Letters: t position, n neuron, d width, v vocabulary; k the K most likely tokens of a position, its head; c chunk of U
tokens. The other tokens are a position's tail.

The head's tokens are summed exactly, and the tail's sums follow from its moments (`jaxconf.analysis.adaptive_tail`).
Pairs of a position and a neuron whose bound exceeds the tolerance are computed again with every token.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.adaptive_error import entropy_error
from jaxconf.analysis.adaptive_tail import (
    REACH,
    Neurons,
    Series,
    Tail,
    linear_tail,
    square_weights,
    tail_products,
    tail_series,
    tail_squares,
    tail_sums,
)
from jaxconf.analysis.blocks import Size
from jaxconf.analysis.softmax_sums import (
    FAR,
    Cells,
    Named,
    Raw,
    Rows,
    Sums,
    Tile,
    Token,
    Vocabulary,
    at_tokens,
    each_token,
    finished,
    linear_sums,
    named_tokens,
    pad,
    raw_sums,
    swept,
    without_named,
)
from jaxconf.models.softcap import capped

HEAD = 512  # tokens of a position that are summed exactly
BLOCK_T, BLOCK_V, UNROLL = Size("adaptive_t"), Size("adaptive_v"), Size("adaptive_unroll")
MATRIX, LANES = Size("matrix"), Size("lanes")
CELLS, PAIRS, ABREAST = Size("cells"), Size("pairs"), Size("abreast")


class Certainty(NamedTuple):
    """How far an adaptive result can be from the exact one, [t n]."""

    bound: jax.Array  # nats, on the error of every lse and entropy, rounding apart; 0 where every token was summed
    rr_bound: jax.Array  # on the error of the target's reciprocal rank
    redone: jax.Array  # bool: every token was summed


class _Positions(NamedTuple):
    """What does not depend on the neuron, for each position. The positions are padded to whole blocks."""

    named: Named
    same: jax.Array  # bool [t 1]: the top token is the target
    inv: jax.Array  # t 1
    along_u: jax.Array | None  # t 1
    lse: jax.Array  # t 1
    tail: Tail
    moments: Any  # of the tail with W_U, [t d] (see `tail_sums`)
    head_tokens: Any  # A, P, ids, b, u and f of each head, in chunks: [blocks c U t]
    squares: Any  # what multiplies M² in the tail's sums, [t v] (see `square_weights`)
    every_token: tuple[Any, ...]  # A and P [t c U ABREAST], then b, u and f [1 c U ABREAST]


class _Sizes(NamedTuple):
    """The numbers of positions, neurons and tokens: with padding, and in a block."""

    t: int
    n: int
    v: int
    block_t: int
    block_n: int
    block_v: int
    block_k: int  # positions of a block of heads; divides block_t

    @classmethod
    def of(cls, T: int, N: int, V: int) -> "_Sizes":
        block_n = neurons_at_once(V, N)
        block_t = positions_of_a_block(T)
        block_k = min(block_t, 2 ** max(0, (int(CELLS) // block_n).bit_length() - 1))
        together = int(UNROLL) * int(ABREAST)
        block_v = -(-int(BLOCK_V) // together) * together  # so that pairs can be computed again in whole steps
        size_t, size_n, size_v = -(-T // block_t) * block_t, -(-N // block_n) * block_n, -(-V // block_v) * block_v
        return cls(size_t, size_n, size_v, block_t, block_n, block_v, block_k)


def adaptive_softmax(
    rows: Rows, cells: Cells, w: jax.Array, vocabulary: Vocabulary, lse: jax.Array, tolerance: jax.Array | float
) -> tuple[Sums, Certainty]:
    """`ablated_softmax` within a tolerance, for a vocabulary of more than HEAD tokens.

    `lse` [t]: log Σ e^ℓ of the unablated logits ℓ. Every lse and entropy is within `tolerance` nats of the exact one,
    rounding apart. Whether the top token changes is exact, and so is the target's rank where `rr_bound` is 0.
    """
    (T, V), (N, d) = rows.A.shape, w.shape
    sizes = _Sizes.of(T, N, V)
    rows, lse = jax.tree.map(
        lambda x: jnp.pad(x, [(0, sizes.t - T)] + [(0, 0)] * (x.ndim - 1), mode="edge"), (rows, lse)
    )
    cells = jax.tree.map(
        lambda x: pad(x, sizes.t, sizes.n).reshape(sizes.t, -1, sizes.block_n).transpose(1, 0, 2), cells
    )
    t = jnp.arange(sizes.t)[:, None]

    def neurons(block: tuple[jax.Array, Cells]) -> tuple[Sums, Certainty]:
        w, cells = block
        with jax.named_scope("M"):
            M = pad(jnp.einsum("dv,nd->vn", vocabulary.W_U, w), sizes.v, sizes.block_n)
        sums, certainty = _of_neurons(positions, cells, w, M, vocabulary, sizes)
        bad = ~(certainty.bound <= tolerance) | ~(certainty.rr_bound <= 1 / HEAD)
        bad &= (t < T) & (cells.write != 0)
        with jax.named_scope("redone"):
            return _redone(sums, certainty, bad, positions, cells, M, vocabulary)

    with jax.default_matmul_precision("highest"):
        with jax.named_scope("positions"):
            positions = _positions(rows, t, vocabulary, lse, sizes)
        found = lax.map(neurons, (pad(w, sizes.n, d).reshape(-1, sizes.block_n, d), cells))  # n-blocks t n
    return jax.tree.map(lambda x: x.transpose(1, 0, 2).reshape(sizes.t, sizes.n)[:T, :N], found)


def positions_of_a_block(T: int) -> int:
    """How many of T positions a block has; the last block is filled up."""
    return min(int(BLOCK_T), 2 ** (T - 1).bit_length())


def neurons_at_once(V: int, N: int) -> int:
    """How many of N neurons are computed together, for a vocabulary of V tokens."""
    lanes = int(LANES)
    most, step = max(lanes, int(MATRIX) // V // lanes * lanes), lanes // 4
    blocks = -(-N // most)
    return min(-(-N // (blocks * step)) * step, N)  # all blocks of nearly the same size


def entries_held(V: int, N: int) -> int:
    """How many entries of M are held at once."""
    return V * neurons_at_once(V, N)


def _positions(rows: Rows, t: jax.Array, vocabulary: Vocabulary, lse: jax.Array, sizes: _Sizes) -> _Positions:
    """`_Positions` of all positions, whose indices are `t`, int [t 1]."""
    named, inv, along_u, lse = jax.tree.map(lambda x: x[:, None], (named_tokens(rows), rows.inv, rows.along_u, lse))
    same = named.ids[0] == named.ids[1]
    ids = lax.top_k(rows.A * inv + vocabulary.b, HEAD)[1]  # t k
    target = capped(jnp.take_along_axis(rows.A * inv + vocabulary.b, rows.target[:, None], 1), vocabulary.cap)
    P = None if rows.P is None else pad(rows.P, sizes.t, sizes.v)
    rows = rows._replace(A=pad(rows.A, sizes.t, sizes.v), P=P)
    rest = without_named(rows)
    tails = rest.at[t, ids].set(FAR / inv), rows.P

    def in_chunks(x: jax.Array) -> jax.Array:  # of what every position's head has, [t k]
        return x.reshape(-1, sizes.block_k, HEAD // int(UNROLL), int(UNROLL)).transpose(0, 2, 3, 1)

    offsets = [pad(x, sizes.v, value=value) for x, value in each_token(vocabulary)]
    P_head = None if rows.P is None else rows.P[t, ids]
    head_tokens = jax.tree.map(in_chunks, (rest[t, ids], P_head, ids, *(x[ids] for x in offsets)))
    W_U = pad(vocabulary.W_U, len(vocabulary.W_U), sizes.v)

    def of_tails(x: Any) -> Any:
        begin, target, inv, lse = x
        return tail_sums(vocabulary.cap, tails, offsets, W_U, begin, target, inv, lse, sizes.block_v)

    of_rows = jax.tree.map(functools.partial(_by_position, sizes.block_t), (target, inv, lse))
    summed = lax.map(of_tails, (jnp.arange(0, sizes.t, sizes.block_t), *of_rows))
    alone, moments = jax.tree.map(lambda x: x.reshape(sizes.t, -1), summed)
    with jax.named_scope("tail_squares"):
        squares = square_weights(vocabulary.cap, tails, offsets, inv, lse)
    every = (
        _every_token(rest),
        None if rows.P is None else _every_token(rows.P),
        *(_every_token(x[None]) for x in offsets),
    )
    return _Positions(named, same, inv, along_u, lse, alone, moments, head_tokens, squares, every)


def _of_neurons(
    positions: _Positions, cells: Cells, w: jax.Array, M: jax.Array, vocabulary: Vocabulary, sizes: _Sizes
) -> tuple[Sums, Certainty]:
    """The sums of head and tail for a block of neurons, and their certainty.

    `w` [n d] and `M` [v n]: of these neurons.
    """
    V, cap = len(vocabulary.b), vocabulary.cap
    inv, tail = positions.inv, positions.tail
    tokens = at_tokens(positions.named, [M[i[:, 0]] for i in positions.named.ids], vocabulary)

    def of_head(of_block: Callable[..., Any], *arrays: Any) -> Any:
        return _of_heads(of_block, positions.head_tokens, arrays, M, sizes)

    with jax.named_scope("tail_squares"):
        squared = tail_squares(positions.squares, M)
    products = tail_products(positions.moments, squared, w)
    squares = {} if cap is None else {"u": jnp.abs(vocabulary.u), "f": vocabulary.f}
    of_M = Neurons(
        M[:V].min(0), M[:V].max(0), {name: jnp.sum(x[:, None] * M[:V] ** 2, 0) for name, x in squares.items()}
    )

    tile = Tile.of(cells, inv, cap)
    mean_f, off_fr, off_kl = None, jnp.float32(0), jnp.float32(0)
    if cap is not None:
        of_u, mean_f = of_head(linear_sums, tile, tokens, positions.same)
        (tail_u, off_u), (tail_f, off_kl) = (
            linear_tail(name, tail, products, of_M, cells, inv, cap) for name in squares
        )
        tile = dataclasses.replace(tile, kappa=positions.along_u - of_u - tail_u)
        mean_f, off_fr = mean_f + tail_f, off_u * (vocabulary.u.max() - vocabulary.u.min())
    z = tuple(tile.logits(token) for token in tokens)
    raw = of_head(raw_sums, tile, *z, z[0])
    series = tail_series(tail, products, of_M, cells, tile.kappa, inv, positions.lse, cap)
    return _joined(raw, series, positions, z, V - HEAD, mean_f, (off_fr, off_kl))


def _by_position(block: int, x: jax.Array) -> jax.Array:
    return x.reshape(-1, block, *x.shape[1:])


def _of_heads(of_block: Callable[..., Any], heads: Any, arrays: tuple[Any, ...], M: jax.Array, sizes: _Sizes) -> Any:
    """`of_block(sweep, *arrays)` for one block of positions at a time, joined.

    `sweep` goes over the heads of the block, and the `arrays` [t …] are cut to its positions.
    """

    def some(x: Any) -> Any:
        head, arrays = x

        def sweep(start: Any, step: Any, merge: Any) -> Any:
            def chunk(carry: Any, x: Any) -> tuple[Any, None]:
                a, p, ids, *offsets = jax.tree.map(lambda y: y[..., None], x)
                return step(carry, Token(a, p, M[ids[..., 0]], *offsets)), None

            return lax.scan(chunk, start, head)[0]

        return of_block(sweep, *arrays)

    with jax.named_scope("heads"):
        found = lax.map(some, (heads, jax.tree.map(functools.partial(_by_position, sizes.block_k), arrays)))
    return jax.tree.map(lambda x: x.reshape(sizes.t, sizes.block_n), found)


def _joined(
    raw: Raw,
    series: tuple[Series, Series, Series],
    positions: _Positions,
    z: tuple[tuple[jax.Array, ...], ...],
    n_tail: int,
    mean_f: jax.Array | None,
    off: tuple[jax.Array, jax.Array],
) -> tuple[Sums, Certainty]:
    """The sums of head and tail together, with the top token and the target, which are in neither.

    `z`: the logits of these two tokens. `off`: bounds on two further errors: that of the loss with the frequency
    direction frozen, from Σ u·z, and that of the divergence, from Σ f·z.
    """
    (z_top, z_target), (te, ln, fr), (off_fr, off_kl) = z, series, off
    lse, same = positions.lse, positions.same
    reached = positions.tail.top + te.most
    S, Q = [], []
    for x, shift in zip(series, z_top, strict=True):
        scale = jnp.exp(lse - shift)
        S.append(scale * x.S)
        Q.append(scale * ((lse - shift) * x.S - x.G))
    whole = Raw(
        raw.te + lax.complex(S[0], Q[0]),
        raw.ln + lax.complex(S[1], Q[1]),
        raw.fr + S[2],
        raw.counts + jnp.where(reached < z_target[0], 0, positions.tail.above),
    )
    sums = finished(whole, z_top, z_target, same, z_top, mean_f)
    bound = jnp.maximum(_bound(te, lse, sums.lse_te, sums.mean_te) + off_kl, _bound(ln, lse, sums.lse_ln, sums.mean_ln))
    bound = jnp.maximum(bound, _bound(fr, lse, sums.lse_fr, None) + off_fr)
    above = jnp.floor(raw.counts) + (~same & (z_top[0] > z_target[0]))
    rr_bound = jnp.where(reached < z_target[0], 0, 1 / (1 + above) - 1 / (1 + above + n_tail))
    return sums, Certainty(jnp.where(reached < z_top[0], bound, jnp.inf), rr_bound, jnp.zeros(bound.shape, bool))


def _bound(x: Series, lse: jax.Array, after: jax.Array, mean: jax.Array | None) -> jax.Array:
    """A bound on the error of an lse and, if its `mean` is given, of the entropy.

    `lse`, `after`: the lse before and after the ablation.
    """
    share = jnp.exp(lse - after)
    off = share * x.S_error
    bound = -jnp.log1p(-jnp.minimum(off, 1))
    if mean is not None:  # entropy = log S + G/S
        of_entropy = share * entropy_error(x.left, lse - mean) / (1 - off) + (off / (1 - off)) ** 2
        bound = jnp.maximum(bound, of_entropy)
    # Where all likely tokens have become unlikely, tokens whose weights underflowed to 0 could matter.
    return jnp.where((off < 0.5) & jnp.isfinite(after) & (lse - after < REACH), bound, jnp.inf)


def _every_token(x: jax.Array) -> jax.Array:
    """x [r v] as [r c U ABREAST]; the tokens of the last axis are summed side by side."""
    return x.reshape(len(x), -1, int(UNROLL), int(ABREAST))


def _redone(
    sums: Sums,
    certainty: Certainty,
    bad: jax.Array,
    positions: _Positions,
    cells: Cells,
    M: jax.Array,
    vocabulary: Vocabulary,
) -> tuple[Sums, Certainty]:
    """The sums of a block of neurons, M [v n], after those of the `bad` pairs [t n] are computed with every token."""
    A, P, *offsets = positions.every_token
    M_rows = _every_token(M.T)
    count, pairs = bad.sum(), int(PAIRS)
    listed = jnp.pad(jnp.nonzero(bad.ravel(), size=bad.size, fill_value=0)[0], (0, pairs))

    def some(state: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
        begin, sums = state
        pair = lax.dynamic_slice(listed, (begin,), (pairs,))
        t, n = pair // bad.shape[1], pair % bad.shape[1]

        def sweep(start: Any, step: Any, merge: Any) -> Any:
            def chunk(carry: Any, c: jax.Array) -> tuple[Any, None]:
                P_here = None if P is None else P[t, c]
                rows = (A[t, c], P_here, M_rows[n, c], *(x[:, c] for x in offsets))  # pairs U ABREAST
                return step(carry, Token(*jax.tree.map(lambda x: x.transpose(1, 0, 2), rows))), None

            abreast = jax.tree.map(lambda x: jnp.broadcast_to(x, (pairs, int(ABREAST))), start)
            total = lax.scan(chunk, abreast, jnp.arange(A.shape[1]))[0]
            return _folded(total, merge)

        def of_pairs(x: jax.Array) -> jax.Array:  # of [t n], or of what is the same for all n
            return jnp.broadcast_to(x, bad.shape)[t, n][:, None]

        tile = Tile.of(jax.tree.map(of_pairs, cells), of_pairs(positions.inv), vocabulary.cap)
        of = jax.tree.map(lambda x: x[t], positions.named)
        tokens = at_tokens(of, [M[i[:, 0], n][:, None] for i in of.ids], vocabulary)
        along_u = jax.tree.map(of_pairs, positions.along_u)
        exact = swept(sweep, tile, tokens, of.ids[0] == of.ids[1], along_u)
        place = jnp.where(begin + jnp.arange(pairs) < count, pair, bad.size)
        put = jax.tree.map(lambda x, y: x.ravel().at[place].set(y[:, 0], mode="drop").reshape(x.shape), sums, exact)
        return begin + pairs, put

    sums = lax.while_loop(lambda state: state[0] < count, some, (jnp.int32(0), sums))[1]
    return sums, Certainty(jnp.where(bad, 0, certainty.bound), jnp.where(bad, 0, certainty.rr_bound), bad)


def _folded(total: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """Sums of ABREAST columns, a power of 2, merged into one column."""
    width = int(ABREAST)
    while width > 1:
        width //= 2
        halves = (jax.tree.map(lambda x, side=side: x[:, side], total) for side in (slice(width), slice(width, None)))
        total = merge(*halves)
    return total
