"""The strongest composition of each neuron with neurons of other layers, beside random pairs of the same layers.

Letters: l layer, n neuron, p pair.
"""

import itertools

import numpy as np
import pandas as pd

from jaxconf.analysis.composition import Strongest, cosines_of_pairs, reads, strongest
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.analysis.weights import chance_rho
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.progress import Progress

RANDOM_PAIRS = 4096  # of two layers
QUANTILE = 0.99
COLUMNS = ["layer", "neuron", "side", "partner_layer", "partner_neuron", "cosine", "random", "chance", "is_universal"]


def composition_table(lm: LanguageModel, frame: pd.DataFrame, seed: int, progress: Progress) -> pd.DataFrame:
    """The table `Universality.composition`. `lm`: the first model. `frame`: its neurons."""
    config, seen = lm.config, readout(lm.config, lm.params)
    L, N = config.n_layers, config.d_mlp
    pairs = list(itertools.combinations(range(L), 2))
    rng = np.random.default_rng(seed)
    best: dict[tuple[int, str], pd.DataFrame] = {}
    progress("composition", 0, len(pairs))
    for done, (low, high) in enumerate(pairs):
        writes = at_layer(config, lm.params, seen, "paper", low).w_out
        read = reads(config, lm.params, high)
        some = cosines_of_pairs(writes, read, *rng.integers(0, N, (2, RANDOM_PAIRS)))
        random = float(np.quantile(np.abs(fetched(some)), QUANTILE))
        for side, rows in _rows(fetched(strongest(writes, read)), low, high).items():
            key = (int(rows["layer"].iloc[0]), side)
            best[key] = _stronger(best.get(key), rows.assign(random=random))
        progress("composition", done + 1, len(pairs))
    if not best:
        return pd.DataFrame(columns=COLUMNS)
    every = pd.concat([rows.assign(side=side) for (_, side), rows in best.items()])
    every = every.sort_values(["layer", "neuron", "side"])
    dimensions = config.d_model - (config.norm == "layer")
    partners = np.where(every["side"] == "in", every["layer"], L - 1 - every["layer"]) * N
    levels = {count: chance_rho(1, dimensions, count, QUANTILE)[0] for count in np.unique(partners).tolist()}
    every = every.assign(chance=[levels[count] for count in partners.tolist()])
    return every.merge(frame[["layer", "neuron", "is_universal"]], on=["layer", "neuron"])[COLUMNS]


def _stronger(best: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    """For each neuron, the row with the larger |cosine|; of equal ones that of `best`."""
    if best is None:
        return rows
    better = (rows["cosine"].abs() > best["cosine"].abs()).to_numpy()
    return pd.DataFrame({name: np.where(better, rows[name], best[name]) for name in rows})


def _rows(pair: Strongest, low: int, high: int) -> dict[str, pd.DataFrame]:
    """Side → the strongest partners of the neurons of two layers in the other of these layers."""
    out = {
        "layer": low,
        "partner_layer": high,
        "partner_neuron": pair.reader,
        "cosine": pair.write_cosine,
    }
    into = {
        "layer": high,
        "partner_layer": low,
        "partner_neuron": pair.writer,
        "cosine": pair.read_cosine,
    }
    neurons = np.arange(len(pair.write_cosine))
    return {side: pd.DataFrame({"neuron": neurons, **of}) for side, of in (("out", out), ("in", into))}
