"""The copies world: stretches of text that are repeated with a known reliability, so that induction has to be hedged.

Letters: S window, t position, V token, L level, P words of a stretch.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from jaxconf.data.worlds import Optimum, World

UNKNOWN, BASE, COPY, ENDED = range(4)  # what the last token belongs to: ENDED is the end of a document


@dataclasses.dataclass(frozen=True)
class Copies(World):
    """Pairs of stretches: words drawn from the background, and a copy of them in which each word may be wrong.

    A document is a number of pairs, `document` in the mean, and then an END. A pair is the separator "n", a stretch of
    words drawn independently from the background, the separator that begins the copy, and the copy. Each of its words
    is the one at the same place of the stretch, or with probability ε one drawn from the background; ε is that of the
    copy's level. In the first stretch of a pair, and where the original lies before the window, the word is as good as
    drawn from the background: there `Optimum.noise` is 1.
    """

    name: ClassVar[str] = "copies"

    @property
    def separators(self) -> list[str]:
        return ["n", *super().separators]

    def _texts(self, rngs: Iterator[np.random.Generator]) -> Iterator[tuple[str, int]]:
        names, noise, markers = np.array(self.tokens), self.noise, len(self.separators) - 1
        for rng in rngs:
            pairs = int(rng.geometric(1 / self.document))
            levels, shape = rng.integers(len(noise), size=pairs), (pairs, self.stretch)
            base, drawn = self.drawn(rng, shape), self.drawn(rng, shape)
            copy = np.where(rng.random(shape) < noise[levels, None], drawn, base)
            neutral = np.full(pairs, self.words)
            marker = neutral + 1 + levels % markers
            yield " ".join(names[np.column_stack([neutral, base, marker, copy])].ravel()), 2 * pairs * self.stretch

    def optimum(self, tokens: np.ndarray) -> Optimum:
        """As `World.optimum`."""
        return _Filter(self).optimum(tokens)


class _Filter:
    """What is known of phase, place and level in windows, from their tokens so far.

    A separator tells phase and place. Before the first one of a window every word is as good as drawn from the
    background, so that the words tell nothing but their number.
    """

    def __init__(self, world: Copies):
        self.world, self.noise, self.background = world, world.noise, world.background
        self.neutral, self.end = world.words, len(world.tokens) - 1
        self.kinds = self._kinds()

    def _kinds(self) -> np.ndarray:
        """The probabilities that the next token is a word, "n", the separator of a copy, an END; float64 [4 P+1 4].

        The axes: the phase; how many words of the stretch, or of the window in an unknown phase, have been.
        """
        P, ends = self.world.stretch, 1 / self.world.document  # how often a document ends behind a copy
        kinds = np.zeros((4, P + 1, 4))
        kinds[[BASE, COPY], :P, 0] = 1
        kinds[BASE, P, 2] = 1
        kinds[COPY, P, [1, 3]] = 1 - ends, ends
        kinds[ENDED, :, 1] = 1
        for words in range(P + 1):
            # At a random place of the text all places of both stretches are equally likely that have had so many words.
            of_both = kinds[[BASE, COPY], words:].sum((0, 1))
            kinds[UNKNOWN, words] = of_both + (ends * kinds[ENDED, 0] if words == 0 else 0)
        return kinds / kinds.sum(2, keepdims=True)

    def optimum(self, tokens: np.ndarray) -> Optimum:
        """As `World.optimum`."""
        (S, T), P, V = tokens.shape, self.world.stretch, self.end + 1
        self.phase, self.place = np.full(S, UNKNOWN), np.zeros(S, int)
        self.levels = np.full((S, len(self.noise)), 1 / len(self.noise))
        probabilities, noise, words = np.zeros((S, T, V)), np.zeros((S, T)), np.zeros((S, T))
        nothing = np.full(S, -1)
        self.world.check_ids(tokens)
        expected, original = self._predicted(nothing)[0], nothing
        for t in range(T):
            token = tokens[:, t]
            silent = (token == self.end) & (t == 0)
            self.world.check_likely(np.where(silent, 1, expected[np.arange(S), token]), t)
            self._observe(np.where(silent, -1, token), original)
            # A copy lies a stretch and a separator behind its original.
            original = tokens[:, t - P] if t >= P else nothing
            original = np.where((self.phase == COPY) & (original < self.neutral), original, -1)
            expected, noise[:, t], words[:, t] = self._predicted(original)
            probabilities[:, t] = expected
        with np.errstate(divide="ignore"):
            return Optimum(np.log(probabilities), noise, words)

    def _predicted(self, original: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The probabilities of the next token [S V], the mean noise of the next word [S], the share of words [S].

        `original`: the word of which the next word would be a copy, int [S]; -1 if that is unknown.
        """
        word, neutral, marker, end = self.kinds[self.phase, self.place].T[..., None]
        noise = np.where(original >= 0, self.levels @ self.noise, 1.0)
        copied = np.arange(self.neutral) == original[:, None]
        words = noise[:, None] * self.background + (1 - noise[:, None]) * copied
        markers = len(self.world.separators) - 1
        expected = np.hstack([word * words, neutral, np.repeat(marker / markers, markers, 1), end])
        return expected, np.where(word[:, 0] > 0, noise, np.nan), word[:, 0]

    def _observe(self, tokens: np.ndarray, original: np.ndarray) -> None:
        """Take one more token of each window into account; -1 is one that says nothing. `original`: its original."""
        W = self.neutral
        word, copied = (tokens >= 0) & (tokens < W), original >= 0
        background = self.background[np.where(word, tokens, 0)][:, None]
        right = (1 - self.noise) * (tokens == original)[:, None] + self.noise * background
        levels = self.levels * np.where((word & copied)[:, None], right, 1)
        begun = (tokens > W) & (tokens < self.end)
        several = len(self.world.separators) > 2
        fresh = np.eye(len(self.noise))[np.where(begun, tokens - W - 1, 0)] if several else np.ones_like(levels)
        levels = np.where(begun[:, None], fresh, levels)
        self.levels = levels / levels.sum(1, keepdims=True)
        self.phase = np.select([tokens == W, begun, tokens == self.end], [BASE, COPY, ENDED], self.phase)
        self.place = np.where(word, self.place + 1, np.where(tokens >= W, 0, self.place))
