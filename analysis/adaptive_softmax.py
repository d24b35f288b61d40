"""The sums of `jaxconf.analysis.ablated_softmax` at a fraction of the cost: likely tokens exactly, the rest by moments, with a bound.

Letters: t position, n neuron, d width, v vocabulary; k the K most likely tokens of a position, its head; c chunk of U tokens; T and B the
positions and neurons of a block. The other tokens are a position's tail.

An ablation adds to the unablated logits ℓ of position t

    p = Σ_i κ_i·b_i + c·M_n     b: A/σ (by how much 1/σ changes), P/σ and u, the same for all neurons; c, κ a number per (t, n)

and on the tail, with weights q = e^ℓ/Σe^ℓ, p has a mean p̄ and x = p − p̄ is small. So

    Σ q·e^p   = e^p̄·Σ q·(1 + x + x²/2 + …)
    Σ s·e^p   = e^p̄·Σ s·(1 + x + x²/2 + …)          s = −q·log q
    Σ q·p·e^p = e^p̄·Σ q·(p̄ + (1 + p̄)·x + (1 + p̄/2)·x² + …)

need moments of q and s with b, b², bM, M and M² alone: matrix products of tail × neurons, shared by all effects. With |x| ≤ R, what
the first two leave out is at most e^R·R/6 · Σ q·x² (or s), and the last e^R·R/2 + |p̄|·e^R·R/6 as much: a bound on every (t, n), in
numbers that are known. What exceeds the tolerance is done again with every token.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.ablated_softmax import (
    FAR,
    UNROLL,
    Cells,
    Named,
    Raw,
    Rows,
    Sums,
    Tile,
    Token,
    Vocabulary,
    at_tokens,
    finished,
    named_tokens,
    pad,
    raw_sums,
    swept,
    without_named,
)

HEAD = 1024  # tokens of a position that are taken exactly
BLOCK_T, BLOCK_V = 256, 2048
MATRIX, LANES = 2**25, 256  # entries of M that are held at once, and by how many neurons at least
CELLS = 2**14  # of the head's tiles
PAIRS, ABREAST = 64, 128  # positions and neurons that are redone together, and tokens side by side
REACH = 40  # nats; e^40 times what float32 cannot hold is nothing
TINY = 1e-30


class Certainty(NamedTuple):
    """How far an adaptive result can lie from the exact one, [t n]."""

    bound: jax.Array  # nats, of every lse and entropy: what the series leaves out; 0 where every token was taken
    rr_bound: jax.Array  # of the target's reciprocal rank
    redone: jax.Array  # bool: every token was taken


class _Tail(NamedTuple):
    """What the tail of each position is alone; b stands for all of them along the first axes, each [t 1]."""

    Q: jax.Array  # Σ q
    S: jax.Array  # Σ s
    Qb: jax.Array
    Sb: jax.Array
    Qbb: jax.Array
    Sbb: jax.Array
    b_mean: jax.Array
    b_off: jax.Array  # the largest |b − mean|
    top: jax.Array  # the largest ℓ
    above: jax.Array  # how many ℓ lie above the target's


class _Products(NamedTuple):
    """What the tail of each position is with each neuron, [t n], or [b t n]."""

    QM: jax.Array
    SM: jax.Array
    QbM: jax.Array
    SbM: jax.Array
    QMM: jax.Array
    SMM: jax.Array


class _Series(NamedTuple):
    """The tail after an ablation, relative to the unablated Σe^ℓ, [t n]."""

    S: jax.Array  # Σ e^(z − ρ), ρ = log Σ e^ℓ
    G: jax.Array  # Σ e^(z − ρ)·(ρ − z)
    S_error: jax.Array
    G_error: jax.Array
    most: jax.Array  # the largest p at most


def adaptive_softmax(
    rows: Rows, cells: Cells, w: jax.Array, vocabulary: Vocabulary, lse: jax.Array, tolerance: jax.Array | float
) -> tuple[Sums, Certainty]:
    """As `ablated_softmax`, for a vocabulary of more than HEAD tokens; `lse` [t] is log Σ e^ℓ of the unablated logits.

    Every lse and entropy lies within `tolerance` nats, rounding apart; whether the top token changes is exact, and so is the target's rank,
    but where `rr_bound` is not 0.
    """
    (T, V), (N, d) = rows.A.shape, w.shape
    block_n = neurons_at_once(V, N)
    block_t = min(BLOCK_T, 2 ** (T - 1).bit_length())
    block_k = min(block_t, 2 ** max(0, (CELLS // block_n).bit_length() - 1))  # a power of 2, which divides block_t
    size_t, size_n, size_v = -(-T // block_t) * block_t, -(-N // block_n) * block_n, -(-V // BLOCK_V) * BLOCK_V
    n_v = size_v // BLOCK_V
    rows, lse = jax.tree.map(lambda x: jnp.pad(x, [(0, size_t - T)] + [(0, 0)] * (x.ndim - 1), mode="edge"), (rows, lse))
    cells = jax.tree.map(lambda x: pad(x, size_t, size_n).reshape(size_t, -1, block_n).transpose(1, 0, 2), cells)

    t = jnp.arange(size_t)[:, None]
    named, inv, lse = jax.tree.map(lambda x: x[:, None], (named_tokens(rows), rows.inv, lse))
    same = named.ids[0] == named.ids[1]
    rest = without_named(rows)
    ids = lax.top_k(rows.A * inv + vocabulary.b, HEAD)[1]  # t k
    tail = rest.at[t, ids].set(FAR / inv)
    alone = _alone(rows, tail, vocabulary, lse)

    def by_position(block: int, x: jax.Array) -> jax.Array:
        return x.reshape(-1, block, *x.shape[1:])

    def by_chunk(x: jax.Array) -> jax.Array:  # of what every position's head has, [t k]
        return x.reshape(-1, block_k, HEAD // UNROLL, UNROLL).transpose(0, 2, 3, 1)

    head = rest[t, ids], None if rows.P is None else rows.P[t, ids], ids, vocabulary.b[ids], vocabulary.u[ids]
    head = jax.tree.map(by_chunk, head)
    tails = jax.tree.map(lambda x: pad(x, size_t, size_v).reshape(-1, block_t, n_v, BLOCK_V).transpose(0, 2, 1, 3), (tail, rows.P))
    offsets = pad(vocabulary.b, size_v, value=FAR).reshape(n_v, BLOCK_V), pad(vocabulary.u, size_v).reshape(n_v, BLOCK_V)
    every = (
        _every_token(rest),
        None if rows.P is None else _every_token(rows.P),
        _every_token(vocabulary.b[None], FAR),
        _every_token(vocabulary.u[None]),
    )

    def neurons(block: tuple[jax.Array, Cells]) -> tuple[Sums, Certainty]:
        w, cells = block
        M = pad(jnp.einsum("dv,nd->vn", vocabulary.W_U, w), size_v, block_n)
        M_range = M[:V].min(0), M[:V].max(0)
        tile = Tile.of(cells, inv)
        z_top, z_target = (tile.logits(token) for token in at_tokens(named, [M[i[:, 0]] for i in named.ids], vocabulary))

        def head_sums(x: Any) -> Raw:
            head, tile, z_top, z_target = x

            def sweep(start: Any, step: Any, merge: Any) -> Any:
                def chunk(carry: Any, x: Any) -> tuple[Any, None]:
                    a, p, ids, b, u = jax.tree.map(lambda y: y[..., None], x)
                    return step(carry, Token(a, p, M[ids[..., 0]], b, u)), None

                return lax.scan(chunk, start, head)[0]

            return raw_sums(sweep, tile, z_top, z_target, z_top)

        raw = lax.map(head_sums, (head, *jax.tree.map(functools.partial(by_position, block_k), (tile, z_top, z_target))))
        blocks = M.reshape(n_v, BLOCK_V, -1)
        of_rows = jax.tree.map(functools.partial(by_position, block_t), (inv, lse))
        products = lax.map(lambda x: _products(x[0], offsets, blocks, *x[1]), (tails, of_rows))
        raw = jax.tree.map(lambda x: x.reshape(size_t, block_n), raw)
        products = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -3).reshape(*x.shape[1:-2], size_t, block_n), products)
        series = _series(alone, products, M_range, cells, inv)
        sums, certainty = _joined(raw, series, alone, lse, z_top, z_target, same, V - HEAD)
        bad = ~(certainty.bound <= tolerance) | ~(certainty.rr_bound <= 2 / HEAD)
        bad &= (t < T) & (cells.write != 0)
        return _redone(sums, certainty, bad, every, named, inv, cells, M[:V], vocabulary)

    with jax.default_matmul_precision("highest"):
        found = lax.map(neurons, (pad(w, size_n, d).reshape(-1, block_n, d), cells))  # n-blocks t n
    return jax.tree.map(lambda x: x.transpose(1, 0, 2).reshape(size_t, size_n)[:T, :N], found)


def neurons_at_once(V: int, N: int) -> int:
    return min(max(LANES, MATRIX // V // LANES * LANES), N)


def entries_held(V: int, N: int) -> int:
    """How many entries M has at once."""
    return V * neurons_at_once(V, N)


def _bases(A: jax.Array, P: jax.Array | None, inv: jax.Array, u: jax.Array) -> list[jax.Array]:
    return [A * inv, *([] if P is None else [P * inv]), u]


def _alone(rows: Rows, tail: jax.Array, vocabulary: Vocabulary, lse: jax.Array) -> _Tail:
    inv = rows.inv[:, None]
    hidden = tail < FAR / inv / 2
    ell = tail * inv + vocabulary.b
    q = jnp.where(hidden, 0, jnp.exp(ell - lse))
    s = jnp.where(hidden, 0, q * (lse - ell))
    b = _bases(jnp.where(hidden, 0, tail), rows.P, inv, vocabulary.u)

    def total(x: jax.Array) -> jax.Array:
        return x.sum(1, keepdims=True)

    def each(weight: jax.Array) -> jax.Array:
        return jnp.stack([total(weight * x) for x in b])

    def pairs(weight: jax.Array) -> jax.Array:
        return jnp.stack([each(weight * x) for x in b])

    Q = total(q)
    Qb = each(q)
    mean = Qb / jnp.maximum(Q, TINY)
    off = jnp.stack([jnp.where(hidden, 0, jnp.abs(x - m)).max(1, keepdims=True) for x, m in zip(b, mean, strict=True)])
    target = jnp.take_along_axis(rows.A * inv + vocabulary.b, rows.target[:, None], 1)
    top = jnp.where(hidden, -jnp.inf, ell).max(1, keepdims=True)
    return _Tail(Q, total(s), Qb, each(s), pairs(q), pairs(s), mean, off, top, total(jnp.where(hidden, 0.0, ell > target)))


def _products(tails: Any, offsets: Any, M: jax.Array, inv: jax.Array, lse: jax.Array) -> _Products:
    """`tails`: A and P in blocks, [B t v]; `offsets`: b and u, [B v]; M [B v n]; inv and lse [t 1]."""

    def block(total: Any, x: Any) -> tuple[Any, None]:
        (A, P), (b, u), M = x
        ell = A * inv + b
        q = jnp.exp(ell - lse)
        s = q * (lse - ell)
        of_q = _bases(A, P, inv, u)
        first = [q, s, *(q * y for y in of_q), *(s * y for y in of_q[:-1])]
        found = [jnp.concatenate(y) @ z for y, z in ((first, M), (first[:2], M * M))]
        return jax.tree.map(jnp.add, total, found), None

    T, n, k = len(inv), M.shape[-1], 2 if tails[1] is None else 3
    start = [jnp.zeros((rows * T, n)) for rows in (1 + 2 * k, 2)]
    first, second = (x.reshape(-1, T, n) for x in lax.scan(block, start, (tails, offsets, M))[0])
    SbM = jnp.concatenate([first[2 + k :], jnp.zeros((1, T, n))])  # no entropy is asked of what u changes
    return _Products(first[0], first[1], first[2 : 2 + k], SbM, second[0], second[1])


def _series(alone: _Tail, products: _Products, M_range: Any, cells: Cells, inv: jax.Array) -> tuple[_Series, _Series, _Series]:
    """The total effect, that with the norm frozen, and that with the frequency direction frozen (whose G is not right, nor asked for)."""
    rescaled = cells.inv_te / inv
    zero = jnp.zeros_like(cells.write)
    of_P = [] if cells.beta is None else [(cells.beta * rescaled, cells.beta)]
    M_mean = products.QM / jnp.maximum(alone.Q, TINY)
    M_off = jnp.maximum(M_range[1] - M_mean, M_mean - M_range[0])

    def one(k: list[jax.Array], c: jax.Array) -> _Series:
        def moments(W: jax.Array, Wb: jax.Array, Wbb: jax.Array, WM: jax.Array, WbM: jax.Array, WMM: jax.Array) -> tuple[Any, Any]:
            first = c * WM + sum(x * y for x, y in zip(k, Wb, strict=True))
            crossed = sum(x * y for x, y in zip(k, WbM, strict=True))
            squared = sum(k[i] * k[j] * Wbb[i, j] for i in range(len(k)) for j in range(len(k)))
            second = c * c * WMM + 2 * c * crossed + squared
            return first - mean * W, jnp.maximum(second - 2 * mean * first + mean * mean * W, 0)

        mean = c * M_mean + sum(x * y for x, y in zip(k, alone.b_mean, strict=True))
        R = jnp.abs(c) * M_off + sum(jnp.abs(x) * y for x, y in zip(k, alone.b_off, strict=True))
        Q1, Q2 = moments(alone.Q, alone.Qb, alone.Qbb, products.QM, products.QbM, products.QMM)
        S1, S2 = moments(alone.S, alone.Sb, alone.Sbb, products.SM, products.SbM, products.SMM)
        scale, third = jnp.exp(mean), jnp.exp(R) * R / 6
        Q = alone.Q + Q1 + Q2 / 2
        G = alone.S + S1 + S2 / 2 - mean * Q - (Q1 + Q2)
        # Far outside the series' reach weights that were too small to be held could count.
        error = jnp.where(mean + R < REACH, scale * third, jnp.inf)
        return _Series(scale * Q, scale * G, error * Q2, error * (S2 + jnp.abs(mean) * Q2 + 3 * Q2), mean + R)

    total = [rescaled - 1, *(x for x, _ in of_P)]
    c = cells.write * cells.inv_te
    return (
        one([*total, zero], c),
        one([zero, *(x for _, x in of_P), zero], cells.write * inv),
        one([*total, cells.kappa], c),
    )


def _joined(
    raw: Raw,
    series: tuple[_Series, _Series, _Series],
    alone: _Tail,
    lse: jax.Array,
    z_top: tuple[jax.Array, ...],
    z_target: tuple[jax.Array, ...],
    same: jax.Array,
    n_tail: int,
) -> tuple[Sums, Certainty]:
    """Head, tail, and the two tokens that neither holds."""
    te, ln, fr = series
    S, Q = [], []
    for x, shift in zip(series, z_top, strict=True):
        scale = jnp.exp(lse - shift)
        S.append(scale * x.S)
        Q.append(scale * ((lse - shift) * x.S - x.G))
    sums = finished(
        Raw(
            raw.te + lax.complex(S[0], Q[0]),
            raw.ln + lax.complex(S[1], Q[1]),
            raw.fr + S[2],
            raw.counts + alone.above,
        ),
        z_top,
        z_target,
        same,
        z_top,
    )

    def bounds(x: _Series, after: jax.Array, mean: jax.Array | None) -> jax.Array:
        share = jnp.exp(lse - after)
        off = share * x.S_error
        bound = -jnp.log1p(-jnp.minimum(off, 1))
        if mean is not None:  # entropy = log S + G/S
            bound = jnp.maximum(bound, (off * jnp.abs(1 - (lse - mean)) + share * x.G_error) / (1 - off))
        return jnp.where(off < 0.5, bound, jnp.inf)

    bound = jnp.maximum(bounds(te, sums.lse_te, sums.mean_te), bounds(ln, sums.lse_ln, sums.mean_ln))
    bound = jnp.maximum(bound, bounds(fr, sums.lse_fr, None))
    reached = alone.top + te.most
    above = jnp.floor(raw.counts) + (~same & (z_top[0] > z_target[0]))
    rr_bound = jnp.where(reached < z_target[0], 0, 1 / (1 + above) - 1 / (1 + above + n_tail))
    return sums, Certainty(jnp.where(reached < z_top[0], bound, jnp.inf), rr_bound, jnp.zeros(bound.shape, bool))


def _every_token(x: jax.Array, value: float = 0.0) -> jax.Array:
    """[r v] as [r c U ABREAST], the last of which go through the sums side by side."""
    size = -(-x.shape[1] // (UNROLL * ABREAST)) * UNROLL * ABREAST
    return pad(x, len(x), size, value=value).reshape(len(x), -1, UNROLL, ABREAST)


def _redone(
    sums: Sums,
    certainty: Certainty,
    bad: jax.Array,
    every: tuple[Any, ...],
    named: Named,
    inv: jax.Array,
    cells: Cells,
    M: jax.Array,
    vocabulary: Vocabulary,
) -> tuple[Sums, Certainty]:
    """The sums of all positions and a block of neurons, in which the `bad` pairs [t n] are computed again with every token.

    `every`: of every token A and P, [t c U ABREAST], and b and u, [1 c U ABREAST]; M [v n].
    """
    A, P, b, u = every
    M_rows = _every_token(M.T)
    count = bad.sum()
    listed = jnp.pad(jnp.nonzero(bad.ravel(), size=bad.size, fill_value=0)[0], (0, PAIRS))

    def some(state: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
        begin, sums = state
        pair = lax.dynamic_slice(listed, (begin,), (PAIRS,))
        t, n = pair // bad.shape[1], pair % bad.shape[1]

        def sweep(start: Any, step: Any, merge: Any) -> Any:
            def chunk(carry: Any, c: jax.Array) -> tuple[Any, None]:
                rows = (A[t, c], None if P is None else P[t, c], M_rows[n, c], b[:, c], u[:, c])  # pairs U ABREAST
                return step(carry, Token(*jax.tree.map(lambda x: x.transpose(1, 0, 2), rows))), None

            abreast = jax.tree.map(lambda x: jnp.broadcast_to(x, (PAIRS, ABREAST)), start)
            total, width = lax.scan(chunk, abreast, jnp.arange(A.shape[1]))[0], ABREAST
            while width > 1:
                width //= 2
                total = merge(*(jax.tree.map(lambda x, side=side: x[:, side], total) for side in (slice(width), slice(width, None))))
            return total

        def of_pairs(x: jax.Array) -> jax.Array:  # of [t n], or of what is the same for all n
            return jnp.broadcast_to(x, bad.shape)[t, n][:, None]

        tile = Tile.of(jax.tree.map(of_pairs, cells), of_pairs(inv))
        of = jax.tree.map(lambda x: x[t], named)
        z_top, z_target = (tile.logits(token) for token in at_tokens(of, [M[i[:, 0], n][:, None] for i in of.ids], vocabulary))
        exact = swept(sweep, tile, z_top, z_target, of.ids[0] == of.ids[1])
        place = jnp.where(begin + jnp.arange(PAIRS) < count, pair, bad.size)
        return begin + PAIRS, jax.tree.map(lambda x, y: x.ravel().at[place].set(y[:, 0], mode="drop").reshape(x.shape), sums, exact)

    sums = lax.while_loop(lambda state: state[0] < count, some, (jnp.int32(0), sums))[1]
    return sums, Certainty(jnp.where(bad, 0, certainty.bound), jnp.where(bad, 0, certainty.rr_bound), bad)
