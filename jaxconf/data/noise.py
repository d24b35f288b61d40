"""The noise world: a Markov chain whose steps fail with a known probability.

After the word c, the next word is drawn from row c of a table with probability 1 − ε, and otherwise from the background
(docs/worlds.md). Letters: S window, t position, V token, W word, L level, P place in a stretch, K kind of word.
"""

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from jaxconf.data.worlds import END, Optimum, World
from jaxconf.models.errors import InputError

UNKNOWN, NONE = -1, -2  # the last word if it lies before the window, and if the document has just begun


@dataclasses.dataclass(frozen=True)
class Noise(World):
    """A chain of words: each word is followed by one that a table gives, but for the noise.

    A document is a number of stretches. A separator stands before each stretch, and the chain goes on behind it; an
    END follows the last stretch, and then another chain begins. With `restart` false there is one chain that never
    ends, without separators, and the tokenizer has neither BOS nor EOS.
    """

    chain: Literal["permutation", "cycle", "bigram"] = "permutation"
    """the table: a permutation of the words, each word and then the next, or rows of random probabilities"""
    sharpness: float = 3.0
    """of the rows of a bigram table: the standard deviation of their logits"""
    restart: bool = True
    """whether documents end, and stretches have separators"""
    lengths: Literal["random", "fixed"] = "random"
    """whether a stretch has `stretch` words on average, and may end behind each of them, or always has so many"""
    backgrounds: Literal["one", "two"] = "one"
    """one background, or Zipf's and a uniform one: marker and last word together tell which"""
    world: int = 0
    """the seed of the table and of the kinds of words"""

    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(world=0)
        if not 0 <= self.sharpness < 100:
            raise InputError(f"sharpness is {self.sharpness} in {self.source!r}; give a number from 0 to below 100")
        if not self.restart and self.signal == "marker" and self.levels > 1:
            raise InputError(
                f"{self.source!r} has no separators, so no marker can tell the level; add levels=1 or signal=inferred"
            )
        if self.backgrounds == "two" and self.zipf == 0:
            raise InputError(f"both backgrounds of {self.source!r} are uniform; add zipf=1")

    @property
    def separators(self) -> list[str]:
        return super().separators if self.restart else []

    @property
    def tokens(self) -> list[str]:
        return [name for name in super().tokens if self.restart or name != END]

    @property
    def table(self) -> np.ndarray:
        """The probabilities of the next word after each word without noise, float64 [W W]."""
        rng = np.random.default_rng([self.world, self.words])
        if self.chain == "permutation":
            return np.eye(self.words)[rng.permutation(self.words)]
        if self.chain == "cycle":
            return np.roll(np.eye(self.words), 1, axis=1)
        weights = np.exp(self.sharpness * rng.standard_normal((self.words, self.words)))
        return weights / weights.sum(1, keepdims=True)

    @property
    def kinds(self) -> np.ndarray:
        """The kind of each word, int [W]: 0, or with two backgrounds 0 or 1, drawn at random."""
        if self.backgrounds == "one":
            return np.zeros(self.words, int)
        return np.random.default_rng([self.world, self.words, 1]).integers(2, size=self.words)

    @property
    def backgrounds_behind(self) -> np.ndarray:
        """The background at each level behind a word of each kind, float64 [L K W].

        Of two backgrounds it is the uniform one where the numbers of level and kind have an even sum, else Zipf's.
        """
        if self.backgrounds == "one":
            return np.tile(self.background, (len(self.noise), 1, 1))
        both = np.stack([np.full(self.words, 1 / self.words), self.background])
        return both[(np.arange(len(self.noise))[:, None] + np.arange(2)) % 2]

    def _texts(self, rngs: Iterator[np.random.Generator]) -> Iterator[tuple[str, int]]:
        """Without `restart` each document is the next piece of the one chain."""
        names, separators, noise, last = self.tokens, self.separators, self.noise, NONE
        rows = self.table.cumsum(1).tolist()
        kinds, behind = self.kinds.tolist(), self.backgrounds_behind.cumsum(2).tolist()
        first = self._cumulative.tolist()
        for rng in rngs:
            if self.restart:
                last, stretches = NONE, int(rng.geometric(1 / self.document))
            else:
                stretches = self.document
            levels = rng.integers(len(noise), size=stretches)
            random = rng.geometric(1 / self.stretch, stretches)
            lengths = random if self.lengths == "random" else np.full(stretches, self.stretch)
            count = int(lengths.sum())
            noisy = rng.random(count) < noise[np.repeat(levels, lengths)]
            of_words = zip(noisy.tolist(), *rng.random((2, count)).tolist(), strict=True)
            text = []
            for level, length in zip(levels.tolist(), lengths.tolist(), strict=True):
                if separators:
                    text.append(separators[level % len(separators)])
                for fails, of_background, of_table in itertools.islice(of_words, length):
                    if last == NONE:
                        found = bisect_right(first, of_background)
                    elif fails:
                        found = bisect_right(behind[level][kinds[last]], of_background)
                    else:
                        found = bisect_right(rows[last], of_table)
                    last = min(found, self.words - 1)  # rounding may leave a sum below 1
                    text.append(names[last])
            yield " ".join(text), count

    def optimum(self, tokens: np.ndarray) -> Optimum:
        """As `World.optimum`.

        Source: forward filtering (Rabiner 1989, section III.A) of level and place.
        """
        return Filter(self).optimum(tokens)


def _step(world: Noise) -> np.ndarray:
    """The probabilities of the place behind a word, float64 [P-1 P], by the word's own place.

    Places are how many words the stretch has had, or, for random lengths, whether it has had one. The last place is the
    end of the stretch.
    """
    if world.lengths == "random" and world.stretch > 1:  # stretches of one word on average all have one
        return np.array([[0, 1 - 1 / world.stretch, 1 / world.stretch]] * 2)
    return np.eye(world.stretch, world.stretch + 1, 1)


class Filter:
    """What is known of level and place in windows, from their tokens so far."""

    def __init__(self, world: Noise):
        L = len(world.noise)
        self.world, self.noise, self.table, self.background = world, world.noise, world.table, world.background
        self.ends = 1 / world.document if world.restart else 0.0  # how often a document ends behind a stretch
        self.end = world.tokens.index(END) if world.restart else None
        self.behind, self.of_kind = world.backgrounds_behind, np.eye(world.backgrounds_behind.shape[1])[world.kinds]
        self.step = _step(world)
        going = self.step[:, :-1]
        # How often a stretch has each place, on average; behind the last word of each its end, and of some an END.
        self.visits = np.linalg.solve(np.eye(len(going)) - going.T, np.eye(len(going))[0])
        weights = np.append(self.visits, 1.0 if world.restart else 0.0)
        total = weights.sum() + self.ends
        self.start, self.ended = np.tile(weights / (L * total), (L, 1)), self.ends / total
        self.unseen = self._unseen()

    def _unseen(self) -> np.ndarray:
        """The probabilities of the next word at each place if no word before it has been seen, float64 [L P-1 W]."""
        L, G = len(self.noise), len(self.visits)
        words = np.broadcast_to(self.background, (L, G, self.world.words))
        # Which place the word before a place was at, and how many of the last words of stretches were at each place.
        before = self.visits[:, None] * self.step[:, :-1] / self.visits
        at_end = self.visits * self.step[:, -1]
        for _ in range(1000):
            last = np.einsum("lgw,g->w", words, at_end) / L
            moved = self._next(np.einsum("lgw,gp->lpw", words, before))
            begun = self._next(last[None, None])[:, 0]
            moved[:, 0] = begun * (1 - self.ends) + self.background * self.ends
            change, words = abs(moved - words).max(), moved
            if change < 1e-15:
                break
        return words

    def _next(self, last: np.ndarray) -> np.ndarray:
        """The probabilities of the next word at each level, [L P W], from those of the last one, [L P W] or [1 P W]."""
        return self._noisy(last @ self.table, last @ self.of_kind)

    def _noisy(self, kept: np.ndarray, of_kind: np.ndarray) -> np.ndarray:
        """The probabilities of the next word with the noise of each level, [… L P W].

        `kept`: those without noise, and `of_kind`: those of the kind of the last word, [… L P W] and [… L P K], or
        [… 1 P W] and [… 1 P K] if they are the same at each level.
        """
        noise = self.noise[:, None, None]
        return (1 - noise) * kept + noise * (of_kind @ self.behind)

    def optimum(self, tokens: np.ndarray) -> Optimum:
        """As `Noise.optimum`."""
        S, T = tokens.shape
        self.world.check_ids(tokens)
        self.belief = np.broadcast_to(self.start, (S, *self.start.shape)).copy()
        self.after_end = np.full(S, self.ended)
        self.last = np.full(S, UNKNOWN)
        probabilities = np.zeros((S, T, len(self.world.tokens)))
        noise, words = np.zeros((2, S, T))
        rows = self._rows()
        for t in range(T):
            if t or self.end is None:
                self._observe(tokens[:, t], rows, t)
            else:  # an END that begins a window says nothing
                self._observe(np.where(tokens[:, t] == self.end, -1, tokens[:, t]), rows, t)
            rows = self._rows()
            probabilities[:, t], noise[:, t], words[:, t] = self._predicted(rows)
        with np.errstate(divide="ignore"):
            return Optimum(np.log(probabilities), noise, words)

    def _rows(self) -> np.ndarray:
        """The probabilities of the next word for each level and place, float64 [S L P-1 W] or [S L 1 W]."""
        known = self._noisy(self.table[self.last][:, None, None], self.of_kind[self.last][:, None, None])
        none, unknown = ((self.last == of)[:, None, None, None] for of in (NONE, UNKNOWN))
        known = np.where(none, self.background, known)
        return np.where(unknown, self.unseen, known) if unknown.any() else known

    def _predicted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The probabilities of the next token [S V], the mean noise of the next word [S], the share of words [S].

        `rows`: those of `_rows` now.
        """
        W, separators = self.world.words, len(self.world.separators)
        going, over = self.belief[:, :, :-1], self.belief[:, :, -1].sum(1)
        found = np.zeros((len(going), len(self.world.tokens)))
        weights = going.sum(2, keepdims=True)
        found[:, :W] = np.einsum("slp,slpw->sw", going if rows.shape[2] > 1 else weights, rows)
        if separators:
            found[:, W : W + separators] = ((over * (1 - self.ends) + self.after_end) / separators)[:, None]
            found[:, self.end] = over * self.ends
        total = going.sum((1, 2))
        with np.errstate(invalid="ignore"):
            noise = np.where(total > 0, np.einsum("sl,l->s", weights[..., 0], self.noise) / total, np.nan)
        return found, noise, total

    def _observe(self, tokens: np.ndarray, rows: np.ndarray, t: int) -> None:
        """Take one more token of each window into account; -1 is one that says nothing.

        `rows`: those of `_rows` before it.
        """
        W = self.world.words
        word, ends = (tokens >= 0) & (tokens < W), tokens == self.end
        separator = (tokens >= W) & ~ends
        of_word = np.take_along_axis(rows, np.where(word, tokens, 0)[:, None, None, None], 3)[..., 0]
        moved = (self.belief[:, :, :-1] * of_word) @ self.step
        if not self.world.restart:  # the next stretch begins at once
            moved[:, :, 0], moved[:, :, -1] = moved[:, :, -1].mean(1, keepdims=True), 0
        begun = np.zeros_like(self.belief)
        level = np.where(separator, tokens - W, 0)
        several = len(self.world.separators) > 1
        begun[:, :, 0] = np.eye(len(self.noise))[level] if several else 1 / len(self.noise)
        likely = np.where(word, moved.sum((1, 2)), np.where(ends, self.belief[:, :, -1].sum(1), 1))
        likely = np.where(separator, self.belief[:, :, -1].sum(1) + self.after_end, likely)
        self.world.check_likely(likely, t)
        shape = (slice(None), None, None)
        self.belief = np.where(word[shape], moved / np.where(word, likely, 1)[shape], self.belief)
        self.belief = np.where(separator[shape], begun, np.where(ends[shape], 0, self.belief))
        self.after_end = np.where(word | separator, 0.0, np.where(ends, 1.0, self.after_end))
        self.last = np.where(word, tokens, np.where(ends, NONE, self.last))
