"""Statements become questions that `jaxconf tasks` reads."""

from pathlib import Path

import pytest
import statement_questions

from jaxconf.data.questions import read_questions
from jaxconf.data.statements import normal, objects_of, read_statements


def test_statements_of_real_facts(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, out = shared / "data" / "pararel-statements.csv", tmp_path / "questions.jsonl"
    statement_questions.main(statement_questions.Questions(data, out))
    found, given = read_questions(out), read_statements(data)
    assert f"{len(found):,} questions of {len(given):,} statements" in capsys.readouterr().out
    assert 0.9 * len(given) < len(found) < len(given)  # some relations have few objects
    pools = objects_of(given)
    by_query = {(row.query, row.object): row.relation for row in given.itertuples()}
    for one in found:
        assert len({normal(choice) for choice in one.choices}) == 4
        assert one.choices[one.right] == one.answer
        assert set(one.choices) <= {*pools[by_query[one.question, one.answer]], one.answer}
    places = [one.right for one in found]
    assert all(abs(places.count(place) / len(found) - 1 / 4) < 0.03 for place in range(4))
