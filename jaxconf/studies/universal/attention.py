"""The attention to BOS when single neurons are ablated, beside what the gradient says of them.

Letters: s window, q position, j layer above, h head, k ablated neuron.
"""

import numpy as np
import pandas as pd

from jaxconf.analysis.bos_attention import AblatedAttention, ablated_attention, attention_change
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.progress import Progress
from jaxconf.studies.universal.families import FamilyRules
from jaxconf.studies.universal.neurons import BOS_WINDOWS

CANDIDATES = 4  # neurons of each layer that are ablated, and as many random ones
COLUMNS = [
    "layer",
    "neuron",
    "kind",
    "head",
    "is_bos_head",
    "bos_change",
    "attention",
    "attention_change",
    "attention_abs_change",
    "bos_change_ablated",
    "chance",
    "confirmed",
]


def attention_table(
    lm: LanguageModel, tokens: np.ndarray, frame: pd.DataFrame, rules: FamilyRules, seed: int, progress: Progress
) -> pd.DataFrame:
    """The table `Universality.attention`. `tokens`: windows, int [s t]. `frame`: the first model's neurons."""
    last = lm.config.n_layers - 1
    found = [pd.DataFrame(columns=COLUMNS)] if not last else []
    progress("attention to BOS", 0, last)
    for layer in range(last):
        neurons = frame[frame["layer"] == layer].set_index("neuron")
        chosen = _chosen(neurons, np.random.default_rng([seed, layer]))
        windows = [
            fetched(ablated_attention(lm.config, lm.params, window[None], np.array([*chosen]), layer))
            for window in tokens[:BOS_WINDOWS]
        ]
        found.append(_judged(_rows(windows, chosen, neurons, layer), rules))
        progress("attention to BOS", layer + 1, last)
    return pd.concat(found, ignore_index=True)[COLUMNS]


def _chosen(neurons: pd.DataFrame, rng: np.random.Generator) -> dict[int, str]:
    """Neuron → "candidate", for those with the largest `bos_change`, or "random", for as many others of the layer."""
    size = neurons["bos_change"].abs().dropna()
    candidates = size.nlargest(CANDIDATES).index.tolist()
    others = neurons.index.difference(candidates).to_numpy()
    drawn = rng.choice(others, min(CANDIDATES, len(others)), replace=False).tolist()
    return dict.fromkeys(candidates, "candidate") | dict.fromkeys(drawn, "random")


def _rows(windows: list[AblatedAttention], chosen: dict[int, str], neurons: pd.DataFrame, layer: int) -> pd.DataFrame:
    """A row for each of the `chosen` neurons and each head above, from what each window gave."""
    activation, before, after = (np.concatenate(x, -1) for x in zip(*map(_positions_last, windows), strict=True))
    before = np.moveaxis(before, -1, 0)
    found = []
    for k, (neuron, kind) in enumerate(chosen.items()):
        moved = attention_change(activation[k], before, np.moveaxis(after[k], -1, 0))
        j, h = np.indices(moved.change.shape)
        head = [f"{layer + 1 + above}.{number}" for above, number in zip(j.ravel(), h.ravel(), strict=True)]
        is_bos_head = np.array(head) == neurons["bos_head"][neuron]
        columns = {
            "layer": layer,
            "neuron": neuron,
            "kind": kind,
            "head": head,
            "is_bos_head": is_bos_head,
            "bos_change": np.where(is_bos_head, neurons["bos_change"][neuron], np.nan),
            "attention": moved.attention.ravel(),
            "attention_change": moved.change.ravel(),
            "attention_abs_change": moved.size.ravel(),
            "bos_change_ablated": moved.slope.ravel() * neurons["activation_std"][neuron],
        }
        found.append(pd.DataFrame(columns))
    return pd.concat(found, ignore_index=True)


def _positions_last(window: AblatedAttention) -> tuple[np.ndarray, ...]:
    """With the positions of all windows as the last axis: activation k p, before j h p, after k j h p."""
    attention = (np.moveaxis(np.asarray(x), (-4, -3), (-2, -1)) for x in (window.before, window.after))
    return tuple(x.reshape(*x.shape[:-2], -1) for x in (np.asarray(window.activation), *attention))


def _judged(rows: pd.DataFrame, rules: FamilyRules) -> pd.DataFrame:
    """The rows of a layer with `chance` and `confirmed`."""
    ablated = rows["bos_change_ablated"]
    chance = ablated[rows["kind"] == "random"].abs().max()
    same = np.sign(ablated) == np.sign(rows["bos_change"])
    enough = (ablated.abs() >= rules.min_bos_change) & (ablated.abs() > chance)
    return rows.assign(chance=chance, confirmed=(rows["kind"] == "candidate") & rows["is_bos_head"] & same & enough)


def judged_heads(attention: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of the table `Universality.attention` of each neuron of a kind with the head that its gradient names."""
    return attention[(attention["kind"] == kind) & attention["is_bos_head"].astype(bool)]
