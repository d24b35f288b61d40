"""What a model has at each kept position: features in named blocks, and the values that are predicted from them.

Letters: s window, t position of a window, p kept position, f feature of a block, y value.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.activations import Products, correlations
from jaxconf.analysis.observation import activation_sites, observed, read_activations
from jaxconf.measure.named_sets import Population
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_window
from jaxconf.runtime.progress import Progress
from jaxconf.studies.carry.setting import Text

VALUES = ("entropy", "loss", "top1")
"""The entropy and the loss of the prediction, in nats, and whether the most likely token is the one that follows."""
NEURONS, STREAM, DIRECTION, NORM = "neurons", "stream", "direction", "norm"


class Positions(NamedTuple):
    """Some kept positions."""

    blocks: dict[str, np.ndarray]  # name → features, float32 [p f]
    values: np.ndarray  # float32 [p y]: VALUES
    units: np.ndarray  # int [p]: the unit of each position


Read = Callable[[], Iterable[Positions]]
"""Gives all kept positions, each time it is called."""


def block_of(population: Population) -> str:
    """The name of the block of a population's activations, which is none of the stream's."""
    return NEURONS if population.dictionary is None else f"{population.component} components"


def positions(
    lm: LanguageModel,
    text: Text,
    windows: np.ndarray,
    members: Mapping[Population, np.ndarray],
    memory: int,
    progress: Progress,
) -> Iterator[Positions]:
    """The kept positions of the windows with these indices, one group of windows after the other.

    The blocks are the activations of some `members` of each population, int, and the stream that enters the last MLP:
    the stream itself, its direction (divided by its length) and its length.
    """
    config, (S, T) = lm.config, (len(windows), text.tokens.shape[1])
    last = config.n_layers - 1
    into = f"blocks.{last}.hook_resid_{'pre' if config.parallel else 'mid'}"
    reads = {of: activation_sites([last], of.dictionary)[last] for of in members}
    sites = tuple(dict.fromkeys([into, *reads.values()]))
    each = bytes_of_a_window(config, T) + 4 * T * 6 * config.vocab_size
    progress("positions", 0, S * T)
    for group, real in batches_in_memory(S, each, memory, lm.mesh.shape["data"]):
        rows = windows[group]
        tokens, mask = text.tokens[rows], text.kept[rows] & real[:, None]
        found, captured = observed(config, lm.params, lm.over_data(tokens), sites)
        top, entropy, loss = fetched((found.top, found.entropy, found.loss))
        stream = fetched(captured[into])[mask].astype(np.float32)
        every = {of: read_activations(captured[reads[of]], of.dictionary)[..., own] for of, own in members.items()}
        length = np.linalg.norm(stream, axis=1, keepdims=True)
        right = (top == np.roll(tokens, -1, 1))[mask]
        yield Positions(
            {block_of(of): fetched(h)[mask] for of, h in every.items()}
            | {STREAM: stream, DIRECTION: stream / np.maximum(length, 1e-30), NORM: length},
            np.stack([entropy[mask], loss[mask], right], 1).astype(np.float32),
            text.units[rows][mask],
        )
        progress("positions", (int(group[real][-1]) + 1) * T, S * T)


def held(read: Callable[[], Iterator[Positions]], count: int, features: int, memory: int) -> Read:
    """The same positions, of which the host keeps all if they fit into `memory` bytes; else each call reads them again.

    `count`: how many positions there are. `features`: of all blocks.
    """
    if 4 * count * (features + len(VALUES) + 2) > memory:
        return read
    found = list(read())
    return lambda: found


def entropy_correlations(read: Iterable[Positions], block: str = NEURONS) -> np.ndarray:
    """The correlation of each activation of a block with the entropy over these positions, float64 [f].

    NaN where one of the two is constant.
    """
    sums: Products | None = None
    for of in read:
        h, entropy = of.blocks[block].astype(np.float64), of.values[:, :1].astype(np.float64)
        more = Products(len(h), h.sum(0), np.square(h).sum(0), entropy.sum(), np.square(entropy).sum(), entropy.T @ h)
        sums = more if sums is None else Products(*(x + y for x, y in zip(sums, more, strict=True)))
    assert sums is not None
    return correlations(sums)[0]
