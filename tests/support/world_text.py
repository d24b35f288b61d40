"""Text of worlds as token ids, and counts of what follows each context in it, which know nothing of filtering."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from hub_models import build
from scipy import stats

from jaxconf.data.windows import encode
from jaxconf.data.worlds import World, world_of
from jaxconf.models.tokenizer import Tokenizer


def world(source: str) -> World:
    """The world of a source that names one."""
    found = world_of(source)
    assert found is not None
    return found


def tokenizer_of(of: World, folder) -> Tokenizer:
    """The tokenizer of a world, whose files are written into the folder."""
    for name, content in of.tokenizer_files.items():
        (folder / name).write_text(content, "utf-8")
    return Tokenizer.from_folder(folder)


def model_of(source: str, folder: Path, seed: int = 0) -> Path:
    """A random model with the tokenizer of a world, in Hugging Face layout."""
    tokenizer_of(world(source), build(folder, seed))
    return folder


def ids_of(of: World, folder) -> np.ndarray:
    """The tokens of a world's text, int32, one axis."""
    return np.concatenate(list(encode(of.documents(), tokenizer_of(of, folder))))


def cut(of: World, ids: np.ndarray, length: int, count: int, seed: int = 0) -> np.ndarray:
    """Windows from random places of the text, each behind an END if the world has one, int [s length]."""
    end = of.tokenizer_files["tokenizer_config.json"].count("bos_token")
    body = length - end
    starts = np.random.default_rng(seed).integers(0, len(ids) - body, count)
    windows = ids[starts[:, None] + np.arange(body)]
    return np.pad(windows, ((0, 0), (end, 0)), constant_values=len(of.tokens) - 1)


class Fit(NamedTuple):
    """How well the best prediction fits what follows the contexts of a text."""

    p: float  # of Pearson's chi-square statistic over all contexts
    cells: int  # a context and a next token, expected at least 25 times
    beyond: int  # cells that are more than 3 standard errors away from the prediction


def fit(of: World, ids: np.ndarray, length: int, seed: int = 0) -> Fit:
    """Compare what follows each context of up to `length` - 1 tokens with the best prediction.

    The contexts begin at random places that lie so far apart that what follows one does not depend on another.
    """
    end = [len(of.tokens) - 1] * ("bos_token" in of.tokenizer_files["tokenizer_config.json"])
    gaps = length + np.random.default_rng(seed).integers(12, 30, len(ids) // (length + 12))
    starts = np.cumsum(gaps)
    windows = ids[starts[starts < len(ids) - length, None] + np.arange(length)]
    statistic = freedom = cells = beyond = 0.0
    for n in range(0 if end else 1, length):
        contexts, row = np.unique(windows[:, :n], axis=0, return_inverse=True)
        observed = np.zeros((len(contexts), len(of.tokens)))
        np.add.at(observed, (row.ravel(), windows[:, n]), 1)
        given = np.hstack([np.tile(np.array(end, int), (len(contexts), 1)), contexts])
        p = np.exp(of.optimum(given).log_probs[:, -1])
        expected = observed.sum(1, keepdims=True) * p
        assert (observed[p == 0] == 0).all()
        often = (expected >= 25) & (p < 1 - 1e-12)
        z = (observed - expected)[often] / np.sqrt((expected * (1 - p))[often])
        cells, beyond = cells + often.sum(), beyond + (abs(z) > 3).sum()
        for o, e in zip(observed, expected, strict=True):
            o, e = _pooled(o[e > 0], e[e > 0])
            statistic, freedom = statistic + ((o - e) ** 2 / e).sum(), freedom + len(e) - 1
    return Fit(stats.chi2.sf(statistic, freedom), int(cells), int(beyond))


def _pooled(observed: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a context, of which those that are expected less than 5 times are added to the most frequent."""
    rare = expected < 5
    rare[expected.argmax()] = False
    most = np.flatnonzero(~rare)[expected[~rare].argmax()]
    for cells in (observed, expected):
        cells[most] += cells[rare].sum()
    return observed[~rare], expected[~rare]
