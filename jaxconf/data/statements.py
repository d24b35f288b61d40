"""Statements of facts: how they are read from a file, and how a model's answers to their queries are classified.

A statement "S R o." has a subject, a relation and an object; its query is "S R". All texts are normalised by `normal`
before they are compared. Source: Tighidet et al. 2025 (arXiv 2509.10663), who use the statements of ParaRel (Elazar et
al. 2021, arXiv 2102.01017).
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxconf.models.errors import InputError, first_line

COLUMNS = {
    "rel_p_id": "relation",
    "statement_subject": "subject",
    "statement_relation": "words",
    "statement_object": "object",
}
"""Column in a file of statements → its name in this package."""


def read_statements(path: str | Path) -> pd.DataFrame:
    """Read a CSV file of statements that has COLUMNS into a table with a row per statement.

    Columns of the table: `row` (the statement's row in the file, from 0), `relation` (its name), `query` (subject and
    relation in words) and `object`. Of statements with the same relation and query only the first is kept. Raises
    InputError if the file cannot be read as CSV, lacks one of COLUMNS or a value in them, or has no relation with two
    different objects.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # the errors of pandas' parser are ValueErrors
        raise InputError(f"{path} cannot be read as CSV ({first_line(error)}); give a file of statements") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; give a CSV file with a fact on "
            "each row, such as P36 as rel_p_id, France as statement_subject, 'has the capital' as statement_relation "
            "and Paris as statement_object"
        )
    frame = frame[list(COLUMNS)].rename(columns=COLUMNS)
    frame = frame.apply(lambda column: column.str.strip())
    empty = frame.eq("")
    if empty.to_numpy().any():
        row, column = np.argwhere(empty.to_numpy())[0]
        raise InputError(
            f"{path} has no {list(COLUMNS)[column]} in its statement {row + 1}; fill it in or remove the statement"
        )
    frame = frame.assign(row=frame.index, query=frame["subject"] + " " + frame["words"])
    frame = frame.drop_duplicates(["relation", "query"], ignore_index=True)
    if not (objects_of(frame).map(len) >= 2).any():
        raise InputError(
            f"{path} has no relation with two objects, so nothing can contradict a statement; give more statements"
        )
    return frame[["row", "relation", "query", "object"]]


def objects_of(statements: pd.DataFrame) -> pd.Series:
    """The different objects of each relation: a list per relation, in the order of the statements."""

    def different(objects: pd.Series) -> list[str]:
        return objects[~objects.map(normal).duplicated()].tolist()

    return statements.groupby("relation")["object"].apply(different)


def normal(text: str) -> str:
    """The text normalised for comparison: by NFKC, to one case, and with single spaces as its only white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def begins(text: str, answer: str) -> bool:
    """Whether a text begins with an answer and the answer's last word ends there; both are already normalised.

    False for an empty answer.
    """
    return bool(answer) and text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalnum()


def own_object(continuation: str, objects: Sequence[str]) -> str:
    """The model's own object: the object with which it continues a query that no context precedes.

    This is the longest of the relation's `objects` that the continuation begins with. If it begins with none of them,
    the own object is the text before the first punctuation mark or line break, which may be empty.
    """
    text = normal(continuation)
    known = [answer for answer in objects if begins(text, normal(answer))]
    if known:
        return max(known, key=len)
    return " ".join(re.split(r"[.,;:!?\"“”()\n]", continuation.strip(), maxsplit=1)[0].split())


def contradicts(answer: str, other: str) -> bool:
    """Whether no text can begin with both answers."""
    one, two = normal(answer), normal(other)
    return not begins(one, two) and not begins(two, one)


def answer_class(continuation: str, context: str, own: str) -> int:
    """The class of an answer, an index into `jaxconf.analysis.transitions.CLASSES`.

    It is CK (0) if the continuation begins with the context's object, PK (1) if it begins with the model's own object,
    and ND (2) otherwise. The two objects should contradict each other, so that no continuation begins with both.
    """
    text = normal(continuation)
    return 0 if begins(text, normal(context)) else 1 if begins(text, normal(own)) else 2
