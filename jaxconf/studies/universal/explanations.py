"""Which simple feature of the text explains each neuron's activation: its token, first letter, position, and so on.

Letters: s window, t position, l layer, n neuron, c cell, f feature.
"""

import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.stats

from jaxconf.analysis.explained_variance import Cells, Sums, add, cells_of, features, held_out_r2, letter_classes
from jaxconf.models.mesh import fetched, wait_on_cpus
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import bytes_of_a_window, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.studies.universal.matches import Activity, CountedText

FEATURES = {
    "unigram": "the token",
    "alphabet": "the token's first letter and its case, or that it is a digit, a symbol or white space",
    "position": "the position in the window",
    "previous_token": "the token before",
    "topic": "the document, a proxy of its topic",
}
COARSER = 0.9  # alphabet is named before unigram if it explains this share of what unigram explains


def explained(first: Activity, text: CountedText, memory: int, progress: Progress) -> dict[str, np.ndarray]:
    """Column r2_… for each feature of FEATURES: the held-out R² of each neuron, float64 [l n].

    The alphabet's is NaN for a model without a tokenizer.
    """
    lm, classes = first.lm, None
    if lm.has_tokenizer:
        classes = letter_classes(lm.tokenizer.token(i) for i in range(lm.config.vocab_size))
    of_text = features(text.tokens, text.documents, classes, text.counted)
    cells = cells_of(of_text, text.counted)
    found = fitting(functools.partial(_r2_of_all_layers, first, text, cells, progress), memory, progress)
    unknown = np.full(first.means.shape, np.nan)
    by_feature = dict(zip(of_text, np.moveaxis(found, 1, 0), strict=True))
    return {f"r2_{name}": by_feature.get(name, unknown) for name in FEATURES}


def explained_by(found: Mapping[str, np.ndarray], least: float) -> np.ndarray:
    """The feature that explains each neuron: a name of FEATURES, "none" or None, in the shape of the columns `found`.

    It is the one with the largest R², and "none" if that is below `least`. Alphabet is named before unigram if its R²
    is at least COARSER of unigram's, because the token determines its first letter. None for a constant neuron.
    """
    names = np.array([*FEATURES, "none"], object)
    r2 = np.stack([found[f"r2_{name}"] for name in FEATURES])
    known = np.where(np.isnan(r2), -np.inf, r2)
    best = known.argmax(0)
    unigram, alphabet = (list(FEATURES).index(name) for name in ("unigram", "alphabet"))
    best[(best == unigram) & (known[alphabet] >= COARSER * known[unigram])] = alphabet
    best[known.max(0) < least] = len(FEATURES)
    return np.asarray(np.where(np.isnan(r2).all(0), None, names[best]))


def explanations_table(first: pd.DataFrame) -> pd.DataFrame:
    """The table `Universality.explanations`. `first`: the first model's neurons."""
    universal = first["is_universal"].to_numpy(bool)
    rows = []
    for name in (*FEATURES, "none"):
        by = (first["explained_by"] == name).to_numpy(bool)
        counts = [[int((by[some] == hit).sum()) for hit in (True, False)] for some in (universal, ~universal)]
        r2 = first[f"r2_{name}"] if name in FEATURES else pd.Series(np.nan, first.index)
        rows.append(
            {
                "feature": name,
                "neurons": int(by.sum()),
                "universal": counts[0][0],
                "share_of_universal": _share(by[universal]),
                "share_of_others": _share(by[~universal]),
                "p": float(scipy.stats.fisher_exact(counts).pvalue)
                if universal.any() and not universal.all()
                else np.nan,
                "r2_of_universal": r2[universal].median(),
                "r2_of_others": r2[~universal].median(),
            }
        )
    return pd.DataFrame(rows)


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else np.nan


def _r2_of_all_layers(first: Activity, text: CountedText, cells: Cells, progress: Progress, memory: int) -> np.ndarray:
    """The held-out R², float64 [l f n], of as many layers at a time as have sums that fit into half of the memory."""
    L, n = first.means.shape
    size = int(np.clip(memory // 2 // (8 * cells.bounds[-1] * n), 1, L))
    begins = range(0, L, size)
    found: list[np.ndarray] = []
    progress("explanations", 0, len(begins) * text.tokens.size)
    for run, begin in enumerate(begins):
        layers = np.minimum(np.arange(begin, begin + size), L - 1)  # the last block repeats a layer

        def report(tokens: int, before: int = run * text.tokens.size) -> None:
            progress("explanations", before + tokens, len(begins) * text.tokens.size)

        sums = _sums(first, text, cells, layers, memory // 2, report)
        for i, layer in enumerate(layers[: L - begin]):
            by_cell, squares = fetched((sums.by_cell[:, i], sums.squares[:, :, i]))
            found.append(
                np.stack(
                    [
                        held_out_r2(by_cell[a:b], squares[f], cells.counts[a:b], first.means[layer])
                        for f, (a, b) in enumerate(zip(cells.bounds, cells.bounds[1:], strict=False))
                    ]
                )
            )
    return np.stack(found)


def _sums(
    first: Activity, text: CountedText, cells: Cells, layers: np.ndarray, memory: int, report: Callable[[int], None]
) -> Sums:
    lm, T, n = first.lm, text.tokens.shape[1], first.means.shape[1]
    means = first.means.astype(np.float32)
    each = bytes_of_a_window(lm.config, T) + 3 * 4 * T * means.size
    sums = Sums(jnp.zeros((cells.bounds[-1], len(layers), n)), jnp.zeros((cells.cell.shape[-1], 2, len(layers), n)))
    for rows, real in batches_in_memory(len(text.tokens), each, memory, lm.mesh.shape["data"]):
        batch = (text.tokens[rows], text.counted[rows] & real[:, None], cells.cell[rows])
        sums = add(lm.config, lm.params, layers, means, *map(lm.over_data, batch), sums)
        wait_on_cpus(lm.mesh, sums)
        report(int(rows[real][-1] + 1) * T)
    return sums
