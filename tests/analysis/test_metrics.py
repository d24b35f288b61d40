"""The table of metrics: what follows from it is computed as it says, and the page shows it."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxconf.analysis.metrics import (
    CHANGES_IN_NATS,
    COLUMNS,
    EFFECTS,
    METRICS,
    SHARES,
    UNABLATED,
    effects_of,
    table_in_markdown,
)
from jaxconf.analysis.whole_logits import Changes, Prediction

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"
CHANGES = Changes(
    *(np.float32([i, -i]) for i in range(1, 7)),
    top=np.array([True, False]),
    reciprocal_rank=np.float32([0.5, -0.5]),
    scale=np.float32([0.1, -0.2]),
    norm=np.float32([3, -4]),
)


def test_effects_are_the_changes_or_their_sizes() -> None:
    signed = {
        "loss_delta": CHANGES.loss,
        "entropy_delta": CHANGES.entropy,
        "kl_freq_delta": CHANGES.kl_freq,
        "top1_change": [1, 0],
        "scale_delta": CHANGES.scale,
        "norm_delta": CHANGES.norm,
    }
    sizes = {
        "loss_abs_delta": CHANGES.loss,
        "loss_abs_delta_ln_frozen": CHANGES.loss_ln_frozen,
        "loss_abs_delta_freq_frozen": CHANGES.loss_freq_frozen,
        "entropy_abs_delta": CHANGES.entropy,
        "entropy_abs_delta_ln_frozen": CHANGES.entropy_ln_frozen,
        "kl_freq_abs_delta": CHANGES.kl_freq,
        "rr_abs_delta": CHANGES.reciprocal_rank,
    }
    found = effects_of(CHANGES)
    assert tuple(found) == EFFECTS
    assert found.keys() == signed.keys() | sizes.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, signed[name] if name in signed else np.abs(sizes[name]), err_msg=name)


def test_every_name_is_of_something_that_exists() -> None:
    assert len(COLUMNS) == len(METRICS)
    assert {metric.change for metric in METRICS} - {""} == set(Changes._fields)
    assert set(CHANGES_IN_NATS) == set(Changes._fields) - {"top", "reciprocal_rank", "scale", "norm"}
    assert set(UNABLATED) < set(Prediction._fields)
    assert {name for pair in SHARES.values() for name in pair} < set(EFFECTS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_descriptions_state_the_unit(metric) -> None:
    assert (metric.unit == "nats") == ("nats" in metric.description)
    assert not metric.description.endswith(".")


def test_the_page_shows_the_table() -> None:
    shown = re.search(r"(?s)<!-- metrics -->\n\n(.*)\n\n<!-- end of metrics -->", PAGE.read_text("utf-8"))
    assert shown
    assert shown[1] == table_in_markdown(), "put what table_in_markdown() gives between the markers in docs/measures.md"
