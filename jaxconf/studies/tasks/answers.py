"""The answers to questions with every neuron set treated: scores of choices, and short answers in the model's words.

Letters: q question, j choice, c neuron set, n new token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.calibration import Predicted
from jaxconf.analysis.question_scores import answered, choice_scores, said
from jaxconf.data.questions import Question
from jaxconf.data.statements import begins, normal
from jaxconf.measure.answers import answers_together
from jaxconf.measure.prompts import Asked, encoded, encoded_answers
from jaxconf.measure.treated_sets import Together
from jaxconf.runtime.memory import fitting

NEW_TOKENS = 16  # of a short answer
SHORT = "match"  # the score of short answers


class Outcome(NamedTuple):
    """The answers by one score."""

    predicted: Predicted  # c q
    texts: np.ndarray  # object [c q]: the answers


def outcomes(asked: Asked, questions: Sequence[Question], sets: Sequence[Together]) -> dict[str, Outcome]:
    """Score → the answers to the questions with each set treated.

    The scores of multiple choice are those of `jaxconf.analysis.question_scores.SCORES`, and that of short answers is
    SHORT.
    """
    return _of_choices(asked, questions, sets) if questions[0].choices else _of_short(asked, questions, sets)


def _of_choices(asked: Asked, questions: Sequence[Question], sets: Sequence[Together]) -> dict[str, Outcome]:
    most = max(len(one.choices) for one in questions)
    real = np.arange(most) < np.array([[len(one.choices)] for one in questions])
    # Every prompt has equally many answers: the first choice stands where there are fewer choices.
    texts = np.array([(*one.choices, *one.choices[:1] * (most - len(one.choices))) for one in questions], object)
    prompts, right = [one.question for one in questions], np.array([one.right for one in questions])
    size = {
        "acc_norm": np.array([[len(text.encode()) for text in row] for row in texts]),
        "acc_token": np.array([[len(ids) for ids in row] for row in encoded_answers(asked.tokenizer, prompts, texts)]),
    }
    found = asked.answers(prompts, texts, sets, 0, "choices with every set")
    every = choice_scores(found.log_p, size, real)
    at = np.arange(len(questions))
    return {name: Outcome(answered(score, right), texts[at, score.argmax(-1)]) for name, score in every.items()}


def _of_short(asked: Asked, questions: Sequence[Question], sets: Sequence[Together]) -> dict[str, Outcome]:
    prompts = [one.question for one in questions]
    answers = np.array([[one.answer] for one in questions], object)
    found = asked.answers(prompts, answers, sets, NEW_TOKENS, "short answers with every set")
    # Most sets give the same answers, so the probability of each different one is computed once for all sets.
    pairs: dict[tuple[int, tuple[int, ...]], int] = {}
    at, texts = np.zeros(found.tokens.shape[:2], int), np.empty(found.tokens.shape[:2], object)
    for c, q in np.ndindex(at.shape):
        ids = _until_line_break(asked, found.tokens[c, q])
        at[c, q] = pairs.setdefault((q, tuple(ids.tolist())), len(pairs))
        texts[c, q] = asked.text(ids).strip()
    log_p = _mean_log_p(asked, prompts, list(pairs), sets)[np.arange(len(at))[:, None], at]
    correct = np.array(
        [[begins(normal(text), normal(q.answer)) for text, q in zip(row, questions, strict=True)] for row in texts]
    )
    return {SHORT: Outcome(said(log_p, correct, found.entropy), texts)}


def _until_line_break(asked: Asked, ids: np.ndarray) -> np.ndarray:
    """The tokens of an answer, at least one: those before the first line break behind text, or before a text's end."""
    for n in range(1, len(ids)):
        if int(ids[n]) in asked.lm.eos_ids or "\n" in asked.tokenizer.decode(ids[: n + 1]).lstrip():
            return ids[:n]
    return ids


def _mean_log_p(
    asked: Asked, prompts: Sequence[str], pairs: Sequence[tuple[int, tuple[int, ...]]], sets: Sequence[Together]
) -> np.ndarray:
    """The mean log-probability of the tokens of an answer with each set treated, [c pairs].

    `pairs`: the index of a prompt, and the tokens of an answer to it.
    """
    ids = encoded(asked.tokenizer, prompts)
    of_pairs, given = [ids[q] for q, _ in pairs], [[np.array(answer, np.int32)] for _, answer in pairs]

    def measured(memory: int) -> np.ndarray:
        what = "probabilities of the short answers"
        found = answers_together(asked.lm, of_pairs, given, sets, 0, memory, asked.progress, what)
        return found.log_p[:, :, 0]

    return fitting(measured, asked.memory, asked.progress) / np.array([len(answer) for _, answer in pairs])
