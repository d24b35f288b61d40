"""What all parts of the study of repeated text share: the model, the texts and the settings.

Letters: b sequence, L repeated tokens, t position (2L + 1), s window, T its length. `jaxconf.analysis.induction` says
how a sequence is laid out. "The repeat" is the positions of the second copy whose next token belongs to the second copy
too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxconf.analysis.induction import predictions, repeated
from jaxconf.data.documents import documents
from jaxconf.data.own_text import source_for
from jaxconf.data.windows import kept_positions, windows
from jaxconf.measure.inputs import windows_and_facts, with_target
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.memory import fitting
from jaxconf.runtime.progress import Progress

NATURAL_TOKENS = 2**18  # tokens of a text that are searched for natural induction


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts that the model is run on."""

    repeated: np.ndarray  # int32 [b t]
    windows: np.ndarray  # int32 [s T]: scaling is measured on these and on the repeat
    kept: np.ndarray  # bool [s T]: the positions of the windows that count
    searched: np.ndarray | None  # int32 [s T]: windows that are searched for natural induction
    facts: dict[str, Any]  # where the texts come from, and how they were read

    @property
    def length(self) -> int:
        """The number L of repeated tokens."""
        return self.repeated.shape[1] // 2

    @property
    def repeat(self) -> np.ndarray:
        """Which positions are the repeat, bool [t]."""
        return predictions(self.length)[1]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The model, the texts that it is run on, and the settings of the study."""

    lm: LanguageModel
    texts: Texts
    bootstrap_draws: int
    seed: int
    memory: int  # bytes
    progress: Progress

    @property
    def random(self) -> np.ndarray:
        """Repeated random tokens, on which the paper scores heads: int32, with the shape of `texts.repeated`."""
        tokens, rng = self.texts.repeated, np.random.default_rng([self.seed, 2])
        drawn = random_tokens(self.lm, len(tokens), self.texts.length, rng)
        return repeated(drawn.astype(np.int32), int(tokens[0, 0]))

    def fitted(self, measure: Callable[..., Any], *of: Any) -> Any:
        """`measure(lm, *of, memory, progress)`, called again with half of `memory` if the device has too little."""
        return fitting(lambda memory: measure(self.lm, *of, memory, self.progress), self.memory, self.progress)


def check_repeats(lm: LanguageModel, length: int) -> int:
    """The id of the BOS that repeated sequences begin with.

    Raises InputError if the model has no BOS, and for a length that is too small or that does not fit the model.
    """
    if length < 4:
        raise InputError(f"the repeated text has {length} tokens; give a length of at least 4")
    if 2 * length + 1 > (T := lm.config.n_positions):
        raise InputError(
            f"twice {length} tokens and BOS are more than the model's {T} positions; give a length up to {(T - 1) // 2}"
        )
    if lm.bos_id is None:
        raise InputError("the model has no BOS token, with which a repeated sequence begins; choose another model")
    return lm.bos_id


def read_texts(
    lm: LanguageModel,
    tokens: np.ndarray | int,
    data: str,
    sequences: np.ndarray | int,
    length: int,
    random: bool,
    natural: np.ndarray | bool,
    seed: int,
) -> Texts:
    """The texts for the arguments of `jaxconf.induction`, which has the same names; raises InputError as it does."""
    facts: dict[str, Any] = {}
    if isinstance(tokens, int) or isinstance(sequences, int) or natural is True:
        facts["data"] = data = source_for(data, lm.folder)
    of_repeated: dict[str, Any] = {}
    if isinstance(sequences, int):
        facts["repeated"] = "random tokens" if random else "text"
        sequences, of_repeated = text_to_repeat(lm, sequences, data, length, random, seed)
    (read, _), of_read = windows_and_facts(tokens, data, lm)
    searched, of_searched = None, dict[str, Any]()
    if natural is not False:
        (searched, _), of_searched = windows_and_facts(NATURAL_TOKENS if natural is True else natural, data, lm)
    # All are read from the start of the same text, so that the one that was read furthest met the rows of the others.
    readings = [of_repeated, of_read, of_searched]
    furthest = max(readings, key=lambda reading: (len(reading), reading.get("rows_skipped", 0)))
    facts |= furthest
    bos = check_repeats(lm, sequences.shape[1])
    return Texts(
        repeated(np.asarray(sequences, np.int32), bos),
        read,
        with_target(read, kept_positions(read, lm.special_ids)),
        searched,
        facts,
    )


def text_to_repeat(
    lm: LanguageModel, sequences: int, data: str, length: int, random: bool, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The tokens that each sequence repeats, int [b L], and the facts of reading them.

    They are pieces of the text `data`, or with `random` drawn with `seed`. Raises InputError if the text has too few
    pieces, and as `jaxconf.documents` and `jaxconf.windows` do.
    """
    if random:
        return random_tokens(lm, sequences, length, np.random.default_rng(seed)), {}
    text = documents(source_for(data, lm.folder))
    pieces = windows(text, lm.tokenizer, sequences * (length + 1), length + 1).tokens
    if (most := len(pieces)) < sequences:
        raise InputError(
            f"the text gives {most} sequences of {length} tokens; give more text, or at most {most} sequences"
        )
    return pieces[:, 1:], text.facts  # without BOS


def random_tokens(lm: LanguageModel, sequences: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens drawn uniformly from all that are neither special nor beyond the tokenizer's vocabulary, int [b L]."""
    end = min(lm.config.vocab_size, lm.tokenizer.vocab_size) if lm.has_tokenizer else lm.config.vocab_size
    return rng.choice(sorted(set(range(end)) - lm.special_ids), (sequences, length))
