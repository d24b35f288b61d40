"""The texts that a model is asked: first queries alone, then prompts whose context contradicts its answer to the query.

A query is "S R", and a prompt "S R o'. S R" with a counterfactual object o', which is neither the statement's object
nor the model's own. Letters: p prompt, j given answer. Source: Tighidet et al. 2025 (arXiv 2509.10663).
"""

import numpy as np
import pandas as pd

from jaxconf.data.statements import contradicts, normal, objects_of, own_object
from jaxconf.measure.answers import unablated
from jaxconf.measure.prompts import Asked, encoded_answers
from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer import Tokenizer

NEW_TOKENS = 10
COUNTERFACTUALS = 3  # for each statement


def usable_statements(statements: pd.DataFrame) -> pd.DataFrame:
    """The statements of relations that have two objects or more."""
    return statements[statements["relation"].map(objects_of(statements).map(len)) >= 2]


def drawn_statements(statements: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """`count` usable statements, drawn at random, or all if there are fewer. They keep the order of the file."""
    usable = usable_statements(statements)
    return usable.sample(min(count, len(usable)), random_state=np.random.default_rng([seed, 1])).sort_index()


def own_objects(asked: Asked, statements: pd.DataFrame, pool: pd.Series) -> pd.DataFrame:
    """The statements with the model's answers to their queries: the columns of `Copying.statements`.

    `pool`: the objects of each relation.
    """
    queries, objects = statements["query"].tolist(), statements[["object"]].to_numpy()
    found = asked.answers(queries, objects, unablated(asked.lm.config), NEW_TOKENS, "own objects")
    said = [asked.text(ids) for ids in found.tokens[0]]
    own = [own_object(text, pool[relation]) for text, relation in zip(said, statements["relation"], strict=True)]
    knows = [normal(one) == normal(other) for one, other in zip(own, statements["object"], strict=True)]
    return statements.assign(continuation=said, own=own, knows=knows, entropy=found.entropy[0])


def contradicting_prompts(asked: Asked, statements: pd.DataFrame, pool: pd.Series) -> pd.DataFrame:
    """Up to three prompts for each statement, with the counterfactual objects that the model finds least likely.

    `statements`: from `own_objects`; `pool`: the objects of each relation. Columns `statement` (its index), `query`,
    `own`, `context` (the counterfactual object), `tokens` (how many it has), `log_p_query` and `prompt`. Raises
    InputError if no object contradicts what the model says.
    """
    found = _counterfactuals(asked.tokenizer, statements, pool)
    scores = asked.answers(
        found["query"].tolist(), found[["context"]].to_numpy(), unablated(asked.lm.config), 0, "counterfactual objects"
    )
    found["log_p_query"] = scores.log_p[0, :, 0] / found["tokens"]
    ranked = found.sort_values(["statement", "log_p_query"], kind="stable")
    prompts = ranked.groupby("statement").head(COUNTERFACTUALS)
    text = prompts["query"] + " " + prompts["context"] + ". " + prompts["query"]
    return prompts.assign(prompt=text).reset_index(drop=True)


def _counterfactuals(tokenizer: Tokenizer, statements: pd.DataFrame, pool: pd.Series) -> pd.DataFrame:
    """A row per statement and counterfactual object of its relation that has at most NEW_TOKENS tokens."""
    rows = [
        (at, row.query, row.own, other)
        for at, row in zip(statements.index, statements.itertuples(), strict=True)
        for other in pool[row.relation]
        if row.own and normal(other) != normal(row.object) and contradicts(other, row.own)
    ]
    found = pd.DataFrame(rows, columns=["statement", "query", "own", "context"])
    ids = encoded_answers(tokenizer, found["query"].tolist(), found[["context"]].to_numpy())
    found["tokens"] = [len(answer) for [answer] in ids]
    found = found[found["tokens"] <= NEW_TOKENS]
    if found.empty:
        raise InputError(
            "no object contradicts what the model answers to a query; give other statements, or another model"
        )
    return found
