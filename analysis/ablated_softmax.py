"""The sums over the vocabulary that every single-neuron ablation needs, streamed in plain XLA so that no logits are ever stored.

Letters: t position, n neuron, d width, v vocabulary; c chunk of U tokens, B block of chunks. For each (t, n), with δ the change of the
neuron's activation and M_n = w_n·W_U,

    z_te = A_t/σ' + (δ/σ')·M_n + b      total effect, σ' the norm's scale after the ablation
    z_ln = A_t/σ  + (δ/σ)·M_n  + b      norm frozen
    z_fr = z_te + κ·u                   frequency frozen

What makes it fast on a CPU, all of it measured: the vocabulary is the outermost loop, so a [t n] tile of accumulators stays in cache with
neurons in the vector lanes; U tokens are unrolled into one elementwise fusion; and a sum of e^z and one of z·e^z travel as the two halves
of a complex number, because XLA emits one loop per output and would compute the exponential once for each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BLOCK_T, BLOCK_N, BLOCK_V, UNROLL = 256, 64, 1024, 32
FAR = -1e20  # a logit of no weight that stays finite when it is multiplied


def compiler_options() -> dict[str, int]:
    """For the outermost `jax.jit`, which alone takes them: left to itself, XLA's CPU compiler uses half of AVX-512's vectors."""
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}


class Sums(NamedTuple):
    """Per position and neuron, [t n]."""

    lse_te: jax.Array  # log Σ e^z, nats
    mean_te: jax.Array  # the expectation of z under its own softmax; entropy = lse − mean
    lse_ln: jax.Array
    mean_ln: jax.Array
    lse_fr: jax.Array
    n_above_target: jax.Array  # int32: tokens with a z_te above the target's
    top_changed: jax.Array  # bool: some token's z_te exceeds that of the unablated most likely token


class _Tile(NamedTuple):
    """The coefficients of z for one block of positions and neurons; [t n], but inv_ln [t]."""

    inv_te: jax.Array  # 1/σ'
    inv_ln: jax.Array  # 1/σ
    write_te: jax.Array  # δ/σ'
    write_ln: jax.Array  # δ/σ
    kappa: jax.Array

    def logits(self, a: jax.Array, m: jax.Array, b: Any, u: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """z_te, z_ln, z_fr [t n] of a token, or of one token per position: a [t], m [n] or [t n], b and u scalars or [t 1]."""
        z_te = a[:, None] * self.inv_te + self.write_te * m + b
        return z_te, (a * self.inv_ln)[:, None] + b + self.write_ln * m, z_te + self.kappa * u


class _Chunk(NamedTuple):
    """U tokens: A [c t], M [c n], b and u [c]."""

    a: jax.Array
    m: jax.Array
    b: jax.Array
    u: jax.Array


def ablated_softmax(
    A: jax.Array,
    w: jax.Array,
    W_U: jax.Array,
    b: jax.Array,
    u: jax.Array,
    inv: jax.Array,
    inv_te: jax.Array,
    delta: jax.Array,
    kappa: jax.Array,
    target: jax.Array,
    top: jax.Array,
) -> Sums:
    """All sums for A [t v], w [n d], W_U [d v], b and u [v], inv = 1/σ [t], inv_te = 1/σ' [t n], δ [t n], κ [t n], and the token ids
    target and top (the unablated argmax), int [t]. Float32; exact up to rounding. Do not vmap it: its second attempt would always run.
    """
    (T, V), (N, d) = A.shape, w.shape
    block_t, block_n = min(BLOCK_T, T), min(BLOCK_N, N)
    n_t, n_n, n_v = -(-T // block_t), -(-N // block_n), -(-V // BLOCK_V)
    chunks = -(-V // (n_v * UNROLL))
    size_t, size_n, size_v = n_t * block_t, n_n * block_n, n_v * chunks * UNROLL

    # The target and the top token leave the stream and are added by hand, so that neither is ever compared with itself.
    t = jnp.arange(T)
    A_top, A_target = A[t, top], A[t, target]
    A = A.at[t, top].set(FAR / inv).at[t, target].set(FAR / inv)

    A = _pad(A.T, size_v, size_t).reshape(n_v, chunks, UNROLL, n_t, block_t).transpose(3, 0, 1, 2, 4)  # t-blocks B c U t
    stream = (
        _pad(W_U.T, size_v, d).reshape(n_v, chunks * UNROLL, d),
        _pad(b, size_v, value=FAR).reshape(n_v, chunks, UNROLL),
        _pad(u, size_v).reshape(n_v, chunks, UNROLL),
    )
    rows = [_pad(x, size_t).reshape(n_t, block_t) for x in (A_top, A_target, top, target)]
    rows.append(_pad(inv, size_t, value=1.0).reshape(n_t, block_t))
    cells = [_pad(x, size_t, size_n, value=fill) for x, fill in ((inv_te, 1.0), (delta, 0.0), (kappa, 0.0))]
    cells = [x.reshape(n_t, block_t, n_n, block_n).transpose(0, 2, 1, 3) for x in cells]  # t-blocks n-blocks t n
    writes = _pad(w, size_n, d).reshape(n_n, block_n, d)

    def one_tile(A: jax.Array, row: list[jax.Array], cell: list[jax.Array], w: jax.Array) -> Sums:
        A_top, A_target, top, target, inv = row
        inv_te, delta, kappa = cell
        tile = _Tile(inv_te, inv, delta * inv_te, delta * inv[:, None], kappa)

        def of_token(a: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            return tile.logits(a, W_U.T[token] @ w.T, b[token][:, None], u[token][:, None])

        z_top, z_target = of_token(A_top, top), of_token(A_target, target)
        return _tile_sums(A, stream, w, tile, z_top, z_target, (top == target)[:, None])

    def one_row(block: Any) -> Sums:
        A, row, cell = block
        return lax.map(lambda x: one_tile(A, row, x[0], x[1]), (cell, writes))

    with jax.default_matmul_precision("highest"):
        sums = lax.map(one_row, (A, rows, cells))  # t-blocks n-blocks t n
    return jax.tree.map(lambda x: x.transpose(0, 2, 1, 3).reshape(size_t, size_n)[:T, :N], sums)


def _pad(x: jax.Array, *sizes: int, value: float = 0.0) -> jax.Array:
    return jnp.pad(x, [(0, size - n) for size, n in zip(sizes, x.shape, strict=True)], constant_values=value)


def _tile_sums(
    A: jax.Array,
    stream: tuple[jax.Array, jax.Array, jax.Array],
    w: jax.Array,
    tile: _Tile,
    z_top: tuple[jax.Array, ...],
    z_target: tuple[jax.Array, ...],
    same: jax.Array,
) -> Sums:
    """One tile: `z_top` and `z_target` are the three logits of the two tokens that the stream leaves out; `same` where they are one."""

    def sweep(start: Any, step: Callable[[Any, _Chunk], Any], merge: Callable[[Any, Any], Any]) -> Any:
        """Fold `step` over the chunks of each block of the vocabulary, and `merge` over the blocks, which keeps sums short and exact."""

        def block(total: Any, x: Any) -> tuple[Any, None]:
            A, W, b, u = x
            M = (W @ w.T).reshape(*b.shape, len(w))
            part, _ = lax.scan(lambda carry, chunk: (step(carry, _Chunk(*chunk)), None), start, (A, M, b, u))
            return merge(total, part), None

        return lax.scan(block, start, (A, *stream))[0]

    def sums(shifts: tuple[jax.Array, ...]) -> Sums:
        zero = jnp.zeros_like(tile.inv_te)
        packed = lax.complex(zero, zero)

        def step(carry: Any, chunk: _Chunk) -> Any:
            te, ln, fr, counts = carry
            return (
                te + _exponentials_te(chunk, tile, shifts[0]),
                ln + _exponentials_ln(chunk, tile, shifts[1]),
                fr + _exponentials_fr(chunk, tile, shifts[2]),
                _add_counts(counts, _counts(chunk, tile, z_top[0], z_target[0])),
            )

        def merge(x: Any, y: Any) -> Any:
            return x[0] + y[0], x[1] + y[1], x[2] + y[2], _add_counts(x[3], y[3])

        te, ln, fr, counts = sweep((packed, packed, zero, zero), step, merge)
        S, Q = [lax.real(te), lax.real(ln), fr], [lax.imag(te), lax.imag(ln)]
        for z, counted in ((z_top, True), (z_target, ~same)):
            e = [jnp.where(counted, jnp.exp(z[i] - shifts[i]), 0) for i in range(3)]
            S = [S[i] + e[i] for i in range(3)]
            Q = [Q[i] + jnp.where(counted, (z[i] - shifts[i]) * e[i], 0) for i in range(2)]
        above = jnp.floor(counts)
        return Sums(
            lse_te=shifts[0] + jnp.log(S[0]),
            mean_te=shifts[0] + Q[0] / S[0],
            lse_ln=shifts[1] + jnp.log(S[1]),
            mean_ln=shifts[1] + Q[1] / S[1],
            lse_fr=shifts[2] + jnp.log(S[2]),
            n_above_target=(above + (~same & (z_top[0] > z_target[0]))).astype(jnp.int32),
            top_changed=(counts > above) | (~same & (z_target[0] > z_top[0])),
        )

    def maxima() -> tuple[jax.Array, ...]:
        start = (jnp.full_like(tile.inv_te, -jnp.inf),) * 3
        largest = sweep(start, lambda carry, chunk: _maxima(carry, chunk, tile), lambda x, y: tuple(map(jnp.maximum, x, y)))
        return tuple(jnp.maximum(jnp.maximum(z, a), c) for z, a, c in zip(largest, z_top, z_target, strict=True))

    # The shift is the logit of the unablated top token: a lower bound of the largest, and its own term keeps the sum at 1 or more. Only
    # where some logit rises some 80 nats above it do the sums overflow; then the tile is done again with the true maxima.
    def attempt(state: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
        tries, _ = state
        return tries + 1, sums(lax.cond(tries == 0, lambda: z_top, maxima))

    def unfinished(state: tuple[jax.Array, Sums]) -> jax.Array:
        tries, found = state
        finite = jnp.isfinite(found.lse_te + found.mean_te + found.lse_ln + found.mean_ln + found.lse_fr).all()
        return (tries == 0) | ((tries == 1) & ~finite)

    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums, z_top))
    return lax.while_loop(unfinished, attempt, (jnp.int32(0), empty))[1]


def _exponentials_te(chunk: _Chunk, tile: _Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q + i·Σ q·e^q over the chunk, q = z_te − shift."""
    S: Any = 0.0
    Q: Any = 0.0
    for j in range(UNROLL):
        a, written, offset = chunk.a[j][:, None], tile.write_te * chunk.m[j], chunk.b[j] - shift
        e = jnp.exp((a * tile.inv_te + written) + offset)
        # The factor is q again in another order: were it the same expression, XLA would store every q instead of forming it twice.
        S, Q = S + e, Q + ((a * tile.inv_te + offset) + written) * e
    return lax.complex(S, Q)


def _exponentials_ln(chunk: _Chunk, tile: _Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q + i·Σ q·e^q over the chunk, q = z_ln − shift."""
    S: Any = 0.0
    Q: Any = 0.0
    for j in range(UNROLL):
        unablated, written = (chunk.a[j] * tile.inv_ln + chunk.b[j])[:, None], tile.write_ln * chunk.m[j]
        e = jnp.exp((unablated + written) - shift)
        S, Q = S + e, Q + ((unablated - shift) + written) * e
    return lax.complex(S, Q)


def _exponentials_fr(chunk: _Chunk, tile: _Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q over the chunk, q = z_fr − shift."""
    S: Any = 0.0
    for j in range(UNROLL):
        offset = tile.kappa * chunk.u[j] - shift
        S = S + jnp.exp(chunk.a[j][:, None] * tile.inv_te + tile.write_te * chunk.m[j] + chunk.b[j] + offset)
    return S


def _counts(chunk: _Chunk, tile: _Tile, z_top: jax.Array, z_target: jax.Array) -> jax.Array:
    """How many z_te lie above the target's, plus ½ if any lies above the top token's."""
    above: Any = 0.0
    beaten: Any = False
    for j in range(UNROLL):
        z = chunk.a[j][:, None] * tile.inv_te + tile.write_te * chunk.m[j] + chunk.b[j]
        above, beaten = above + jnp.where(z > z_target, 1.0, 0.0), beaten | (z > z_top)
    return above + jnp.where(beaten, 0.5, 0.0)


def _add_counts(x: jax.Array, y: jax.Array) -> jax.Array:
    """The whole parts add, the halves mean "or"."""
    whole_x, whole_y = jnp.floor(x), jnp.floor(y)
    return whole_x + whole_y + jnp.maximum(x - whole_x, y - whole_y)


def _maxima(largest: tuple[jax.Array, ...], chunk: _Chunk, tile: _Tile) -> tuple[jax.Array, ...]:
    for j in range(UNROLL):
        z = tile.logits(chunk.a[j], chunk.m[j], chunk.b[j], chunk.u[j])
        largest = tuple(map(jnp.maximum, largest, z))
    return largest
