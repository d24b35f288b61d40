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

Soft-capped logits change by

    g(p) = cap·tanh((y + p)/cap) − cap·tanh(y/cap) = D·p + E·p²/2 + …     D = g'(0), E = g''(0), y the logit before the cap

and what that leaves out is at most |p|³/(3·cap²). The mean is then that of D·p, x = D·p − mean, and wherever x stands alone E·p²/2 is
added to it: moments with D·b, D·M, E·b², E·bM and E·M² in place of those above. Σ u·z and Σ f·z, which are no longer bilinear, come from
the same moments with the weights u and f.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.ablated_softmax import (
    FAR,
    NEVER,
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

HEAD = 1024  # tokens of a position that are taken exactly
BLOCK_T, BLOCK_V = 256, 2048
MATRIX, LANES = 2**25, 256  # entries of M that are held at once, and by how many neurons at least
CELLS = 2**14  # of the head's tiles
PAIRS, ABREAST = 64, 128  # positions and neurons that are redone together, and tokens side by side
REACH = 40  # nats; e^40 times what float32 cannot hold is nothing
TINY = 1e-30
BEND = 4 / 27**0.5  # the largest |E|, times the cap


class Certainty(NamedTuple):
    """How far an adaptive result can lie from the exact one, [t n]."""

    bound: jax.Array  # nats, of every lse and entropy: what the series leaves out; 0 where every token was taken
    rr_bound: jax.Array  # of the target's reciprocal rank
    redone: jax.Array  # bool: every token was taken


class _Alone(NamedTuple):
    """Sums over a position's tail with one weight, [t 1]; b are those that have a coefficient κ, and the weight may not need the last."""

    total: jax.Array
    b: list[jax.Array]  # of D·b
    bb: list[list[jax.Array]]  # of D²·b·b
    bent: list[list[jax.Array]]  # of E·b·b


class _Tail(NamedTuple):
    """What the tail of each position is alone, [t 1]."""

    weights: dict[str, _Alone]
    b_off: list[jax.Array]  # the largest |D·b − its mean|
    top: jax.Array  # the largest ℓ
    above: jax.Array  # how many ℓ lie above the target's
    capped: "_Capped | None"


class _Capped(NamedTuple):
    """What else the tail of soft-capped logits is alone, [t 1]."""

    b_most: list[jax.Array]  # the largest |b|
    slope: jax.Array  # the smallest D
    along: dict[str, jax.Array]  # Σ u·ℓ and Σ f·ℓ
    squares: dict[str, list[jax.Array]]  # Σ |u|·b² and Σ f·b²


class _Products(NamedTuple):
    """The same sums with each neuron, [t n]."""

    M: jax.Array  # of D·M
    bM: list[jax.Array]  # of D²·b·M
    bent_bM: list[jax.Array]  # of E·b·M
    MM: Any  # of D²·M²; None where it is not needed
    bent_MM: Any  # of E·M²; None without a cap


class _Neurons(NamedTuple):
    """Of each neuron's M, [n]."""

    least: jax.Array
    most: jax.Array
    squares: dict[str, jax.Array]  # Σ |u|·M² and Σ f·M²


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
    (T, V), (N, d), cap = rows.A.shape, w.shape, vocabulary.cap
    block_n = neurons_at_once(V, N)
    block_t = min(BLOCK_T, 2 ** (T - 1).bit_length())
    block_k = min(block_t, 2 ** max(0, (CELLS // block_n).bit_length() - 1))  # a power of 2, which divides block_t
    size_t, size_n, size_v = -(-T // block_t) * block_t, -(-N // block_n) * block_n, -(-V // BLOCK_V) * BLOCK_V
    n_v = size_v // BLOCK_V
    rows, lse = jax.tree.map(lambda x: jnp.pad(x, [(0, size_t - T)] + [(0, 0)] * (x.ndim - 1), mode="edge"), (rows, lse))
    cells = jax.tree.map(lambda x: pad(x, size_t, size_n).reshape(size_t, -1, block_n).transpose(1, 0, 2), cells)

    t = jnp.arange(size_t)[:, None]
    named, inv, along_u, lse = jax.tree.map(lambda x: x[:, None], (named_tokens(rows), rows.inv, rows.along_u, lse))
    same = named.ids[0] == named.ids[1]
    rest = without_named(rows)
    ids = lax.top_k(rows.A * inv + vocabulary.b, HEAD)[1]  # t k
    tail = rest.at[t, ids].set(FAR / inv)
    alone = _alone(rows, tail, vocabulary, lse)

    def by_position(block: int, x: jax.Array) -> jax.Array:
        return x.reshape(-1, block, *x.shape[1:])

    def by_chunk(x: jax.Array) -> jax.Array:  # of what every position's head has, [t k]
        return x.reshape(-1, block_k, HEAD // UNROLL, UNROLL).transpose(0, 2, 3, 1)

    offsets = each_token(vocabulary)
    head = jax.tree.map(by_chunk, (rest[t, ids], None if rows.P is None else rows.P[t, ids], ids, *(x[ids] for x, _ in offsets)))
    tails = jax.tree.map(lambda x: pad(x, size_t, size_v).reshape(-1, block_t, n_v, BLOCK_V).transpose(0, 2, 1, 3), (tail, rows.P))
    tail_offsets = [pad(x, size_v, value=value).reshape(n_v, BLOCK_V) for x, value in offsets]
    every = (
        _every_token(rest),
        None if rows.P is None else _every_token(rows.P),
        *(_every_token(x[None], value) for x, value in offsets),
    )

    def neurons(block: tuple[jax.Array, Cells]) -> tuple[Sums, Certainty]:
        w, cells = block
        M = pad(jnp.einsum("dv,nd->vn", vocabulary.W_U, w), size_v, block_n)
        tokens = at_tokens(named, [M[i[:, 0]] for i in named.ids], vocabulary)

        def of_head(of_block: Callable[..., Any], *arrays: Any) -> Any:
            """`of_block` of a sweep over a head and of what the arrays [t …] have there, one block of positions after the other."""

            def some(x: Any) -> Any:
                head, arrays = x

                def sweep(start: Any, step: Any, merge: Any) -> Any:
                    def chunk(carry: Any, x: Any) -> tuple[Any, None]:
                        a, p, ids, *offsets = jax.tree.map(lambda y: y[..., None], x)
                        return step(carry, Token(a, p, M[ids[..., 0]], *offsets)), None

                    return lax.scan(chunk, start, head)[0]

                return of_block(sweep, *arrays)

            found = lax.map(some, (head, jax.tree.map(functools.partial(by_position, block_k), arrays)))
            return jax.tree.map(lambda x: x.reshape(size_t, block_n), found)

        blocks = M.reshape(n_v, BLOCK_V, -1)
        of_rows = jax.tree.map(functools.partial(by_position, block_t), (inv, lse))
        products = lax.map(lambda x: _products(cap, x[0], tail_offsets, blocks, *x[1]), (tails, of_rows))
        products = jax.tree.map(lambda x: x.reshape(size_t, block_n), products)
        squares = {} if cap is None else {"u": jnp.abs(vocabulary.u), "f": vocabulary.f}
        of_M = _Neurons(M[:V].min(0), M[:V].max(0), {name: jnp.sum(x[:, None] * M[:V] ** 2, 0) for name, x in squares.items()})

        tile = Tile.of(cells, inv, cap)
        mean_f, off_fr, off_kl = None, jnp.float32(0), jnp.float32(0)
        if cap is not None:
            of_u, mean_f = of_head(linear_sums, tile, tokens, same)
            (tail_u, off_u), (tail_f, off_kl) = (_linear(name, alone, products, of_M, cells, inv, cap) for name in squares)
            tile = dataclasses.replace(tile, kappa=along_u - of_u - tail_u)
            mean_f, off_fr = mean_f + tail_f, off_u * (vocabulary.u.max() - vocabulary.u.min())
        z_top, z_target = (tile.logits(token) for token in tokens)
        raw = of_head(raw_sums, tile, z_top, z_target, z_top)
        series = _series(alone, products, of_M, cells, tile.kappa, inv, cap)
        sums, certainty = _joined(raw, series, alone, lse, z_top, z_target, same, V - HEAD, mean_f, off_fr, off_kl)
        bad = ~(certainty.bound <= tolerance) | ~(certainty.rr_bound <= 2 / HEAD)
        bad &= (t < T) & (cells.write != 0)
        return _redone(sums, certainty, bad, every, named, inv, along_u, cells, M[:V], vocabulary)

    with jax.default_matmul_precision("highest"):
        found = lax.map(neurons, (pad(w, size_n, d).reshape(-1, block_n, d), cells))  # n-blocks t n
    return jax.tree.map(lambda x: x.transpose(1, 0, 2).reshape(size_t, size_n)[:T, :N], found)


def neurons_at_once(V: int, N: int) -> int:
    return min(max(LANES, MATRIX // V // LANES * LANES), N)


def entries_held(V: int, N: int) -> int:
    """How many entries M has at once."""
    return V * neurons_at_once(V, N)


class _Block(NamedTuple):
    """A block of the tail's tokens, [t v], those that are hidden with no weight."""

    hidden: jax.Array
    ell: jax.Array
    weights: dict[str, jax.Array]
    bases: list[jax.Array]  # what the soft cap is applied to; u, the last of b, is not
    slope: jax.Array  # D
    bend: jax.Array | None  # E

    def terms(self, name: str, u: jax.Array) -> list[jax.Array]:
        """D·b, as far as that weight needs them: nothing but a sum of e^z is asked of what u changes."""
        return [*(self.slope * x for x in self.bases), *([u] if name == "q" else [])]


def _block(
    A: jax.Array, P: jax.Array | None, b: jax.Array, u: jax.Array, f: jax.Array, inv: jax.Array, lse: jax.Array, cap: float | None
) -> _Block:
    y = A * inv + b
    hidden = y < NEVER
    ell, slope = y, jnp.float32(1)
    bend = None
    if cap is not None:
        tanh = jnp.tanh(y / cap)
        slope = 1 - tanh * tanh
        ell, bend = cap * tanh, -2 / cap * tanh * slope
    q = jnp.where(hidden, 0, jnp.exp(ell - lse))
    weights = {"q": q, "s": q * (lse - ell)}
    if cap is not None:
        weights |= {name: jnp.where(hidden, 0, x) for name, x in (("u", u), ("f", f))}
    bases = [A * inv, *([] if P is None else [P * inv])]
    return _Block(hidden, ell, weights, [jnp.where(hidden, 0, x) for x in bases], slope, bend)


def _alone(rows: Rows, tail: jax.Array, vocabulary: Vocabulary, lse: jax.Array) -> _Tail:
    inv, cap = rows.inv[:, None], vocabulary.cap
    block = _block(tail, rows.P, vocabulary.b, vocabulary.u, vocabulary.f, inv, lse, cap)

    def total(x: jax.Array) -> jax.Array:
        return x.sum(1, keepdims=True)

    def most(x: jax.Array, least: float = 0.0) -> jax.Array:
        return jnp.where(block.hidden, least, x).max(1, keepdims=True)

    def pairs(x: list[jax.Array], weight: jax.Array) -> list[list[jax.Array]]:
        return [[total(weight * y * z) for z in x] for y in x]

    def of(name: str, weight: jax.Array) -> _Alone:
        terms = block.terms(name, vocabulary.u)
        first = [total(weight * x) for x in terms]
        bent = [] if block.bend is None else pairs(block.bases, weight * block.bend)
        return _Alone(total(weight), first, pairs(terms, weight) if name in "qs" else [], bent)

    weights = {name: of(name, weight) for name, weight in block.weights.items()}
    mean = [x / jnp.maximum(weights["q"].total, TINY) for x in weights["q"].b]
    off = [most(jnp.abs(x - m)) for x, m in zip(block.terms("q", vocabulary.u), mean, strict=True)]
    target = jnp.take_along_axis(rows.A * inv + vocabulary.b, rows.target[:, None], 1)
    capped_tail = None
    if cap is not None:
        target = capped(target, cap)
        linear = {name: block.weights[name] for name in "uf"}
        capped_tail = _Capped(
            [most(jnp.abs(x)) for x in block.bases],
            -most(-block.slope, -1.0),
            {name: total(x * block.ell) for name, x in linear.items()},
            {name: [total(jnp.abs(x) * y * y) for y in block.bases] for name, x in linear.items()},
        )
    return _Tail(weights, off, most(block.ell, -jnp.inf), total(jnp.where(block.hidden, 0.0, block.ell > target)), capped_tail)


def _products(cap: float | None, tails: Any, offsets: Any, M: jax.Array, inv: jax.Array, lse: jax.Array) -> dict[str, _Products]:
    """`tails`: A and P in blocks, [B t v]; `offsets`: what each token has by itself, [B v]; M [B v n]; inv and lse [t 1]."""

    def factors(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What M and M² are multiplied with."""
        (A, P), (b, u, f) = x
        block = _block(A, P, b, u, f, inv, lse, cap)
        once, twice = {}, {}
        for name, weight in block.weights.items():
            sloped, square = weight * block.slope, name in "qs"
            bent = [] if block.bend is None else [weight * block.bend * y for y in block.bases]
            once[name] = sloped, [sloped * y for y in block.terms(name, u)] if square else [], bent
            twice[name] = sloped * block.slope if square else None, None if block.bend is None else weight * block.bend
        return once, twice

    def multiply(total: list[jax.Array], x: Any) -> tuple[list[jax.Array], None]:
        *of_tail, M = x
        leaves = [jax.tree.leaves(y) for y in factors(of_tail)]
        return [part + jnp.concatenate(y) @ z for part, y, z in zip(total, leaves, (M, M * M), strict=True)], None

    T, n = len(inv), M.shape[-1]
    shapes = jax.eval_shape(factors, jax.tree.map(lambda x: x[0], (tails, offsets)))
    start = [jnp.zeros((len(jax.tree.leaves(y)) * T, n)) for y in shapes]
    found = lax.scan(multiply, start, (tails, offsets, M))[0]
    once, twice = (jax.tree.unflatten(jax.tree.structure(y), x.reshape(-1, T, n)) for y, x in zip(shapes, found, strict=True))
    return {name: _Products(*once[name], *twice[name]) for name in once}


def _first(alone: _Alone, products: _Products, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """Σ w·D·p."""
    return c * products.M + sum(x * y for x, y in zip(k, alone.b, strict=False))


def _form(bb: list[list[jax.Array]], bM: list[jax.Array], MM: jax.Array, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """Σ w·p², where these are the sums with b·b, b·M and M²; coefficients of b that the weight does not have are left out."""
    k = k[: len(bM)]
    crossed = sum(x * y for x, y in zip(k, bM, strict=False))
    return c * c * MM + 2 * c * crossed + sum(k[i] * k[j] * bb[i][j] for i in range(len(k)) for j in range(len(k)))


def _bent(alone: _Alone, products: _Products, k: list[jax.Array], c: jax.Array) -> jax.Array | float:
    """Σ w·E·p²/2."""
    return 0.0 if products.bent_MM is None else _form(alone.bent, products.bent_bM, products.bent_MM, k, c) / 2


def _furthest(tail: _Capped, of_M: _Neurons, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """The largest |p| at most."""
    return jnp.abs(c) * jnp.maximum(-of_M.least, of_M.most) + sum(jnp.abs(x) * y for x, y in zip(k, tail.b_most, strict=False))


def _coefficients(cells: Cells, inv: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """κ of the total effect but for u, and its c."""
    rescaled = cells.inv_te / inv
    return [rescaled - 1, *([] if cells.beta is None else [cells.beta * rescaled])], cells.write * cells.inv_te


def _linear(
    name: str, tail: _Tail, products: dict[str, _Products], of_M: _Neurons, cells: Cells, inv: jax.Array, cap: float
) -> tuple[jax.Array, jax.Array]:
    """The tail's Σ w·z_te with u or f as the weight, and how far off it may be, [t n]."""
    assert tail.capped is not None
    k, c = _coefficients(cells, inv)
    alone, of = tail.weights[name], products[name]
    squares = c * c * of_M.squares[name] + sum(x * x * y for x, y in zip(k, tail.capped.squares[name], strict=True))
    off = (
        _furthest(tail.capped, of_M, k, c) / (3 * cap**2) * (1 + len(k)) * squares
    )  # p² is at most that often the sum of its terms' squares
    return tail.capped.along[name] + _first(alone, of, k, c) + _bent(alone, of, k, c), off


def _series(
    tail: _Tail, products: dict[str, _Products], of_M: _Neurons, cells: Cells, kappa: Any, inv: jax.Array, cap: float | None
) -> tuple[_Series, _Series, _Series]:
    """The total effect, that with the norm frozen, and that with the frequency direction frozen (whose G is not right, nor asked for)."""
    q, s = ((tail.weights[name], products[name]) for name in "qs")
    total = jnp.maximum(q[0].total, TINY)
    least, most = (of_M.least, of_M.most) if cap is None else (jnp.minimum(of_M.least, 0), jnp.maximum(of_M.most, 0))  # of D·M
    M_mean = q[1].M / total
    M_off = jnp.maximum(most - M_mean, M_mean - least)

    def one(k: list[jax.Array], c: jax.Array) -> _Series:
        mean = _first(*q, k, c) / total
        R = jnp.abs(c) * M_off + sum(jnp.abs(x) * y for x, y in zip(k, tail.b_off, strict=True))
        bend = p = jnp.float32(0)
        if tail.capped is not None and cap is not None:
            bend, p = jnp.float32(BEND / 2 / cap), _furthest(tail.capped, of_M, k, c)
            R += bend * p * p
        third = jnp.exp(R) * R / 6

        def moments(alone: _Alone, of: _Products) -> tuple[jax.Array, jax.Array, jax.Array]:
            """Σ w·x, Σ w·x², and what the series leaves out of Σ w·e^x at most."""
            first, square = _first(alone, of, k, c), _form(alone.bb, of.bM, of.MM, k, c)
            second = jnp.maximum(square - 2 * mean * first + mean * mean * alone.total, 0)
            off = third * second
            if tail.capped is not None and cap is not None:
                slope = tail.capped.slope
                squares = jnp.where(slope > 0, jnp.maximum(_form(alone.bb, of.bM, of.MM, k[:-1], c), 0) / slope**2, jnp.inf)
                squares = jnp.minimum(squares, p * p * alone.total)  # of p, at most
                off += (third * 2 * R * bend + p / (3 * cap**2) + bend * R) * squares
            return first + _bent(alone, of, k, c) - mean * alone.total, second, off

        Q1, Q2, Q_off = moments(*q)
        S1, S2, S_off = moments(*s)
        Q = q[0].total + Q1 + Q2 / 2
        G = s[0].total + S1 + S2 / 2 - mean * Q - (Q1 + Q2)
        # Far outside the series' reach weights that were too small to be held could count.
        scale = jnp.exp(mean)
        off = jnp.where(mean + R < REACH, scale, jnp.inf)
        return _Series(scale * Q, scale * G, off * Q_off, off * (S_off + (jnp.abs(mean) + 3) * Q_off), mean + R)

    (k, c), zero = _coefficients(cells, inv), jnp.zeros_like(cells.write)
    frozen = [] if cells.beta is None else [cells.beta]
    return one([*k, zero], c), one([zero, *frozen, zero], cells.write * inv), one([*k, kappa], c)


def _joined(
    raw: Raw,
    series: tuple[_Series, _Series, _Series],
    alone: _Tail,
    lse: jax.Array,
    z_top: tuple[jax.Array, ...],
    z_target: tuple[jax.Array, ...],
    same: jax.Array,
    n_tail: int,
    mean_f: jax.Array | None,
    off_fr: jax.Array,
    off_kl: jax.Array,
) -> tuple[Sums, Certainty]:
    """Head, tail, and the two tokens that neither holds. `off_fr` and `off_kl`: by how much Σ u·z and Σ f·z may put loss and divergence off."""
    te, ln, fr = series
    reached = alone.top + te.most
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
            raw.counts + jnp.where(reached < z_target[0], 0, alone.above),
        ),
        z_top,
        z_target,
        same,
        z_top,
        mean_f,
    )

    def bounds(x: _Series, after: jax.Array, mean: jax.Array | None) -> jax.Array:
        share = jnp.exp(lse - after)
        off = share * x.S_error
        bound = -jnp.log1p(-jnp.minimum(off, 1))
        if mean is not None:  # entropy = log S + G/S
            bound = jnp.maximum(bound, (off * jnp.abs(1 - (lse - mean)) + share * x.G_error) / (1 - off) + (off / (1 - off)) ** 2)
        # Where all that was likely has sunk out of sight, weights that were too small to be held could count.
        return jnp.where((off < 0.5) & jnp.isfinite(after) & (lse - after < REACH), bound, jnp.inf)

    bound = jnp.maximum(bounds(te, sums.lse_te, sums.mean_te) + off_kl, bounds(ln, sums.lse_ln, sums.mean_ln))
    bound = jnp.maximum(bound, bounds(fr, sums.lse_fr, None) + off_fr)
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
    along_u: jax.Array | None,
    cells: Cells,
    M: jax.Array,
    vocabulary: Vocabulary,
) -> tuple[Sums, Certainty]:
    """The sums of all positions and a block of neurons, in which the `bad` pairs [t n] are computed again with every token.

    `every`: of every token A and P, [t c U ABREAST], and what it has by itself, [1 c U ABREAST]; M [v n].
    """
    A, P, *offsets = every
    M_rows = _every_token(M.T)
    count = bad.sum()
    listed = jnp.pad(jnp.nonzero(bad.ravel(), size=bad.size, fill_value=0)[0], (0, PAIRS))

    def some(state: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
        begin, sums = state
        pair = lax.dynamic_slice(listed, (begin,), (PAIRS,))
        t, n = pair // bad.shape[1], pair % bad.shape[1]

        def sweep(start: Any, step: Any, merge: Any) -> Any:
            def chunk(carry: Any, c: jax.Array) -> tuple[Any, None]:
                rows = (A[t, c], None if P is None else P[t, c], M_rows[n, c], *(x[:, c] for x in offsets))  # pairs U ABREAST
                return step(carry, Token(*jax.tree.map(lambda x: x.transpose(1, 0, 2), rows))), None

            abreast = jax.tree.map(lambda x: jnp.broadcast_to(x, (PAIRS, ABREAST)), start)
            total, width = lax.scan(chunk, abreast, jnp.arange(A.shape[1]))[0], ABREAST
            while width > 1:
                width //= 2
                total = merge(*(jax.tree.map(lambda x, side=side: x[:, side], total) for side in (slice(width), slice(width, None))))
            return total

        def of_pairs(x: jax.Array) -> jax.Array:  # of [t n], or of what is the same for all n
            return jnp.broadcast_to(x, bad.shape)[t, n][:, None]

        tile = Tile.of(jax.tree.map(of_pairs, cells), of_pairs(inv), vocabulary.cap)
        of = jax.tree.map(lambda x: x[t], named)
        tokens = at_tokens(of, [M[i[:, 0], n][:, None] for i in of.ids], vocabulary)
        exact = swept(sweep, tile, tokens, of.ids[0] == of.ids[1], jax.tree.map(of_pairs, along_u))
        place = jnp.where(begin + jnp.arange(PAIRS) < count, pair, bad.size)
        return begin + PAIRS, jax.tree.map(lambda x, y: x.ravel().at[place].set(y[:, 0], mode="drop").reshape(x.shape), sums, exact)

    sums = lax.while_loop(lambda state: state[0] < count, some, (jnp.int32(0), sums))[1]
    return sums, Certainty(jnp.where(bad, 0, certainty.bound), jnp.where(bad, 0, certainty.rr_bound), bad)
