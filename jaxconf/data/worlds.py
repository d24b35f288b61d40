"""Worlds: sources of synthetic text in which the best possible prediction of every token is known.

A source is named like `noise` or `noise:words=64,signal=inferred`: a world, and the parameters that are not the default
ones. Letters: S window, t position, V token, L level.
"""

import abc
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_type_hints

import numpy as np
import tokenizers

from jaxconf.models.errors import InputError, nearest

END = "<|endoftext|>"
SOURCE = "jaxconf_source"  # the key of tokenizer_config.json that names the source that a tokenizer is of
OF_TEXT = ("seed", "size")  # the parameters that choose a text of the world; the others choose the world
Signal = Literal["marker", "inferred", "none"]


class Optimum(NamedTuple):
    """The best prediction that can be made in each window from its tokens up to each position."""

    log_probs: np.ndarray  # float64 [S t V]: the log-probabilities of the next token, in nats
    noise: np.ndarray  # float64 [S t]: the mean of the noise ε of the next word, NaN where no word can be next; 1 where
    # the background is all that can be said of the word
    words: np.ndarray  # float64 [S t]: the probability that the next token is a word


@dataclasses.dataclass(frozen=True)
class World(abc.ABC):
    """What all worlds have: words, and stretches of them, each with a level of noise ε of its own.

    With probability ε the next word is drawn from the background, a distribution over all words. Otherwise it is the
    word that the world's structure gives. `signal` says how ε can be told: a "marker" before each stretch names its
    level; it is "inferred" from the stretch so far; or "none": each word draws a level of its own, so that nothing
    tells it, and the best prediction takes the mean.
    """

    words: int = 128
    """how many words there are"""
    levels: int = 8
    """how many levels of noise there are, evenly spaced from `least` to `most`; 1 is their mean"""
    least: float = 0.05
    """the smallest ε"""
    most: float = 0.95
    """the largest ε"""
    stretch: int = 15
    """words in a stretch"""
    zipf: float = 0.0
    """the background probability of word r is proportional to (r + 1)**-zipf; 0 is uniform"""
    signal: Signal = "marker"
    """how ε can be told"""
    document: int = 16
    """mean number of stretches in a document, or of pairs of them in the copies world"""
    seed: int = 0
    """the seed of the text"""
    size: int = 2_000_000
    """how many words the text has at least"""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        self._check_least(words=2, levels=1, stretch=1, document=1, seed=0, size=1)
        if self.levels > self.words:
            raise InputError(
                f"{self.source!r} has {self.levels} levels and {self.words} words; give at most as many levels as words"
            )
        if not 0 <= self.least <= self.most <= 1:
            raise InputError(
                f"the noise goes from {self.least} to {self.most} in {self.source!r}; give 0 <= least <= most <= 1"
            )
        if not 0 <= self.zipf < 10:
            raise InputError(f"zipf is {self.zipf} in {self.source!r}; give a number from 0 to below 10")

    def _check_least(self, **least: int) -> None:
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"{name} is {getattr(self, name)} in {self.source!r}; give at least {value}")

    @property
    def source(self) -> str:
        """The name of the source, which `world_of` reads, with the parameters that are not the default ones."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return self.name + ":" * bool(given) + ",".join(f"{name}={_written(value)}" for name, value in given.items())

    @property
    def structure(self) -> str:
        """The name of the source without the parameters OF_TEXT: what all texts of the world share."""
        return dataclasses.replace(self, **{name: getattr(type(self), name) for name in OF_TEXT}).source

    @property
    def noise(self) -> np.ndarray:
        """The ε that can be told apart, float64 [L], ascending: one a level, or their mean if `signal` is "none"."""
        every = np.linspace(self.least, self.most, self.levels) if self.levels > 1 else np.array([self._mean])
        return np.array([self._mean]) if self.signal == "none" else every

    @property
    def _mean(self) -> float:
        return (self.least + self.most) / 2

    @functools.cached_property
    def background(self) -> np.ndarray:
        """The background distribution over the words, float64 [words]."""
        weights = np.arange(1, self.words + 1, dtype=np.float64) ** -self.zipf
        return weights / weights.sum()

    def log_temperature(self, noise: np.ndarray) -> np.ndarray:
        """The best log-temperature at noise ε, float64 of the same shape; -inf at 0.

        Its inverse temperature is the log-ratio of the probabilities of the word that the structure gives and of a word
        of the mean background probability, log((1 − ε) W/ε + 1).
        """
        return -np.log(np.log1p((1 - noise) * self.words / noise))

    @property
    def separators(self) -> list[str]:
        """The tokens that begin stretches, by their names: of each level, or one that tells nothing."""
        return [f"e{level}" for level in range(len(self.noise))] if self.signal == "marker" else ["e"]

    @property
    def tokens(self) -> list[str]:
        """All tokens by their names, in the order of their ids: the words, the separators, the end of a document."""
        return [*(f"w{word}" for word in range(self.words)), *self.separators, END]

    @property
    def tokenizer_files(self) -> dict[str, str]:
        """Name → content of the files of the world's tokenizer, which makes each word one token."""
        vocabulary = {name: index for index, name in enumerate(self.tokens)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        special = {"bos_token": END, "eos_token": END} if END in vocabulary else {}
        config = {**special, "tokenizer_class": "PreTrainedTokenizerFast", SOURCE: self.structure}
        if special:
            tokenizer.add_special_tokens([END])
        return {"tokenizer.json": tokenizer.to_str(), "tokenizer_config.json": json.dumps(config, indent=1) + "\n"}

    def documents(self) -> Iterator[str]:
        """The documents of the text; the same for the same parameters."""
        words = 0
        for text, count in self._texts(np.random.default_rng([self.seed, number]) for number in itertools.count()):
            yield text
            words += count
            if words >= self.size:
                return

    @abc.abstractmethod
    def _texts(self, rngs: Iterator[np.random.Generator]) -> Iterator[tuple[str, int]]:
        """Documents without end, each drawn with the next of `rngs`, and how many words each has."""

    @abc.abstractmethod
    def optimum(self, tokens: np.ndarray) -> Optimum:
        """The best prediction in windows int [S t] of the text, which may begin at any place of it.

        An END at the beginning of a window says nothing. Raises InputError for tokens that the text cannot have there.
        """

    def drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Words from the background, int of the shape."""
        found = np.searchsorted(self._cumulative, rng.random(shape), side="right")
        return np.minimum(found, self.words - 1)  # rounding may leave the sum of the background below 1

    @functools.cached_property
    def _cumulative(self) -> np.ndarray:
        return self.background.cumsum()

    def check_ids(self, tokens: np.ndarray) -> None:
        """Raises InputError unless all tokens, int [S t], are ids of the world's tokens."""
        known = (tokens >= 0) & (tokens < len(self.tokens))
        t = int((~known).any(0).argmax())
        self.check_likely(known[:, t], t)

    def check_likely(self, likely: np.ndarray, t: int) -> None:
        """Raises InputError unless `likely`, the probability of token t of each window [S], is above 0 in each."""
        if (likely <= 0).any():
            raise InputError(
                f"token {t} of window {np.argmax(likely <= 0)} cannot stand there in a text of {self.source!r}; "
                "give windows of its own text"
            )


def world_of(source: str) -> World | None:
    """The world that a source names, or None if it names none.

    Raises InputError for a parameter that the world does not have, and for a value that it cannot have.
    """
    from jaxconf.data.copies import Copies
    from jaxconf.data.noise import Noise

    kind = {world.name: world for world in (Noise, Copies)}.get(source.partition(":")[0])
    return None if kind is None else kind(**_parameters(kind, source))


def _parameters(kind: type[World], source: str) -> dict[str, Any]:
    """The parameters that a source NAME:PARAMETER=VALUE,PARAMETER=VALUE gives."""
    types, found = get_type_hints(kind), {}
    names = [field.name for field in dataclasses.fields(kind)]
    for part in filter(None, source.partition(":")[2].split(",")):
        name, equals, text = part.partition("=")
        if name not in names:
            raise InputError(
                f"{source!r} has the parameter {name!r}, which {kind.name} does not have; the nearest is "
                f"{nearest(name, names)!r}, and all are {', '.join(names)}"
            )
        if name in found or not equals:
            problem = "twice" if name in found else "without a value"
            raise InputError(f"{source!r} has {name} {problem}; give NAME=VALUE once for each parameter")
        found[name] = _value(types[name], text, f"{name} is {text!r} in {source!r}")
    return found


def _value(kind: Any, text: str, problem: str) -> Any:
    """The value of type `kind` that a text names."""
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise InputError(f"{problem}; give {'a whole number' if kind is int else 'a number'}") from None
    options: Any = {"true": True, "false": False} if kind is bool else {name: name for name in get_args(kind)}
    if text not in options:
        raise InputError(f"{problem}; give {' or '.join(options)}")
    return options[text]


def _written(value: Any) -> str:
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return str(value).lower() if isinstance(value, bool) else str(value)
