"""The axis of training steps, which pages of tracks and of sweeps have."""

import pandas as pd
import pytest

from jaxconf.report.plot_style import step_places, step_ticks


def test_places_are_logarithmic_but_for_step_0() -> None:
    place = step_places(pd.Series([0, 1, 10, 10, 1000]))
    assert place == {0: -0.5, 1: 0, 10: 1, 1000: 3}


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [
        ([0, 1, 10, 1000], ["0", "1", "10", "100", "1,000"]),
        ([0, 300, 600, 3000], ["0", "1,000"]),  # 100 would be at the place of 0
        ([2000, 4000, 9000], ["2,000", "9,000"]),
        ([0, 5], ["0", "5"]),
        ([0], ["0"]),
    ],
)
def test_ticks_are_at_0_and_at_powers_of_ten_or_at_the_ends(steps: list[int], ticks: list[str]) -> None:
    assert step_ticks(step_places(pd.Series(steps)))["ticktext"] == ticks
