"""What ablations set neurons to, against numpy. Letters: p token position, n neuron."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import check_error

from jaxconf.analysis.ablation import Ablation, clipped
from jaxconf.analysis.activations import ActivationStatistics

H = np.array([[0.0, 2.0, -1.0], [4.0, -6.0, 0.5]], np.float32)  # p n
STATISTICS = ActivationStatistics(
    *(
        np.array(x)
        for x in (
            [1.0, -2.0, 0.0],
            [0.5, 4.0, 3.0],
            [0.0, -6.0, -1.0],
            [4.0, 2.0, 0.5],
            [2.0, -1.0, 0.25],
            [3.0, 1.0, 0.1],
        )
    )
)


@pytest.mark.parametrize(
    ("ablation", "expected"),
    [
        (Ablation(), [[1, -2, 0], [1, -2, 0]]),
        (Ablation("zero"), np.zeros((2, 3))),
        (Ablation("median"), [[2, -1, 0.25], [2, -1, 0.25]]),
        (Ablation("mode"), [[3, 1, 0.1], [3, 1, 0.1]]),
        (Ablation("min"), [[0, -6, -1], [0, -6, -1]]),
        (Ablation("mean+3std"), [[2.5, 2, 0.5], [2.5, 2, 0.5]]),
        (Ablation("mean-3std"), [[0, -6, -1], [0, -6, -1]]),
        (Ablation("fixed", 0.5), np.full((2, 3), 0.5)),
        (Ablation("scale", -2), -2 * H),
        (Ablation("clip"), [[0, -2, -1], [1, -6, 0]]),
        (Ablation("clip", -1), [[1, 2, 0], [4, -2, 0.5]]),
    ],
    ids=str,
)
def test_every_kind(ablation: Ablation, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ablation.of_layer(STATISTICS).ablated(jnp.asarray(H)), expected, rtol=1e-6)


def test_each_neuron_may_be_clipped_from_its_own_side() -> None:
    found = clipped(jnp.asarray(H), jnp.asarray(STATISTICS.mean), jnp.array([True, False, True]))
    np.testing.assert_array_equal(found, [[0, 2, -1], [1, -2, 0]])


def test_only_another_form_is_another_program() -> None:
    ablated = jax.jit(chex.assert_max_traces(lambda ablation, h: ablation.ablated(h), n=2))
    others = (
        Ablation("mean"),
        Ablation("mode"),
        Ablation("fixed", 3),
        Ablation("scale", 2),
        Ablation("scale", 3),
        Ablation("clip"),
        Ablation("clip", -1),
    )
    for ablation in others:
        np.testing.assert_array_equal(
            ablated(ablation.of_layer(STATISTICS), H), ablation.of_layer(STATISTICS).ablated(H)
        )


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("meen", None, "nearest is 'mean'"),
        ("fixed", None, "needs a finite number as its value, not None"),
        ("scale", float("nan"), "not nan"),
        ("mean", 0.5, "takes none"),
        ("clip", 2, "give 1 to clip from above or -1"),
    ],
)
def test_others_are_refused(kind: str, value: float | None, words: str) -> None:
    check_error(lambda: Ablation(kind, value), f"ablation {kind!r}" if kind == "meen" else f"ablation {kind}", words)
