"""The adaptive engine against float64 sums over every token: within its tolerance, and within the bound of each pair.

Letters: t position, n neuron, d width, v vocabulary.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import marked

from jaxconf.analysis import adaptive_softmax as module
from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.adaptive_softmax import adaptive_softmax
from jaxconf.analysis.adaptive_tail import ROUNDED
from jaxconf.analysis.softmax_sums import Cells, Rows, Vocabulary
from jaxconf.models.softcap import capped

pytestmark = pytest.mark.usefixtures("compiled_quickly")

T, N, D, V = 12, 24, 16, 1300
ROUNDING = 3e-6  # of float32 sums, for each nat of the largest logit


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of everything, the last of each not full."""
    for name, value in {
        "HEAD": 128,
        "BLOCK_T": 8,
        "BLOCK_V": 512,
        "MATRIX": 1,
        "LANES": 16,
        "CELLS": 64,
        "PAIRS": 8,
        "ABREAST": 4,
    }.items():
        monkeypatch.setattr(module, name, value)


def problem(case: str, seed: int = 0) -> tuple[Rows, Cells, np.ndarray, Vocabulary]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    x, W_U, w, b = 10 * normal(T, D), normal(D, V), normal(N, D) / D**0.5, 0.3 * normal(V)
    write = 0.3 * normal(T, N) * rng.pareto(2, (T, N))  # mostly little, sometimes much
    change, kappa = 1 + 0.02 * normal(T, N), 3 * normal(T, N)
    P = beta = cap = along_u = None
    match case:
        case "uniform logits":
            W_U, b = np.zeros((D, V)), np.zeros(V)
        case "a neuron that lifts one token to the top of nearly uniform logits":
            x[:, 0], W_U, b, w[7], write[:, 7] = 0, W_U / 1000, b / 1000, np.eye(D)[0], 0.5
            W_U[0] = np.arange(V) == 5
            b[5] = -0.005
        case "one huge change":
            write[3, :5], change[3, :5] = 1e4, 1e-3
        case "a neuron along a rare token":
            w[7], write[:, 7] = W_U[:, (x @ W_U).mean(0).argmin()], 3
        case "all mass on one token":
            b[11] = 100
        case "logits of ±1e4":
            W_U, b = W_U * 1000, b * 1000
        case "a norm behind the MLP":
            P, beta = normal(T, D) @ W_U, 0.05 * normal(T, N)
        case "soft caps" | "soft caps without a norm behind the MLP":
            cap = 12.0
        case "soft caps that little is left of":
            cap, W_U, b = 12.0, W_U * 8, b * 8
        case "soft-capped logits of ±1e4":
            cap, W_U, b = 12.0, W_U * 1000, b * 1000
        case "nothing changes" | "nothing changes, and most logits are at the cap":
            if case != "nothing changes":
                cap, b = 12.0, np.where(rng.random(V) < 0.7, -200, b)
            write, change, kappa = np.zeros((T, N)), np.ones((T, N)), np.zeros((T, N))
    A = x @ W_U
    if cap is not None and not case.endswith("without a norm behind the MLP"):
        P, beta = normal(T, D) @ W_U, (0 if case.startswith("nothing changes") else 0.02) * normal(T, N)
    if case == "all that was likely sinks":
        A[:, :] = 0
        A[:, :300], change, write = 90 * 10 * D**0.5 / 4, 0.1 + 0 * change, 1e-6 * write
    inv = 4 / (10 * D**0.5) * np.ones(T)
    logits = A * inv[:, None] + b
    target = np.where(
        rng.random(T) < 0.5, rng.integers(0, V, T), np.argsort(-logits, 1)[np.arange(T), rng.integers(0, 40, T)]
    )
    u = normal(V)
    u /= np.linalg.norm(u)
    if case == "a rare target that rises above the tail":
        target = np.argmin(logits, 1)
        P, beta = np.zeros((T, V)), np.full((T, N), 0.1)
        P[np.arange(T), target] = 10 * (logits.mean(1) - logits.min(1) + np.linspace(-1, 4, T)) / inv
        write, change = 1e-4 * write, 1 + 1e-4 * change
    if case == "a coordinate along u that overflows":
        u = np.full(V, 1e-4)
        u[np.argmax(logits[0])], kappa[0] = 1, 120
        u[np.argsort(-logits[0])[5]] = 1
    f = rng.dirichlet(np.full(V, 0.1))
    if cap is not None:
        kappa, along_u = None, np.asarray(capped(logits, cap)) @ u
    arrays = A, P, inv, inv[:, None] * change, beta, write, kappa, along_u, W_U, b, u, f, w
    A, P, inv, inv_te, beta, write, kappa, along_u, W_U, b, u, f, w = map(float32, arrays)
    top = jnp.argmax(A * inv[:, None] + b, 1)  # of the float32 logits, as the engine has it
    rows, cells = Rows(A, P, inv, jnp.asarray(target), top, along_u), Cells(inv_te, beta, write, kappa)
    return rows, cells, w, Vocabulary(W_U, b, u, f, cap)


def float32(x: np.ndarray | None) -> jax.Array | None:
    return None if x is None else jnp.asarray(x, jnp.float32)


def by_every_token(
    rows: Rows, cells: Cells, w: np.ndarray, vocabulary: Vocabulary
) -> tuple[dict[str, np.ndarray], float]:
    """In float64, from whole logit vectors [t n v]: what has a tolerance, [t n] each, and the largest logit."""
    rows, cells, w, vocabulary = jax.tree.map(lambda y: np.asarray(y, np.float64), (rows, cells, w, vocabulary))
    b, u, f, cap = vocabulary.b, vocabulary.u, vocabulary.f, vocabulary.cap
    moved = rows.A[:, None] + cells.write[..., None] * (w @ vocabulary.W_U)
    if rows.P is not None:
        moved = moved + cells.beta[..., None] * rows.P[:, None]
    te, ln = moved * cells.inv_te[..., None] + b, moved * rows.inv[:, None, None] + b
    found, kappa = {}, cells.kappa
    if cap is not None:
        te, ln, before = (cap * np.tanh(z / cap) for z in (te, ln, rows.A * rows.inv[:, None] + b))
        kappa = (before @ u)[:, None] - te @ u
    target = rows.target.astype(int)
    for name, z in {"te": te, "ln": ln, "fr": te + kappa[..., None] * u}.items():
        top = z.max(-1)
        e = np.exp(z - top[..., None])
        lse = top + np.log(e.sum(-1))
        found |= {
            f"loss_{name}": lse - z[np.arange(T), :, target],
            f"entropy_{name}": lse - (e * z).sum(-1) / e.sum(-1),
        }
        if name == "te" and cap is not None:
            found["divergence"] = lse - te @ f
    del found["entropy_fr"]
    return found, float(max(np.abs(te).max(), np.abs(ln).max(), 1))


def figures(sums: module.Sums) -> dict[str, np.ndarray]:
    found = {
        "loss_te": sums.lse_te - sums.target_te,
        "entropy_te": sums.lse_te - sums.mean_te,
        "loss_ln": sums.lse_ln - sums.target_ln,
        "entropy_ln": sums.lse_ln - sums.mean_ln,
        "loss_fr": sums.lse_fr - sums.target_fr,
    }
    if sums.mean_f is not None:
        found["divergence"] = sums.lse_te - sums.mean_f
    return {name: np.asarray(value) for name, value in found.items()}


def run(
    rows: Rows, cells: Cells, w: np.ndarray, vocabulary: Vocabulary, tolerance: float
) -> tuple[module.Sums, module.Certainty]:
    lse = jax.nn.logsumexp(capped(rows.A * rows.inv[:, None] + vocabulary.b, vocabulary.cap), axis=1)
    return jax.jit(adaptive_softmax)(rows, cells, w, vocabulary, lse, tolerance)


@functools.cache
def solved(case: str) -> tuple[Any, tuple[dict[str, np.ndarray], float], module.Sums]:
    """A problem, what is expected of it, and what the exact engine finds."""
    given_ = problem(case)
    return given_, by_every_token(*given_), jax.jit(ablated_softmax)(*given_)


CASES = (
    "realistic",
    "uniform logits",
    "a neuron that lifts one token to the top of nearly uniform logits",
    "one huge change",
    "a neuron along a rare token",
    "all mass on one token",
    "logits of ±1e4",
    "a norm behind the MLP",
    "soft caps",
    "soft caps without a norm behind the MLP",
    "soft caps that little is left of",
    "soft-capped logits of ±1e4",
    "all that was likely sinks",
    "a rare target that rises above the tail",
    "a coordinate along u that overflows",
    "nothing changes, and most logits are at the cap",
    "nothing changes",
)


ON_DEVICES = (
    "realistic",
    "uniform logits",
    "one huge change",
    "logits of ±1e4",
    "soft caps",
    "soft-capped logits of ±1e4",
)


@pytest.mark.parametrize(
    "case", marked(CASES, devices=ON_DEVICES, quick=[case for case in CASES if "norm behind the MLP" not in case])
)
@pytest.mark.parametrize("engine", marked(["exact", 1e-3, 1e-4, 1e-5], quick=["exact", 1e-4]))
def test_every_pair_is_within_the_tolerance_and_its_bound(case: str, engine: str | float) -> None:
    given_, (expected, size), exact = solved(case)
    if engine == "exact":
        sums, tolerance, bound = exact, 0.0, 0.0
    else:
        sums, certainty = run(*given_, engine)
        tolerance, bound = engine, np.asarray(certainty.bound)
        assert (bound <= tolerance).all()
        assert np.array_equal(sums.top_changed, exact.top_changed)
        rr_error = np.abs(1 / (1 + np.asarray(sums.n_above_target)) - 1 / (1 + np.asarray(exact.n_above_target)))
        assert (rr_error <= np.asarray(certainty.rr_bound) + 1e-7).all()
        redone = np.asarray(certainty.redone)
        assert (bound[redone] == 0).all()
        if case in ("realistic", "soft caps"):  # both ways were taken
            assert (0.02 if engine < 1e-3 else 0) < redone.mean() < 0.9
        if case == "nothing changes":
            assert not redone.any()
            assert np.array_equal(sums.n_above_target, exact.n_above_target)
    for name, value in figures(sums).items():
        error = np.abs(value - expected[name])
        assert (error <= bound + ROUNDING * size).all(), (name, error.max())
        if case == "realistic" and engine != 1e-3:
            assert error.mean() < 1e-5, (name, error.mean())


@settings(max_examples=15)
@given(
    st.sampled_from(["realistic", "soft caps"]),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 30),
    st.floats(1e-3, 3),
    st.floats(1e-3, 1),
)
def test_bounds_hold_wherever_the_series_is_taken(
    case: str, seed: int, spread: float, strength: float, off: float
) -> None:
    """Also where it is of little use: with a tolerance of 10 nats hardly any pair is redone, and errors are large."""
    rows, cells, w, vocabulary = problem(case, seed)
    rows = rows._replace(A=rows.A * spread / 4)
    logits = capped(rows.A * rows.inv[:, None] + vocabulary.b, vocabulary.cap)
    rows = rows._replace(top=jnp.argmax(rows.A * rows.inv[:, None] + vocabulary.b, 1))
    if vocabulary.cap is not None:
        rows = rows._replace(along_u=logits @ vocabulary.u)
    cells = cells._replace(
        write=cells.write * strength, inv_te=rows.inv[:, None] * (1 + (cells.inv_te / rows.inv[:, None] - 1) * off * 10)
    )
    expected, size = by_every_token(rows, cells, w, vocabulary)
    sums, certainty = _once()(rows, cells, w, vocabulary, jax.nn.logsumexp(logits, axis=1), 10.0)
    for name, value in figures(sums).items():
        error = np.abs(value - expected[name])
        assert (error <= np.asarray(certainty.bound) * (1 + 1e-3) + 3 * ROUNDING * size).all(), name


@given(st.floats(1, 2, width=32), st.floats(1, 2, width=32))
def test_the_rounding_of_products_is_bounded(weight: float, square: float) -> None:
    rounded = np.prod([float(np.float32(x).astype(jnp.bfloat16)) for x in (weight, square)])
    assert abs(rounded - weight * square) <= ROUNDED * rounded


@functools.cache
def _once():
    return jax.jit(adaptive_softmax)
