"""Families of neurons: their rules, how often their neurons recur in other models, and an example of some."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched

EXAMPLES = ("prediction", "suppression", "partition", "null_space")  # families that an example is given of
NAMED_TOKENS = 8  # of the most and of the least promoted tokens of an example


@dataclasses.dataclass(frozen=True)
class FamilyRules:
    """The rules by which a neuron is universal, and by which it belongs to a family.

    min_excess: least excess correlation of a universal neuron. min_position_r2: least share of the activation's
    variance that lies between positions. min_bos_change: least change (0 to 1) of a head's mean attention to BOS if the
    activation rises by a standard deviation. min_explained: least held-out R² of the feature that explains a neuron.

    Raises InputError if min_excess is not from -1 to 1.
    """

    min_excess: float = 0.5
    min_position_r2: float = 0.5
    min_bos_change: float = 0.01
    min_explained: float = 0.2

    def __post_init__(self) -> None:
        if not -1 <= self.min_excess <= 1:
            raise InputError(f"min_excess is {self.min_excess:g}; give a difference of correlations from -1 to 1")

    def describe(self) -> dict[str, str]:
        """Family → its rule in words."""
        drawn = "above the largest of as many random directions as a layer has neurons"
        bos = (
            "if the activation rises by a standard deviation, the mean attention to BOS of the head that changes most "
            f"{{}} by {self.min_bos_change:g} or more, and the neuron's cosine with that head's direction is beyond "
            "chance"
        )
        return {
            "prediction": f"vocab_kurtosis {drawn}, and vocab_skew positive",
            "suppression": f"vocab_kurtosis {drawn}, and vocab_skew negative",
            "partition": f"logit_var {drawn}, and vocab_kurtosis not",
            "null_space": "rho above chance: the neuron writes into the unembedding's effective null space, as entropy "
            "neurons do; effects are not judged",
            "entropy": "in the last layer, by the entropy rule of `jaxconf analyze`",
            "along_frequency": f"|cos_freq| {drawn}",
            "frequency": "in the last layer, by the frequency rule of `jaxconf analyze`",
            "position": f"a share of at least {self.min_position_r2:g} of the activation's variance lies between "
            "positions",
            "attention_deactivating": bos.format("rises"),
            "attention_activating": bos.format("falls"),
        }

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of `frame` with a boolean column is_…_neuron for each family but entropy and frequency.

        A NaN meets no rule. Entropy and frequency neurons are judged by `jaxconf.analyze`.
        """
        peaked = frame["vocab_kurtosis"] > frame["vocab_kurtosis_chance"]
        towards_bos = frame["bos_cosine"].abs() > frame["bos_cosine_chance"]
        moved = (frame["bos_change"].abs() >= self.min_bos_change) & towards_bos
        families = {
            "prediction": peaked & (frame["vocab_skew"] > 0),
            "suppression": peaked & (frame["vocab_skew"] < 0),
            "partition": (frame["logit_var"] > frame["logit_var_chance"]) & ~peaked,
            "null_space": frame["rho"] > frame["rho_chance"],
            "along_frequency": frame["cos_freq"].abs() > frame["cos_freq_chance"],
            "position": frame["position_r2"] >= self.min_position_r2,
            "attention_deactivating": moved & (frame["bos_change"] > 0),
            "attention_activating": moved & (frame["bos_change"] < 0),
        }
        return frame.assign(**{f"is_{name}_neuron": found for name, found in families.items()})


def families_table(neurons: pd.DataFrame, matches: pd.DataFrame) -> pd.DataFrame:
    """The table `Universality.families`, of the families for which `neurons` has a column."""
    every = neurons.set_axis(_names(neurons["model"], neurons["layer"], neurons["neuron"]))
    first, top = every[every["model"] == 0], matches[matches["rank"] == 0]
    matched = every.reindex(_names(np.zeros(len(top), int), top["layer"], top["neuron"]))
    match = every.reindex(_names(top["model"], top["match_layer"], top["match_neuron"]))
    last = first["layer"].max()
    rows = []
    for family in FamilyRules().describe():
        column = f"is_{family}_neuron"
        if column in every:
            judged = first[is_judged(first["layer"].to_numpy(), last, family)]
            here = is_judged(matched["layer"].to_numpy(), last, family)
            own, same = matched[column].to_numpy(bool), match[column].to_numpy(bool)
            recurs = {"recurs": _share(same[own & here]), "recurs_of_others": _share(same[~own & here])}
            rows.append({"family": family, **_universal(judged, judged[column].to_numpy(bool)), **recurs})
    return pd.DataFrame(rows)


def is_judged(layer: np.ndarray, last: int, family: str) -> np.ndarray:
    """Whether the family's rule judges the neurons of each layer. `last`: the last layer."""
    if family in ("entropy", "frequency"):
        return layer == last
    return (layer < last) | (not family.startswith("attention"))


def _names(*columns: Any) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([np.asarray(column) for column in columns])


def _universal(judged: pd.DataFrame, member: np.ndarray) -> dict[str, Any]:
    """How many of a family's neurons and of the others are universal, with Fisher's exact test of the difference."""
    universal, excess = judged["is_universal"].to_numpy(bool), judged["excess"]
    counts = [[int((universal[some] == hit).sum()) for hit in (True, False)] for some in (member, ~member)]
    return {
        "neurons": int(member.sum()),
        "universal": counts[0][0],
        "share": _share(universal[member]),
        "share_of_others": _share(universal[~member]),
        "p": float(scipy.stats.fisher_exact(counts).pvalue) if member.any() else np.nan,
        "excess": excess[member].median(),
        "excess_of_others": excess[~member].median(),
    }


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else np.nan


def examples(lm: LanguageModel, frame: pd.DataFrame) -> pd.DataFrame:
    """The table `Universality.vocabulary`. `lm`: the first model. `frame`: its neurons."""
    seen = readout(lm.config, lm.params)
    W_U = fetched(seen.W_U).astype(np.float64)
    found = []
    for family in EXAMPLES:
        members = frame[frame[f"is_{family}_neuron"]]
        if members["excess"].notna().any():
            layer, neuron = (int(members.loc[members["excess"].idxmax(), name]) for name in ("layer", "neuron"))
            write = fetched(at_layer(lm.config, lm.params, seen, "paper", layer).w_out)[neuron].astype(np.float64)
            found.append({"family": family, "neuron": f"{layer}.{neuron}", **_words_of(lm, write, W_U)})
    if not found:
        return pd.DataFrame(columns=["family", "neuron", "token", "cosine", "word"])
    return pd.concat(map(pd.DataFrame, found), ignore_index=True)


def _words_of(lm: LanguageModel, write: np.ndarray, W_U: np.ndarray) -> dict[str, Any]:
    """The cosine of a write direction, [d], with the unembedding of each token, [d v], and words of extreme tokens."""
    lengths = np.linalg.norm(W_U, axis=0)
    cosine = write @ W_U / np.where(lengths > 0, lengths, np.inf) / np.linalg.norm(write)
    order = np.argsort(cosine)
    extreme = {*order[:NAMED_TOKENS], *order[-NAMED_TOKENS:]}
    word = lm.tokenizer.token if lm.has_tokenizer else str
    words = [word(i) if i in extreme else None for i in range(len(cosine))]
    return {"token": np.arange(len(cosine)), "cosine": cosine, "word": words}
