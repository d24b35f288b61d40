"""Multiple-choice questions of the noise world, whose best answer is known."""

import numpy as np

from jaxconf.data.noise import Noise
from jaxconf.data.questions import Question


def noise_questions(world: Noise, count: int, seed: int = 0, choices: int = 4, length: int = 12) -> list[Question]:
    """What follows a stretch: the right choice is the word that the table gives, the others are drawn as the noise is.

    A document begins with a marker of the level, and its words follow the table but for that noise.
    """
    rng, table, names = np.random.default_rng(seed), world.table.argmax(1), world.tokens
    found = []
    for _ in range(count):
        level = rng.integers(len(world.noise))
        words = [int(rng.integers(world.words))]
        for _ in range(length - 1):
            noisy = rng.random() < world.noise[level]
            words.append(int(rng.integers(world.words)) if noisy else int(table[words[-1]]))
        image = int(table[words[-1]])
        drawn = rng.choice(world.words, world.words, replace=False, p=world.background)
        others = drawn[drawn != image][: choices - 1]
        mixed = rng.permutation([image, *others])
        right = int(np.flatnonzero(mixed == image)[0])
        text = " ".join([world.separators[level % len(world.separators)], *(names[word] for word in words)])
        texts = tuple(names[word] for word in mixed)
        found.append(Question(text, texts, texts[right], right))
    return found
