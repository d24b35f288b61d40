"""The columns that summary, page and terminal show are metrics."""

import pytest

from jaxconf.analysis.metrics import COLUMNS, INTERVAL_COLUMNS
from jaxconf.report.terminal import HEADS
from jaxconf.results.columns import MAIN_COLUMNS, NAMED_COLUMNS, SET_COLUMNS
from jaxconf.results.rules import KINDS
from jaxconf.results.words import facts_in_words


def test_every_chosen_column_is_a_metric():
    assert set(MAIN_COLUMNS) <= set(COLUMNS)
    assert tuple(NAMED_COLUMNS) == KINDS
    assert {column for columns in NAMED_COLUMNS.values() for column in columns} <= set(COLUMNS)


def test_sets_have_an_interval_for_every_column_that_is_shown():
    assert set(SET_COLUMNS) <= set(INTERVAL_COLUMNS)


def test_the_terminal_has_heads_for_columns_of_named_neurons_alone():
    assert set(HEADS) <= {column for columns in NAMED_COLUMNS.values() for column in columns}


@pytest.mark.parametrize(("k", "words"), [(1, "above the smallest value"), (21, "above the 21 smallest values")])
def test_the_knee_is_told_in_words(k: int, words: str) -> None:
    (told,) = (text for name, text in facts_in_words({"k": 3, "knee": {"k": k, "ratio": 2.5}}) if name == "Null space")
    assert told.endswith(words)
