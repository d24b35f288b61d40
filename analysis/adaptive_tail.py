"""The sums over a position's tail, its unlikely tokens, after an ablation: from moments of the tail, with error bounds.

Letters: t position, n neuron, v vocabulary, d width.

An ablation adds to the unablated logits ℓ of position t

    p = Σ_i κ_i·b_i + c·M_n     b: A/σ (κ: by how much 1/σ changes), P/σ and u, the same for all neurons
                                c, κ: a number for each (t, n)

On the tail, with weights q = e^ℓ/Σe^ℓ, p has a mean p̄, and x = p − p̄ is small. So

    Σ q·e^p   = e^p̄·Σ q·(1 + x + x²/2 + …)
    Σ s·e^p   = e^p̄·Σ s·(1 + x + x²/2 + …)          s = −q·log q
    Σ q·p·e^p = e^p̄·Σ q·(p̄ + (1 + p̄)·x + (1 + p̄/2)·x² + …)

need only the moments of q and s with b, b², bM, M and M². These are matrix products of tail × neurons, which all
effects share. `jaxconf.analysis.adaptive_error` says what is taken for the terms beyond x², and bounds its error.

Soft-capped logits change by

    g(p) = cap·tanh((y + p)/cap) − cap·tanh(y/cap) = D·p + E·p²/2 + …

with D = g'(0), E = g''(0) and y the logit before the cap; the further terms are at most |p|³/(3·cap²). Then p̄ is the
mean of D·p, x is D·p − p̄, and E·p²/2 is added to x where x has the power 1. The moments are those with D·b, D·M, E·b²,
E·bM and E·M². Σ u·z and Σ f·z, which are no longer bilinear in A and M, follow from the same moments with the weights u
and f.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconf.analysis.adaptive_error import Left, Moments, beyond
from jaxconf.analysis.softmax_sums import NEVER, Cells

REACH = 40  # nats; weights that underflow to 0 in float32 are negligible even if they grow by a factor of e^40
TINY = 1e-30
ROUNDED = 1.01 * 2.0**-7  # the largest relative error of a product of two positive numbers, each rounded to bfloat16
BEND = 4 / 27**0.5  # the largest |E|, times the cap


class Alone(NamedTuple):
    """Sums over a position's tail with one of the weights q, s, u and f, before any neuron is ablated; [t 1] each.

    The lists have an entry for each b. The last b, u, is there only for the weight q; the others do not need it.
    """

    total: jax.Array
    b: list[jax.Array]  # of D·b
    bb: list[list[jax.Array]]  # of D²·b·b
    bent: list[list[jax.Array]]  # of E·b·b


class Tail(NamedTuple):
    """The tail of each position before any neuron is ablated, [t 1]."""

    weights: dict[str, Alone]
    b_off: list[jax.Array]  # the largest |D·b − its mean|
    top: jax.Array  # the largest ℓ
    above: jax.Array  # how many ℓ lie above the target's
    capped: "Capped | None"


class Capped(NamedTuple):
    """Further numbers of the tail that soft-capped logits need, [t 1]."""

    b_most: list[jax.Array]  # the largest |b|
    slope: jax.Array  # the smallest D
    along: dict[str, jax.Array]  # Σ u·ℓ and Σ f·ℓ
    squares: dict[str, list[jax.Array]]  # Σ |u|·b² and Σ f·b²


class Along(NamedTuple):
    """Sums as in `Alone` that are linear in a neuron's M, or in W_U; [t n] or [t d] each."""

    M: jax.Array  # of D·M
    bM: list[jax.Array]  # of D²·b·M
    bent_bM: list[jax.Array]  # of E·b·M


class Squares(NamedTuple):
    """Sums as in `Alone` with M², [t n]."""

    MM: Any  # of D²·M²; None where it is not needed
    bent_MM: Any  # of E·M²; None without a cap


class Products(NamedTuple):
    """All sums that depend on a neuron: the fields of `Along` and of `Squares`, [t n] each."""

    M: jax.Array
    bM: list[jax.Array]
    bent_bM: list[jax.Array]
    MM: Any
    bent_MM: Any


class Neurons(NamedTuple):
    """Numbers of each neuron's M over the vocabulary, [n]."""

    least: jax.Array  # the smallest entry
    most: jax.Array  # the largest
    squares: dict[str, jax.Array]  # Σ |u|·M² and Σ f·M²


class Series(NamedTuple):
    """The tail after an ablation, relative to the unablated Σe^ℓ, [t n]."""

    S: jax.Array  # Σ e^(z − ρ), ρ = log Σ e^ℓ
    G: jax.Array  # Σ e^(z − ρ)·(ρ − z)
    S_error: jax.Array  # a bound on the error of S
    most: jax.Array  # an upper bound of p
    left: Left  # what the bound of the entropy needs


class Block(NamedTuple):
    """A block of the tail's tokens, [t v]; tokens that are not of the tail are hidden and have no weight."""

    hidden: jax.Array
    ell: jax.Array
    weights: dict[str, jax.Array]
    bases: list[jax.Array]  # every b but u, to which the soft cap is not applied
    u: jax.Array
    slope: jax.Array  # D
    bend: jax.Array | None  # E

    @classmethod
    def of(
        cls,
        A: jax.Array,
        P: jax.Array | None,
        offsets: tuple[jax.Array, jax.Array, jax.Array],
        inv: jax.Array,
        lse: jax.Array,
        cap: float | None,
    ) -> "Block":
        """The block of tokens whose A and P are given, [t v]. `offsets`: b, u and f of each token, [v]."""
        b, u, f = offsets
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
        return cls(hidden, ell, weights, [jnp.where(hidden, 0, x) for x in bases], u, slope, bend)

    def terms(self, name: str) -> list[jax.Array]:
        """D·b for the weight `name`. Only q needs u, which changes only z_fr, of which only Σ e^z is needed."""
        return [*(self.slope * x for x in self.bases), *([self.u] if name == "q" else [])]

    def alone(self) -> dict[str, Alone]:
        """`Alone` of each weight, summed over the block's tokens."""

        def pairs(x: list[jax.Array], weight: jax.Array) -> list[list[jax.Array]]:
            return [[_total(weight * y * z) for z in x] for y in x]

        def of(name: str, weight: jax.Array) -> Alone:
            terms = self.terms(name)
            first = [_total(weight * x) for x in terms]
            bent = [] if self.bend is None else pairs(self.bases, weight * self.bend)
            return Alone(_total(weight), first, pairs(terms, weight) if name in "qs" else [], bent)

        return {name: of(name, weight) for name, weight in self.weights.items()}

    def along(self) -> dict[str, Along]:
        """What M is multiplied by in the sums of each weight, [t v]."""

        def of(name: str, weight: jax.Array) -> Along:
            sloped = weight * self.slope
            crossed = [sloped * y for y in self.terms(name)] if name in "qs" else []
            return Along(sloped, crossed, [] if self.bend is None else [weight * self.bend * y for y in self.bases])

        return {name: of(name, weight) for name, weight in self.weights.items()}

    def squares(self) -> dict[str, Squares]:
        """What M² is multiplied by in the sums of each weight, [t v]."""

        def of(name: str, weight: jax.Array) -> Squares:
            return Squares(
                weight * self.slope**2 if name in "qs" else None, None if self.bend is None else weight * self.bend
            )

        return {name: of(name, weight) for name, weight in self.weights.items()}


def tail_sums(
    cap: float | None,
    tails: Any,
    offsets: Any,
    W_U: jax.Array,
    begin: jax.Array,
    target: jax.Array,
    inv: jax.Array,
    lse: jax.Array,
    size: int,
) -> tuple[Tail, dict[str, Along]]:
    """The tail of some positions before any neuron is ablated, and `Along` with W_U in the place of M, [t d].

    `tails`: A and P of all positions, [t v] each. `offsets`: b, u and f, [v]. `W_U`: [d v]. `begin`: the first of the
    positions. `target`, `inv`, `lse` [t 1]: the target's logit, 1/σ and log Σ e^ℓ at each of them. `size`: how many
    tokens are summed at a time; it divides v.
    """

    def of_block(first: jax.Array) -> tuple[Any, Any, Any]:
        """What is added, what the largest is taken of, and what is multiplied with W_U, for `size` tokens."""
        A, P = jax.tree.map(lambda x: lax.dynamic_slice(x, (begin, first), (len(inv), size)), tails)
        block = Block.of(A, P, jax.tree.map(lambda x: lax.dynamic_slice(x, (first,), (size,)), offsets), inv, lse, cap)

        def most(x: jax.Array) -> jax.Array:
            return jnp.where(block.hidden, -jnp.inf, x).max(1, keepdims=True)

        terms = block.terms("q")
        sums: Any = {"weights": block.alone(), "above": _total(jnp.where(block.hidden, 0.0, block.ell > target))}
        largest = {"b": [most(x) for x in terms], "minus_b": [most(-x) for x in terms], "top": most(block.ell)}
        if cap is not None:
            linear = {name: block.weights[name] for name in "uf"}
            sums |= {
                "along": {name: _total(x * block.ell) for name, x in linear.items()},
                "squares": {name: [_total(jnp.abs(x) * y * y) for y in block.bases] for name, x in linear.items()},
            }
            largest |= {"b_size": [most(jnp.abs(x)) for x in block.bases], "minus_slope": most(-block.slope)}
        return sums, largest, block.along()

    def add(found: Any, first: jax.Array) -> tuple[Any, None]:
        sums, largest, factors = of_block(first)
        W = lax.dynamic_slice_in_dim(W_U, first, size, 1)
        with jax.named_scope("tail_moments"):
            moments = jax.tree.map(lambda old, x: old + jnp.einsum("tv,dv->td", x, W), found[2], factors)
        return (jax.tree.map(jnp.add, found[0], sums), jax.tree.map(jnp.maximum, found[1], largest), moments), None

    sums, largest, factors = jax.eval_shape(of_block, jnp.int32(0))
    start = (
        jax.tree.map(lambda x: jnp.zeros(x.shape), sums),
        jax.tree.map(lambda x: jnp.full(x.shape, -jnp.inf), largest),
        jax.tree.map(lambda x: jnp.zeros((len(inv), len(W_U))), factors),
    )
    (sums, largest, moments), _ = lax.scan(add, start, jnp.arange(W_U.shape[1] // size) * size)
    q = sums["weights"]["q"]
    mean = [x / jnp.maximum(q.total, TINY) for x in q.b]
    both = zip(largest["b"], largest["minus_b"], mean, strict=True)
    off = [jnp.maximum(jnp.maximum(high - m, minus_low + m), 0) for high, minus_low, m in both]
    capped_tail = None
    if cap is not None:
        b_most = [jnp.maximum(x, 0) for x in largest["b_size"]]
        capped_tail = Capped(b_most, jnp.minimum(-largest["minus_slope"], 1), sums["along"], sums["squares"])
    return Tail(sums["weights"], off, largest["top"], sums["above"], capped_tail), moments


def _total(x: jax.Array) -> jax.Array:
    return x.sum(1, keepdims=True)


def square_weights(cap: float | None, tails: Any, offsets: Any, inv: jax.Array, lse: jax.Array) -> dict[str, Squares]:
    """What multiplies M² in `Squares` of each weight, [t v]; the arguments are as for `tail_sums`, of all positions."""
    A, P = tails
    return jax.tree.map(lambda x: x.astype(squares_dtype(cap)), Block.of(A, P, offsets, inv, lse, cap).squares())


def tail_squares(weights: dict[str, Squares], M: jax.Array) -> dict[str, Squares]:
    """`Squares` of each weight, from `square_weights` and `M`, [v n]."""

    def product(weight: jax.Array) -> jax.Array:
        return lax.dot(weight, (M * M).astype(weight.dtype), preferred_element_type=jnp.float32)

    return jax.tree.map(product, weights)


def tail_products(moments: dict[str, Along], squares: dict[str, Squares], w: jax.Array) -> dict[str, Products]:
    """`Products` of each weight, from what `tail_sums` and `tail_squares` return and from the neurons' w [n d]."""
    along = jax.tree.map(lambda x: x @ w.T, moments)
    return {name: Products(**of._asdict(), **squares[name]._asdict()) for name, of in along.items()}


def squares_dtype(cap: float | None) -> Any:
    """The dtype of the products with M²: without a cap all are positive, so that their rounding is bounded."""
    return jnp.bfloat16 if cap is None else jnp.float32


def coefficients(cells: Cells, inv: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """The coefficients of the total effect: κ of every b but u, and c."""
    rescaled = cells.inv_te / inv
    return [rescaled - 1, *([] if cells.beta is None else [cells.beta * rescaled])], cells.write * cells.inv_te


def linear_tail(
    name: str, tail: Tail, products: dict[str, Products], of_M: Neurons, cells: Cells, inv: jax.Array, cap: float
) -> tuple[jax.Array, jax.Array]:
    """Σ w·z_te of the tail with u or f as the weight w, and a bound on its error, [t n]."""
    assert tail.capped is not None
    k, c = coefficients(cells, inv)
    alone, of = tail.weights[name], products[name]
    squares = c * c * of_M.squares[name] + sum(x * x * y for x, y in zip(k, tail.capped.squares[name], strict=True))
    # By the Cauchy-Schwarz inequality, p² is at most the number of its terms times the sum of their squares.
    off = _furthest(tail.capped, of_M, k, c) / (3 * cap**2) * (1 + len(k)) * squares
    return tail.capped.along[name] + _first(alone, of, k, c) + _bent(alone, of, k, c), off


def tail_series(
    tail: Tail,
    products: dict[str, Products],
    of_M: Neurons,
    cells: Cells,
    kappa: Any,
    inv: jax.Array,
    lse: jax.Array,
    cap: float | None,
) -> tuple[Series, Series, Series]:
    """The series of the total effect, the norm frozen and the frequency frozen; the G of the last must not be used."""
    q, s = ((tail.weights[name], products[name]) for name in "qs")
    total = jnp.maximum(q[0].total, TINY)
    least, most = of_M.least, of_M.most  # of D·M
    if cap is not None:
        least, most = jnp.minimum(of_M.least, 0), jnp.maximum(of_M.most, 0)
    M_mean = q[1].M / total

    def one(k: list[jax.Array], c: jax.Array) -> Series:
        mean = _first(*q, k, c) / total
        bend = p = jnp.float32(0)
        b_off = sum(jnp.abs(x) * y for x, y in zip(k, tail.b_off, strict=True))
        if tail.capped is not None and cap is not None:
            bend, p = jnp.float32(BEND / 2 / cap), _furthest(tail.capped, of_M, k, c)
            b_off += bend * p * p
        above, below = (most - M_mean) * c, (least - M_mean) * c
        above, below = jnp.maximum(above, below) + b_off, b_off - jnp.minimum(above, below)  # x is in [−below, above]
        R, (h, k_range) = jnp.maximum(above, below), beyond(above, below)

        def moments(alone: Alone, of: Products) -> Moments:
            first, square = _first(alone, of, k, c), _form(alone.bb, of.bM, of.MM, k, c)
            second = jnp.maximum(square - 2 * mean * first + mean * mean * alone.total, 0)
            rounded = ROUNDED * c * c * of.MM if cap is None else jnp.float32(0)
            off = jnp.float32(0)
            if tail.capped is not None and cap is not None:
                slope = tail.capped.slope
                capless = jnp.maximum(_form(alone.bb, of.bM, of.MM, k[:-1], c), 0) / slope**2
                squares = jnp.where(slope > 0, capless, jnp.inf)
                squares = jnp.minimum(squares, p * p * alone.total)  # at least Σ w·p²
                off = (h.size * 2 * R * bend + p / (3 * cap**2) + bend * R) * squares
            return Moments(first + _bent(alone, of, k, c) - mean * alone.total, second, rounded, off)

        of_q, of_s = moments(*q), moments(*s)
        Q = q[0].total + of_q.first + (0.5 + h.middle) * of_q.second
        of_x = of_q.first + (1 + k_range.middle) * of_q.second
        G = s[0].total + of_s.first + (0.5 + h.middle) * of_s.second - mean * Q - of_x
        off_S = h.half * (of_q.second + of_q.rounded) + (0.5 + h.size) * of_q.rounded + of_q.capped
        # Where p may exceed REACH, tokens whose weights underflowed to 0 could matter.
        scale = jnp.exp(mean)
        off = jnp.where(mean + R < REACH, scale, jnp.inf)
        left = Left(off, mean, above, below, lse - tail.top, h, k_range, of_q, of_s)
        return Series(scale * Q, scale * G, off * off_S, mean + above, left)

    (k, c), zero = coefficients(cells, inv), jnp.zeros_like(cells.write)
    frozen = [] if cells.beta is None else [cells.beta]
    return one([*k, zero], c), one([zero, *frozen, zero], cells.write * inv), one([*k, kappa], c)


def _first(alone: Alone, products: Products, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """Σ w·D·p."""
    return c * products.M + sum(x * y for x, y in zip(k, alone.b, strict=False))


def _form(bb: list[list[jax.Array]], bM: list[jax.Array], MM: jax.Array, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """Σ w·p², from the sums with b·b, b·M and M²; coefficients of b that the weight does not have are left out."""
    k = k[: len(bM)]
    crossed = sum(x * y for x, y in zip(k, bM, strict=False))
    return c * c * MM + 2 * c * crossed + sum(k[i] * k[j] * bb[i][j] for i in range(len(k)) for j in range(len(k)))


def _bent(alone: Alone, products: Products, k: list[jax.Array], c: jax.Array) -> jax.Array | float:
    """Σ w·E·p²/2."""
    return 0.0 if products.bent_MM is None else _form(alone.bent, products.bent_bM, products.bent_MM, k, c) / 2


def _furthest(tail: Capped, of_M: Neurons, k: list[jax.Array], c: jax.Array) -> jax.Array:
    """An upper bound of |p|."""
    of_b = sum(jnp.abs(x) * y for x, y in zip(k, tail.b_most, strict=False))
    return jnp.abs(c) * jnp.maximum(-of_M.least, of_M.most) + of_b
