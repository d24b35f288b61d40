"""Questions with known answers: multiple choice, or short answers in free text.

Four layouts are told apart by their columns, and become the same records:

    question, choices, answer           the model reads the question as it stands
    question, answer                    short answers, likewise
    question, subject, choices, answer  MMLU: the model reads "Question: …", a line break, and "Answer:"
    question, choices, answerKey        ARC, likewise; choices are an object of the lists text and label
    ctx, endings, label                 HellaSwag: the model reads ctx
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxconf.data.documents import files_of
from jaxconf.data.sources import parsed
from jaxconf.data.statements import normal, objects_of
from jaxconf.data.text_files import read_rows
from jaxconf.models.errors import InputError

ASKED = "Question: {}\nAnswer:"
LAYOUTS = "the columns question, choices and answer, or those of MMLU, ARC or HellaSwag"
CHOICES = 4  # of a question that is made of a statement


class Question(NamedTuple):
    question: str  # what the model reads; a space stands between it and the answer
    choices: tuple[str, ...]  # none for a short answer
    answer: str
    right: int  # the index of the answer among the choices; -1 for a short answer


def read_questions(source: str | Path) -> list[Question]:
    """The questions of a source: a .jsonl or .json file (an object on each line; also .gz, .zst), a .parquet or .csv
    file, a folder, or a data set `hf://datasets/OWNER/NAME`, of which `:subset=…,split=…` names a part.

    In a CSV file a list is written as JSON. The answer to a multiple-choice question is its text, its index from 0, or
    its letter; the text counts first, and digits in text are no index where choices are numbers. Raises InputError for
    a source that cannot be read, rows that lack a column, values of the wrong kind, answers that are not among the
    choices, and a source that has no questions, or some with choices and some without.
    """
    place = parsed(str(source))
    if place.column:
        raise InputError(f"the questions {source} name a column, but questions have several; leave it out")
    found: list[Question] = []
    for file in files_of(place):
        for where, row in read_rows(file):
            found.append(_question(row, where))
            if bool(found[0].choices) != bool(found[-1].choices):
                raise InputError(
                    f"{where} {'has' if found[-1].choices else 'lacks'} choices, unlike the first question; put "
                    "multiple choice and short answers into separate files"
                )
    if not found:
        raise InputError(f"the source {source} has no questions; give a file with {LAYOUTS}")
    return found


def check_kind(questions: Sequence[Question]) -> list[Question]:
    """The questions. Raises InputError if there are none, and unless all or none of them have choices."""
    if not questions:
        raise InputError("there are no questions; give at least one")
    if len({bool(one.choices) for one in questions}) > 1:
        raise InputError("some questions have choices and some have not; give those of one kind")
    return list(questions)


def questions_of_statements(statements: pd.DataFrame, seed: int) -> list[Question]:
    """A question for each statement whose relation has at least four objects: its query, and four of these objects.

    `statements`: from `jaxconf.read_statements`. The statement's object is the answer. The others are drawn at random
    among the relation's objects, and so is the order.
    """
    pool, rng = objects_of(statements), np.random.default_rng(seed)
    found = []
    for row in statements.itertuples():
        others = [one for one in pool[row.relation] if normal(one) != normal(str(row.object))]
        if len(others) >= CHOICES - 1:
            choices = [str(row.object), *rng.choice(others, CHOICES - 1, replace=False).tolist()]
            order = rng.permutation(CHOICES).tolist()
            mixed = tuple(choices[i] for i in order)
            found.append(Question(str(row.query), mixed, choices[0], order.index(0)))
    return found


def write_questions(questions: Iterable[Question], path: Path) -> None:
    """Write multiple-choice questions as JSON lines that `read_questions` reads."""
    rows = ({"question": one.question, "choices": list(one.choices), "answer": one.right} for one in questions)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _question(row: Mapping[str, Any], where: str) -> Question:
    """The question of a row, by the layout that its columns have."""
    if "endings" in row or "ctx" in row:
        ctx, endings, label = _columns(row, where, "ctx", "endings", "label")
        choices = [_uncluttered(text) for text in _texts(endings, "endings", where)]
        return _chosen(_uncluttered(_text(ctx, "ctx", where)), choices, label, where)
    if "answerKey" in row:
        question, choices, key = _columns(row, where, "question", "choices", "answerKey")
        choices = _parsed(choices, "choices", where)
        if not isinstance(choices, dict):
            raise InputError(f"{where} has no object of the lists text and label in its choices; give one as in ARC")
        texts, labels = _columns(choices, f"choices of {where}", "text", "label")
        texts, labels = _texts(texts, "choices", where), _texts(labels, "label", where)
        if key not in labels[: len(texts)]:
            raise _not_among(key, labels, where)
        return _chosen(ASKED.format(_text(question, "question", where)), texts, labels.index(key), where)
    question, answer = _columns(row, where, "question", "answer")
    question = _text(question, "question", where)
    if "choices" not in row:
        return Question(question, (), _text(answer, "answer", where).strip(), -1)
    texts = _texts(row["choices"], "choices", where)
    return _chosen(ASKED.format(question) if "subject" in row else question, texts, answer, where)


def _columns(row: Mapping[str, Any], where: str, *names: str) -> list[Any]:
    missing = [name for name in names if name not in row]
    if missing:
        raise InputError(
            f"{where} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; give questions with {LAYOUTS}"
        )
    return [row[name] for name in names]


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} has no text as its {name}; give one, or leave the question out")
    return value


def _texts(value: Any, name: str, where: str) -> list[str]:
    found = _parsed(value, name, where)
    if not isinstance(found, list) or len(found) < 2:
        raise InputError(f"{where} has no list of two or more texts as its {name}; give one")
    return [_text(one, name, where).strip() for one in found]


def _parsed(value: Any, name: str, where: str) -> Any:
    """The value; text, which a CSV file has in place of lists, is read as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise InputError(f'{where} has {name} that are not JSON; write them as ["one", "two"]') from error


def _chosen(question: str, choices: Sequence[str], answer: Any, where: str) -> Question:
    """The question, whose answer is given as the text, the index or the letter of a choice."""
    right = _index(choices, answer.strip() if isinstance(answer, str) else answer)
    if right is None:
        raise _not_among(answer, choices, where)
    return Question(question, tuple(choices), choices[right], right)


def _index(choices: Sequence[str], answer: Any) -> int | None:
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        if len(answer) == 1 and "A" <= answer <= "Z":
            answer = ord(answer) - ord("A")
        elif answer.isdecimal() and not any(choice.isdecimal() for choice in choices):
            answer = int(answer)
    is_index = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    return answer if is_index else None


def _not_among(answer: Any, choices: Sequence[str], where: str) -> InputError:
    return InputError(
        f"{where} has the answer {answer!r}, which is not among its {len(choices)} choices; give the text of one, its "
        "index from 0, or its letter"
    )


def _uncluttered(text: str) -> str:
    """The text without the marks in brackets that WikiHow's texts have in HellaSwag; "[title]" ends a sentence."""
    return " ".join(re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).split())
