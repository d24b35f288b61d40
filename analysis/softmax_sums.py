"""The sums over the vocabulary for a tile of cells. Both engines use these steps, each with its own order of tokens.

Letters: t position, n neuron, d width, v vocabulary; U tokens that are summed together. A cell is a pair (t, n). For
each cell, let c be the change along the neuron's write direction, M_n = w_n·W_U, and β·P what the ablation adds beside
it in models with a norm after the MLP (see `jaxconf.analysis.effects`). Then

    z_te = (A_t + β·P_t + c·M_n)/σ' + b      total effect, σ' the norm's scale after the ablation
    z_ln = (A_t + β·P_t + c·M_n)/σ  + b      norm frozen
    z_fr = z_te + κ·u                        frequency frozen

Where logits are soft-capped, z_te and z_ln are cap·tanh(z/cap) of these. Sums that are linear in z, such as the Σ u·z
that κ depends on, then do not follow from A and M, and are computed over the vocabulary as well.

U tokens are unrolled into one elementwise fusion. Σ e^z and Σ z·e^z are the two halves of one complex number, because
XLA emits one loop for each output and would compute the exponential in each. Both were measured on a CPU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxconf.models.softcap import capped

FAR = -1e20  # the logit of a token that must have no weight; products with it stay finite
NEVER = -1e9  # the logits of tokens that count are never below this


class Rows(NamedTuple):
    """The unablated model at each position, its target and its most likely token."""

    A: jax.Array  # t v
    P: jax.Array | None  # t v, with a norm after the MLP
    inv: jax.Array  # t: 1/σ
    target: jax.Array  # int t: the token that follows
    top: jax.Array  # int t: the most likely token
    along_u: jax.Array | None = None  # t: Σ u·z, for soft-capped logits


class Cells(NamedTuple):
    """Each neuron's ablation at each position, [t n]."""

    inv_te: jax.Array  # 1/σ'
    beta: jax.Array | None  # with a norm after the MLP
    write: jax.Array  # c
    kappa: jax.Array | None  # None if logits are soft-capped


@struct.dataclass
class Vocabulary:
    """The arrays over the vocabulary that all positions and neurons share."""

    W_U: jax.Array  # d v
    b: jax.Array  # v
    u: jax.Array  # v: the frequency direction
    f: jax.Array  # v: the frequencies
    cap: float | None = struct.field(default=None, pytree_node=False)  # of the logits


class Sums(NamedTuple):
    """The sums for each position and neuron, [t n], or for each set, window and position, [c s q]."""

    lse_te: jax.Array  # log Σ e^z, nats
    mean_te: jax.Array  # the expectation of z under its own softmax; entropy = lse − mean
    lse_ln: jax.Array
    mean_ln: jax.Array
    lse_fr: jax.Array
    target_te: jax.Array  # z of the target
    target_ln: jax.Array
    target_fr: jax.Array
    mean_f: jax.Array | None  # Σ f·z_te, for soft-capped logits and for sets
    n_above_target: jax.Array  # int32: tokens with a z_te above the target's
    top_changed: jax.Array  # bool: some token's z_te exceeds that of the unablated most likely token


class Token(NamedTuple):
    """The entries of A, P, M, b, u and f for a token at every cell, or for U tokens along a first axis.

    Each is [t n], or has a 1 for t or n.
    """

    a: jax.Array
    p: jax.Array | None
    m: jax.Array
    b: jax.Array
    u: jax.Array
    f: jax.Array


@struct.dataclass
class Tile:
    """The coefficients of z for a block of cells; [t n], but inv_ln may have a 1 for n."""

    inv_te: jax.Array  # 1/σ'
    inv_ln: jax.Array  # 1/σ
    beta: jax.Array | None
    write_te: jax.Array  # c/σ'
    write_ln: jax.Array  # c/σ
    kappa: jax.Array | None
    cap: float | None = struct.field(pytree_node=False)

    @classmethod
    def of(cls, cells: Cells, inv: jax.Array, cap: float | None) -> "Tile":
        return cls(cells.inv_te, inv, cells.beta, cells.write * cells.inv_te, cells.write * inv, cells.kappa, cap)

    def unwritten(self, token: Token) -> jax.Array:
        """A + β·P."""
        return token.a if token.p is None or self.beta is None else token.a + self.beta * token.p

    def capped(self, z: jax.Array) -> jax.Array:
        """The soft-capped z; logits of tokens without weight are returned unchanged."""
        return z if self.cap is None else jnp.where(z < NEVER, z, capped(z, self.cap))

    def te(self, token: Token) -> jax.Array:
        return self.capped(self.unwritten(token) * self.inv_te + self.write_te * token.m + token.b)

    def ln(self, token: Token) -> jax.Array:
        return self.capped(self.unwritten(token) * self.inv_ln + token.b + self.write_ln * token.m)

    def logits(self, token: Token) -> tuple[jax.Array, jax.Array, jax.Array]:
        """z_te, z_ln, z_fr [t n]."""
        z_te = self.te(token)
        return z_te, self.ln(token), z_te + self.back(token)

    def back(self, token: Token) -> jax.Array:
        """z_fr − z_te, which is κ·u."""
        assert self.kappa is not None
        return self.kappa * token.u


class Raw(NamedTuple):
    """Sums of e^q, q = z minus a shift, [t n]; those of e^q and q·e^q are the halves of one complex number."""

    te: jax.Array
    ln: jax.Array
    fr: jax.Array
    counts: jax.Array  # see `_counts`


Sweep = Callable[[Any, Callable[[Any, Token], Any], Callable[[Any, Any], Any]], Any]
"""sweep(start, step, merge): folds `step` over U tokens at a time, and `merge` over the results of blocks of tokens.

Sums then have few terms, and so little rounding error.
"""


class Named(NamedTuple):
    """The top token and the target. A sweep leaves them out, so that neither is compared with itself."""

    ids: tuple[jax.Array, jax.Array]  # of the top token and of the target
    a: tuple[jax.Array, jax.Array]
    p: tuple[jax.Array, jax.Array] | None


def named_tokens(rows: Rows) -> Named:
    """The top token and the target of each position; each entry is [t]."""
    t = jnp.arange(len(rows.A))

    def of(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x[t, rows.top], x[t, rows.target]

    return Named((rows.top, rows.target), of(rows.A), None if rows.P is None else of(rows.P))


def without_named(rows: Rows) -> jax.Array:
    """A [t v] in which the top token and the target have no weight."""
    t = jnp.arange(len(rows.A))
    return rows.A.at[t, rows.top].set(FAR / rows.inv).at[t, rows.target].set(FAR / rows.inv)


def at_tokens(named: Named, written: list[jax.Array], vocabulary: Vocabulary) -> list[Token]:
    """The two named tokens at every cell. `written`: the M of each."""
    p = named.p or (None, None)
    return [
        Token(named.a[i], p[i], written[i], *(x[ids] for x, _ in each_token(vocabulary)))
        for i, ids in enumerate(named.ids)
    ]


def each_token(vocabulary: Vocabulary) -> tuple[tuple[jax.Array, float], ...]:
    """The last fields of `Token`, b, u and f, of every token, each with its value for tokens that fill up a block."""
    return (vocabulary.b, FAR), (vocabulary.u, 0.0), (vocabulary.f, 0.0)


def pad(x: jax.Array, *sizes: int, value: float = 0.0) -> jax.Array:
    return jnp.pad(x, [(0, size - n) for size, n in zip(sizes, x.shape, strict=True)], constant_values=value)


def swept(sweep: Sweep, tile: Tile, named: list[Token], same: jax.Array, along_u: jax.Array | None) -> Sums:
    """The sums of a tile. `sweep` leaves the two `named` tokens out; `same`: where these two are the same token."""
    mean_f = None
    if along_u is not None:
        along, mean_f = linear_sums(sweep, tile, named, same)
        tile = dataclasses.replace(tile, kappa=along_u - along)
    z_top, z_target = (tile.logits(token) for token in named)

    def sums(shifts: tuple[jax.Array, ...]) -> Sums:
        return finished(raw_sums(sweep, tile, z_top, z_target, shifts), z_top, z_target, same, shifts, mean_f)

    def maxima(_: Sums) -> tuple[jax.Array, ...]:
        start = (jnp.full_like(tile.inv_te, -jnp.inf),) * 3
        largest = sweep(
            start, lambda carry, tokens: _maxima(carry, tokens, tile), lambda x, y: tuple(map(jnp.maximum, x, y))
        )
        return tuple(jnp.maximum(jnp.maximum(z, a), c) for z, a, c in zip(largest, z_top, z_target, strict=True))

    return attempted(
        sums, z_top, maxima, lambda found: found.lse_te + found.mean_te + found.lse_ln + found.mean_ln + found.lse_fr
    )


def attempted(
    sums: Callable[[Any], Any], shift: Any, maxima: Callable[[Any], Any], checked: Callable[[Any], jax.Array]
) -> Any:
    """The sums of e^(z − shift) at the shifts where they are finite: these, or the true maxima of z.

    `shift`: the logit of a token whose own term keeps the sum at 1 or more. Sums overflow only where a logit is some 80
    nats above it, or 40 if there are sums of squares; all are then computed again with the maxima. `maxima`: gives
    these, from what the first attempt found. `checked`: what is finite if the sums are.
    """

    def attempt(state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        tries, found = state
        return tries + 1, sums(lax.cond(tries == 0, lambda _: shift, maxima, found))

    def unfinished(state: tuple[jax.Array, Any]) -> jax.Array:
        tries, found = state
        return (tries == 0) | ((tries == 1) & ~jnp.isfinite(checked(found)).all())

    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums, shift))
    return lax.while_loop(unfinished, attempt, (jnp.int32(0), empty))[1]


def linear_sums(sweep: Sweep, tile: Tile, named: list[Token], same: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Σ u·z_te and Σ f·z_te, [t n]."""
    zero = jnp.zeros_like(tile.inv_te)
    packed = sweep(lax.complex(zero, zero), lambda carry, tokens: carry + _linear(tokens, tile), jnp.add)
    along, mean = lax.real(packed), lax.imag(packed)
    for token, once in zip(named, (jnp.bool(False), same), strict=True):
        z = jnp.where(once, 0, tile.te(token))
        along, mean = along + token.u * z, mean + token.f * z
    return along, mean


def raw_sums(
    sweep: Sweep,
    tile: Tile,
    z_top: tuple[jax.Array, ...],
    z_target: tuple[jax.Array, ...],
    shifts: tuple[jax.Array, ...],
) -> Raw:
    """The sums over the tokens of `sweep`."""
    zero = jnp.zeros_like(tile.inv_te)
    packed = lax.complex(zero, zero)

    def step(carry: Raw, tokens: Token) -> Raw:
        return Raw(
            carry.te + _exponentials_te(tokens, tile, shifts[0]),
            carry.ln + _exponentials_ln(tokens, tile, shifts[1]),
            carry.fr + _exponentials_fr(tokens, tile, shifts[2]),
            _add_counts(carry.counts, _counts(tokens, tile, z_top[0], z_target[0])),
        )

    def merge(x: Raw, y: Raw) -> Raw:
        return Raw(x.te + y.te, x.ln + y.ln, x.fr + y.fr, _add_counts(x.counts, y.counts))

    return sweep(Raw(packed, packed, zero, zero), step, merge)


def finished(
    raw: Raw,
    z_top: tuple[jax.Array, ...],
    z_target: tuple[jax.Array, ...],
    same: jax.Array,
    shifts: tuple[jax.Array, ...],
    mean_f: jax.Array | None,
) -> Sums:
    """The sums over all tokens: `raw`, and the two tokens that the sweep left out."""
    S, Q = [lax.real(raw.te), lax.real(raw.ln), raw.fr], [lax.imag(raw.te), lax.imag(raw.ln)]
    for z, counted in ((z_top, True), (z_target, ~same)):
        e = [jnp.where(counted, jnp.exp(z[i] - shifts[i]), 0) for i in range(3)]
        S = [S[i] + e[i] for i in range(3)]
        Q = [Q[i] + jnp.where(counted, (z[i] - shifts[i]) * e[i], 0) for i in range(2)]
    above = jnp.floor(raw.counts)
    return Sums(
        lse_te=shifts[0] + jnp.log(S[0]),
        mean_te=shifts[0] + Q[0] / S[0],
        lse_ln=shifts[1] + jnp.log(S[1]),
        mean_ln=shifts[1] + Q[1] / S[1],
        lse_fr=shifts[2] + jnp.log(S[2]),
        target_te=z_target[0],
        target_ln=z_target[1],
        target_fr=z_target[2],
        mean_f=mean_f,
        n_above_target=(above + (~same & (z_top[0] > z_target[0]))).astype(jnp.int32),
        top_changed=(raw.counts > above) | (~same & (z_target[0] > z_top[0])),
    )


def _tokens(tokens: Token) -> list[Token]:
    return [jax.tree.map(lambda x, j=j: x[j], tokens) for j in range(len(tokens.m))]


def _exponentials_te(tokens: Token, tile: Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q + i·Σ q·e^q over the tokens, q = z_te − shift."""
    S: Any = 0.0
    Q: Any = 0.0
    for token in _tokens(tokens):
        a, written = tile.unwritten(token), tile.write_te * token.m
        e = jnp.exp(tile.capped((a * tile.inv_te + written) + token.b) - shift)
        # The factor is q in another order of operations: XLA would store every q if it saw the same expression twice.
        S, Q = S + e, Q + (tile.capped((a * tile.inv_te + token.b) + written) - shift) * e
    return lax.complex(S, Q)


def _exponentials_ln(tokens: Token, tile: Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q + i·Σ q·e^q over the tokens, q = z_ln − shift."""
    S: Any = 0.0
    Q: Any = 0.0
    for token in _tokens(tokens):
        a, written = tile.unwritten(token), tile.write_ln * token.m
        e = jnp.exp(tile.capped((a * tile.inv_ln + token.b) + written) - shift)
        S, Q = S + e, Q + (tile.capped((a * tile.inv_ln + written) + token.b) - shift) * e
    return lax.complex(S, Q)


def _exponentials_fr(tokens: Token, tile: Tile, shift: jax.Array) -> jax.Array:
    """Σ e^q over the tokens, q = z_fr − shift."""
    S: Any = 0.0
    for token in _tokens(tokens):
        S = S + jnp.exp(tile.te(token) + (tile.back(token) - shift))
    return S


def _linear(tokens: Token, tile: Tile) -> jax.Array:
    """Σ u·z_te + i·Σ f·z_te over the tokens that have weight."""
    u: Any = 0.0
    f: Any = 0.0
    for token in _tokens(tokens):
        a, written = tile.unwritten(token), tile.write_te * token.m
        z, again = (
            tile.capped((a * tile.inv_te + written) + token.b),
            tile.capped((a * tile.inv_te + token.b) + written),
        )
        u, f = u + jnp.where(z < NEVER, 0, z) * token.u, f + jnp.where(again < NEVER, 0, again) * token.f
    return lax.complex(u, f)


def _counts(tokens: Token, tile: Tile, z_top: jax.Array, z_target: jax.Array) -> jax.Array:
    """How many z_te lie above the target's, plus ½ if any lies above the top token's."""
    above: Any = 0.0
    beaten: Any = False
    for token in _tokens(tokens):
        z = tile.te(token)
        above, beaten = above + jnp.where(z > z_target, 1.0, 0.0), beaten | (z > z_top)
    return above + jnp.where(beaten, 0.5, 0.0)


def _add_counts(x: jax.Array, y: jax.Array) -> jax.Array:
    """The counts of both, as in `_counts`: the sum of the whole parts, plus ½ if either has a half."""
    whole_x, whole_y = jnp.floor(x), jnp.floor(y)
    return whole_x + whole_y + jnp.maximum(x - whole_x, y - whole_y)


def _maxima(largest: tuple[jax.Array, ...], tokens: Token, tile: Tile) -> tuple[jax.Array, ...]:
    # Seldom needed, so that a short program matters more than a fast one.
    return tuple(jnp.maximum(x, z.max(0)) for x, z in zip(largest, tile.logits(tokens), strict=True))
