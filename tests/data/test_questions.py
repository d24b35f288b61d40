"""Questions in every layout become the same records; what cannot be one is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import hub
from refusals import refused

from jaxconf.data.questions import Question, questions_of_statements, read_questions, write_questions
from jaxconf.data.statements import COLUMNS, read_statements

CAPITALS = ["Rome", "Oslo", "Lima"]
ASKED = "Question: Where is Norway's king?\nAnswer:"
PLAIN = {"question": "The capital of Norway is", "choices": CAPITALS}
ARC = {"id": "a", "question": "Where is Norway's king?", "choices": {"text": CAPITALS, "label": ["1", "2", "3"]}}
MMLU = {"question": "Where is Norway's king?", "subject": "geography", "choices": CAPITALS, "answer": 1}
SWAG = {"ind": 4, "ctx": "[header] Norway [title] Its king  lives in", "endings": CAPITALS, "label": "1"}


def written(folder: Path, *rows: Any, name: str = "q.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (PLAIN | {"answer": "Oslo"}, "The capital of Norway is"),
        (PLAIN | {"answer": 1}, "The capital of Norway is"),
        (PLAIN | {"answer": "B"}, "The capital of Norway is"),
        (MMLU, ASKED),
        (ARC | {"answerKey": "2"}, ASKED),
        (SWAG, "Norway. Its king lives in"),
    ],
)
def test_every_layout_gives_the_same_record(row: dict[str, Any], asked: str, tmp_path: Path) -> None:
    expected = [Question(asked, tuple(CAPITALS), "Oslo", 1)]
    assert read_questions(written(tmp_path, row)) == expected
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.parquet") == expected
    cells = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
    pd.DataFrame([cells]).to_csv(tmp_path / "q.csv", index=False)
    assert read_questions(tmp_path / "q.csv") == expected
    (tmp_path / "q.json.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert read_questions(tmp_path / "q.json.gz") == expected


def test_a_part_of_a_data_set_on_the_hub(tmp_path: Path) -> None:
    for subject, split, right in (("anatomy", "test", 0), ("anatomy", "dev", 1), ("law", "test", 2)):
        (tmp_path / "mmlu" / subject).mkdir(parents=True, exist_ok=True)
        file = tmp_path / "mmlu" / subject / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist([MMLU | {"answer": right}]), file)
    with hub({"datasets/owner/mmlu": {"main": tmp_path / "mmlu"}}, tmp_path / "cache"):
        found = read_questions("hf://datasets/owner/mmlu:subset=anatomy,split=test")
        assert found == [Question(ASKED, tuple(CAPITALS), "Rome", 0)]
        assert {one.right for one in read_questions("hf://datasets/owner/mmlu/anatomy")} == {0, 1}


def test_short_answers_have_no_choices(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "2 and 2 is", "answer": " 4 "}, {"question": "3 and 3 is", "answer": "6"})
    assert read_questions(path) == [Question("2 and 2 is", (), "4", -1), Question("3 and 3 is", (), "6", -1)]


def test_text_counts_before_indices_and_letters(tmp_path: Path) -> None:
    letters = {"question": "The third letter is", "choices": ["B", "A", "C"]}
    answers = [("A", 1), ("C", 2), (0, 0)]
    path = written(tmp_path, *(letters | {"answer": answer} for answer, _ in answers))
    assert [one.right for one in read_questions(path)] == [right for _, right in answers]
    numbers = {"question": "2 and 2 is", "choices": ["1", "4"]}
    assert read_questions(written(tmp_path, numbers | {"answer": "1"}))[0].right == 0
    refused(lambda: read_questions(written(tmp_path, numbers | {"answer": "0"})), "'0'", "not among its 2 choices")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "no question"}, ["line 1", "lacks the columns question, answer"]),
        (PLAIN, ["line 1", "lacks the column answer"]),
        ({"ctx": "He", "endings": CAPITALS}, ["lacks the column label"]),
        ({"answerKey": "A", "choices": CAPITALS}, ["lacks the column question"]),
        (ARC | {"answerKey": "2", "choices": {"text": CAPITALS}}, ["choices of line 1", "lacks the column label"]),
        (ARC | {"answerKey": "D"}, ["'D'", "not among its 3 choices"]),
        (ARC | {"answerKey": "1", "choices": CAPITALS}, ["text and label"]),
        (PLAIN | {"answer": "Paris"}, ["'Paris'", "not among its 3 choices"]),
        (PLAIN | {"answer": 3}, ["3, which is not among its 3 choices"]),
        (PLAIN | {"answer": -1}, ["-1, which is not among"]),
        (PLAIN | {"answer": True}, ["True, which is not among"]),
        (SWAG | {"label": ""}, ["'', which is not among"]),
        (PLAIN | {"choices": ["Oslo"], "answer": 0}, ["two or more texts as its choices"]),
        (PLAIN | {"choices": ["Oslo", ""], "answer": 0}, ["no text as its choices"]),
        (PLAIN | {"choices": "Oslo", "answer": 0}, ["choices that are not JSON"]),
        (PLAIN | {"question": 4, "answer": 0}, ["no text as its question"]),
        ({"question": "2 and 2 is", "answer": 4}, ["no text as its answer"]),
        ([PLAIN], ["an object on each line"]),
    ],
)
def test_what_is_no_question(row: Any, parts: list[str], tmp_path: Path) -> None:
    refused(lambda: read_questions(written(tmp_path, row)), *parts)


def test_what_has_no_questions(tmp_path: Path) -> None:
    refused(lambda: read_questions(written(tmp_path)), "has no questions")
    both = written(tmp_path, PLAIN | {"answer": 1}, {"question": "2 and 2 is", "answer": "4"})
    refused(lambda: read_questions(both), "line 2", "lacks choices", "separate files")
    refused(lambda: read_questions(f"{both}:column=question"), "name a column")
    (tmp_path / "q.txt").write_text("text")
    refused(lambda: read_questions(tmp_path / "q.txt"), "plain text, which has no columns")
    (tmp_path / "broken.csv").write_text('question,answer\n"a,b\n')
    refused(lambda: read_questions(tmp_path / "broken.csv"), "broken.csv cannot be read")
    (tmp_path / "empty.csv").write_text("")
    refused(lambda: read_questions(tmp_path / "empty.csv"), "empty.csv cannot be read")


def test_statements_become_questions(tmp_path: Path) -> None:
    objects = ["Oslo", "Rome", "Lima", "Cairo", "Quito"]
    rows = [f"P36,person {i},lives in,{objects[i % 5]}" for i in range(20)]
    rows += [f"P1,person {i},is a,{name}" for i, name in enumerate(("judge", "pilot", "baker"))]
    (tmp_path / "s.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
    found = questions_of_statements(read_statements(tmp_path / "s.csv"), 0)
    assert len(found) == 20  # the other relation has three objects
    for i, one in enumerate(found):
        assert one.question == f"person {i} lives in"
        assert one.answer == one.choices[one.right] == objects[i % 5]
        assert len(set(one.choices)) == 4
        assert set(one.choices) <= set(objects)
    assert len({one.right for one in found}) == 4
    write_questions(found, tmp_path / "q.jsonl")
    assert read_questions(tmp_path / "q.jsonl") == found
