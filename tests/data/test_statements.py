"""Statements are read as they stand, or refused; answers to them are told apart."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given
from plain_class import plain_class
from refusals import check_error

from jaxconf.analysis.transitions import CLASSES
from jaxconf.data.statements import answer_class, begins, contradicts, normal, objects_of, own_object, read_statements


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (" Paris. It is", "Paris", True),
        (" PARIS\n and", "paris", True),
        (" Parisian", "Paris", False),
        ("New  York City", "new york", True),
        ("Paris", "Paris is", False),
        ("ﬁnland", "Finland", True),
        ("Paris", "", False),
    ],
)
def test_a_text_begins_with_an_answer_at_a_words_end(text: str, answer: str, expected: bool) -> None:
    assert begins(normal(text), normal(answer)) == expected


def test_own_objects() -> None:
    assert own_object(" New York City, and", ["New York", "York", "New York City"]) == "New York City"
    assert own_object(" the sun. All the", ["Paris"]) == "the sun"
    assert own_object("\n\nOslo\nRome", ["Rome"]) == "Oslo"
    assert own_object(". Yes", ["Rome"]) == ""


words = st.text("ab A.", max_size=6).map(lambda text: " ".join(text.split()))


@given(text=words, one=words, other=words)
def test_no_answer_is_of_two_classes(text: str, one: str, other: str) -> None:
    assume(one and other)
    if contradicts(one, other):
        assert not (begins(normal(text), normal(one)) and begins(normal(text), normal(other)))
    assert CLASSES[answer_class(f" {text}", one, other)] == plain_class(text, one, other)


HEAD = "rel_p_id,statement_subject,statement_relation,statement_object\n"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["cannot be read as CSV"]),
        ("rel_p_id,statement_object\nP1,a\n", ["lacks the columns statement_subject, statement_relation;"]),
        (HEAD, ["no relation with two objects"]),
        (HEAD + "P1,Ada,is,tall\nP1,Bo,is, TALL\nP2,Ada,was,small\n", ["no relation with two objects"]),
        (HEAD + "P1,Ada,is,tall\nP1,Bo,,small\n", ["no statement_relation in its statement 2"]),
        (HEAD + '"P1,Ada\n', ["cannot be read as CSV"]),
    ],
)
def test_statements_that_are_none(content: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "statements.csv"
    file.write_text(content)
    check_error(lambda: read_statements(file), str(file), *parts)


def test_statements_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "statements.csv"
    file.write_text(
        HEAD.replace("rel_p_id", "x,rel_p_id")
        + ",P1,Ada,is a,NA\n,P1,Bo,is a,null\n,P1,Ada,is a,baker\n,P2,Ada,is in,Rome\n"
    )
    frame = read_statements(file)
    assert frame["query"].tolist() == ["Ada is a", "Bo is a", "Ada is in"]
    assert frame["object"].tolist() == ["NA", "null", "Rome"]
    assert objects_of(frame).to_dict() == {"P1": ["NA", "null"], "P2": ["Rome"]}


def test_the_shared_statements_can_be_asked(shared: Path) -> None:
    frame = read_statements(shared / "data" / "pararel-statements.csv")
    assert len(frame) == 4666
    assert (objects_of(frame).map(len) < 2).sum() == 2
