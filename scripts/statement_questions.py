"""Turns statements of facts into multiple-choice questions for `jaxconf tasks`.

    python scripts/statement_questions.py STATEMENTS.csv QUESTIONS.jsonl [--seed 0]

The statements are as for `jaxconf copying`, such as ParaRel's. A question is the statement's subject and relation; its
choices are the statement's object and three other objects of the same relation, in random order. Statements of
relations with fewer than four objects are left out.
"""

import dataclasses
from pathlib import Path

import tyro
from tyro.conf import Positional

from jaxconf.data.questions import questions_of_statements, write_questions
from jaxconf.data.statements import read_statements


@dataclasses.dataclass(frozen=True)
class Questions:
    """Turn statements of facts into multiple-choice questions."""

    statements: Positional[Path]
    """a CSV file of statements, as for `jaxconf copying`"""
    out: Positional[Path]
    """the JSON lines to write"""
    seed: int = 0
    """of the other choices and of the order"""


def main(how: Questions) -> None:
    statements = read_statements(how.statements)
    questions = questions_of_statements(statements, how.seed)
    write_questions(questions, how.out)
    print(f"{len(questions):,} questions of {len(statements):,} statements: {how.out}")


if __name__ == "__main__":
    main(tyro.cli(Questions))
