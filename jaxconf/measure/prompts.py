"""Prompts and answers as texts: how they become token ids, and how a model is asked them.

Letters: p prompt, j given answer.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxconf.measure.answers import Answers, answers_together
from jaxconf.measure.treated_sets import Together
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.memory import fitting
from jaxconf.runtime.progress import Progress


@dataclasses.dataclass(frozen=True)
class Asked:
    """The model that is asked, its tokenizer, the memory that may be used, and where progress is reported."""

    lm: LanguageModel
    tokenizer: Tokenizer
    memory: int  # bytes
    progress: Progress

    def answers(
        self, prompts: Sequence[str], given: np.ndarray, sets: Sequence[Together], new_tokens: int, what: str
    ) -> Answers:
        """The answers to the prompts with each set treated, and the probabilities of `given` texts [p j].

        `what`: the name of the stage that the progress is reported for.
        """
        ids, of_given = encoded(self.tokenizer, prompts), encoded_answers(self.tokenizer, prompts, given)

        def answered(memory: int) -> Answers:
            return answers_together(self.lm, ids, of_given, sets, new_tokens, memory, self.progress, what)

        return fitting(answered, self.memory, self.progress)

    def text(self, ids: np.ndarray) -> str:
        """The text of a continuation, up to the first token that ends a text."""
        ended = np.flatnonzero(np.isin(ids, list(self.lm.eos_ids)))
        return self.tokenizer.decode(ids[: ended[0]] if len(ended) else ids)


def encoded(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[np.ndarray]:
    """The token ids of prompts, int32; each begins with BOS, if the tokenizer has one."""
    bos = np.array([] if tokenizer.bos_id is None else [tokenizer.bos_id], np.int32)
    return [np.concatenate([bos, ids]) for ids in tokenizer.encode_batch(list(prompts))]


def encoded_answers(tokenizer: Tokenizer, prompts: Sequence[str], answers: np.ndarray) -> list[list[np.ndarray]]:
    """The token ids, int32, of the answers, texts [p j]: those that follow a prompt's ids when both are encoded."""
    alone = tokenizer.encode_batch(list(prompts))
    whole = tokenizer.encode_batch(
        [f"{prompt} {answer}" for prompt, of_prompt in zip(prompts, answers, strict=True) for answer in of_prompt]
    )

    def ids(p: int, j: int) -> np.ndarray:
        both, n = whole[p * answers.shape[1] + j], len(alone[p])
        # A tokenizer may split the prompt differently if an answer follows it. Then the answer is encoded by itself.
        return both[n:] if np.array_equal(both[:n], alone[p]) else tokenizer.encode_batch([f" {answers[p, j]}"])[0]

    return [[ids(p, j) for j in range(answers.shape[1])] for p in range(len(prompts))]
