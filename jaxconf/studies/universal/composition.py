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
from jaxconf.models.norms import centre
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
        # Without a final norm they have a mean over d, which the norm before the reading MLP ignores like any other.
        writes = centre(config, at_layer(config, lm.params, seen, "paper", low).w_out)
        read = reads(config, lm.params, high)
        some = cosines_of_pairs(writes, read, *rng.integers(0, N, (2, RANDOM_PAIRS)))
        random = float(np.quantile(np.abs(fetched(some)), QUANTILE))
        for of, rows in _rows(fetched(strongest(writes, read)), low, high).items():
            best[of] = _stronger(best.get(of), rows.assign(random=random))
        progress("composition", done + 1, len(pairs))
    if not best:
        return pd.DataFrame(columns=COLUMNS)
    every = pd.concat([rows.assign(layer=layer, side=side) for (layer, side), rows in best.items()])
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


def _rows(pair: Strongest, low: int, high: int) -> dict[tuple[int, str], pd.DataFrame]:
    """Layer and side → the strongest partners of its neurons in the other of two layers."""
    out = {"partner_layer": high, "partner_neuron": pair.reader, "cosine": pair.write_cosine}
    into = {"partner_layer": low, "partner_neuron": pair.writer, "cosine": pair.read_cosine}
    neurons = np.arange(len(pair.write_cosine))
    return {of: pd.DataFrame({"neuron": neurons, **rows}) for of, rows in (((low, "out"), out), ((high, "in"), into))}
