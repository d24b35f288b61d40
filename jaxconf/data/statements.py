"""Statements of facts: subject, relation, object. How they are read, and what an answer to one is.

A statement says "S R o."; its query is "S R". Texts are compared after `normal`; one begins with another where the other ends at a word's end.
Source: Tighidet et al. 2025 (arXiv 2509.10663); their statements are those of ParaRel (Elazar et al. 2021, arXiv 2102.01017).
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxconf.models.errors import InputError

COLUMNS = {"rel_p_id": "relation", "statement_subject": "subject", "statement_relation": "words", "statement_object": "object"}


def read_statements(path: str | Path) -> pd.DataFrame:
    """The statements of a CSV file with the columns of COLUMNS, whose other columns are not read: a row per statement.

    Columns `row` (its number in the file, from 0), `relation` (its name), `query` (subject and relation in words) and `object`. A query
    that a relation has twice counts once. Raises InputError for a file that is no such table, and if no relation has two objects.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # of pandas, those of its parser too
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as CSV ({reason}); give a file of statements") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; give statements with {', '.join(COLUMNS)}, as ParaRel's have")
    frame = frame[list(COLUMNS)].rename(columns=COLUMNS)
    frame = frame.apply(lambda column: column.str.strip())
    empty = frame.eq("")
    if empty.to_numpy().any():
        row, column = np.argwhere(empty.to_numpy())[0]
        raise InputError(f"{path} has no {list(COLUMNS)[column]} in its statement {row + 1}; fill it in or remove the statement")
    frame = frame.assign(row=frame.index, query=frame["subject"] + " " + frame["words"])
    frame = frame.drop_duplicates(["relation", "query"], ignore_index=True)
    if not (objects_of(frame).map(len) >= 2).any():
        raise InputError(f"{path} has no relation with two objects or more, so nothing can contradict a statement; give more statements")
    return frame[["row", "relation", "query", "object"]]


def objects_of(statements: pd.DataFrame) -> pd.Series:
    """The different objects of each relation, in the order of the statements."""

    def different(objects: pd.Series) -> list[str]:
        return objects[~objects.map(normal).duplicated()].tolist()

    return statements.groupby("relation")["object"].apply(different)


def normal(text: str) -> str:
    """Without differences that do not matter to what is meant: compatible characters, case, and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def begins(text: str, answer: str) -> bool:
    """Whether a text begins with an answer, both normal, that ends where a word of the text does; an empty answer begins nothing."""
    return bool(answer) and text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalnum()


def own_object(continuation: str, objects: Sequence[str]) -> str:
    """What a model answers a query with: the longest of the relation's objects that its continuation begins with, or else all before the first
    punctuation mark or line break. Empty if there is nothing before it.
    """
    text = normal(continuation)
    known = [answer for answer in objects if begins(text, normal(answer))]
    return max(known, key=len) if known else " ".join(re.split(r"[.,;:!?\"“”()\n]", continuation.strip(), maxsplit=1)[0].split())


def contradicts(answer: str, other: str) -> bool:
    """Whether a text can begin with only one of the two."""
    one, two = normal(answer), normal(other)
    return not begins(one, two) and not begins(two, one)


def answer_class(continuation: str, context: str, own: str) -> int:
    """The class of an answer, as an index into `jaxconf.analysis.transitions.CLASSES`: CK if the continuation begins with the context's object,
    PK if it begins with the model's own, else ND. No text begins with both if they contradict each other.
    """
    text = normal(continuation)
    return 0 if begins(text, normal(context)) else 1 if begins(text, normal(own)) else 2
