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
    found = []
    progress("composition", 0, len(pairs))
    for done, (low, high) in enumerate(pairs):
        writes = at_layer(config, lm.params, seen, "paper", low).w_out
        read = reads(config, lm.params, high)
        some = cosines_of_pairs(writes, read, *rng.integers(0, N, (2, RANDOM_PAIRS)))
        random = float(np.quantile(np.abs(fetched(some)), QUANTILE))
        found.append(_rows(fetched(strongest(writes, read)), low, high).assign(random=random))
        progress("composition", done + 1, len(pairs))
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    every = pd.concat(found, ignore_index=True)
    best = every.loc[every.groupby(["layer", "neuron", "side"])["cosine"].apply(lambda x: x.abs().idxmax())]
    dimensions = config.d_model - (config.norm == "layer")
    partners = np.where(best["side"] == "in", best["layer"], L - 1 - best["layer"]) * N
    levels = {count: chance_rho(1, dimensions, count, QUANTILE)[0] for count in np.unique(partners).tolist()}
    best = best.assign(chance=[levels[count] for count in partners.tolist()])
    return best.merge(frame[["layer", "neuron", "is_universal"]], on=["layer", "neuron"])[COLUMNS]


def _rows(pair: Strongest, low: int, high: int) -> pd.DataFrame:
    """The strongest partners of the neurons of two layers in the other of these layers."""
    out = {
        "layer": low,
        "side": "out",
        "partner_layer": high,
        "partner_neuron": pair.reader,
        "cosine": pair.write_cosine,
    }
    into = {
        "layer": high,
        "side": "in",
        "partner_layer": low,
        "partner_neuron": pair.writer,
        "cosine": pair.read_cosine,
    }
    frames = [pd.DataFrame({"neuron": np.arange(len(of["cosine"])), **of}) for of in (out, into)]  # type: ignore[arg-type]
    return pd.concat(frames, ignore_index=True)
