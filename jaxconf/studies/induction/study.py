"""The paper's case study: how entropy neurons, induction heads and calibration change when a sequence repeats.

Letters: b sequence, L repeated tokens, s window, T its length. The layout of a sequence is defined in
`jaxconf.analysis.induction`, and "the repeat" in `jaxconf.studies.induction.setting`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.weights import null_space_size
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import digest
from jaxconf.measure.chosen_sets import NEURONS, Checked, check_chosen, populations
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import check_amounts, refuse_mixture
from jaxconf.measure.named_sets import Members
from jaxconf.measure.neuron_sets import Named, highest_rho
from jaxconf.models.decoder import check_runnable
from jaxconf.models.language_model import LanguageModel
from jaxconf.report.run import save_study
from jaxconf.runtime.memory import MEMORY
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.induction.figures import figures_of
from jaxconf.studies.induction.heads import (
    check_heads,
    highest_scores,
    scores_of_heads,
    sets_of_heads,
    table_of_scores,
    tables_at_bos,
)
from jaxconf.studies.induction.mean_ablation import tables_of_ablations
from jaxconf.studies.induction.natural import Natural, Places, natural_induction, natural_places
from jaxconf.studies.induction.neurons import Chosen, NullSpace, choose, null_space, rho_of_last_layer, table_of_neurons
from jaxconf.studies.induction.page import page
from jaxconf.studies.induction.repeated_text import clips_of, observe, table_of_activations, table_of_positions
from jaxconf.studies.induction.scaling import table_of_scaling
from jaxconf.studies.induction.sentences import sentences
from jaxconf.studies.induction.setting import Setting, check_repeats, read_texts


@dataclasses.dataclass
class Induction:
    """The result of `induction`. Losses and entropies are in nats. Neurons and heads are named "layer.index".

    If components are chosen, what is said of neurons here is of these, and the layer is the last one.

    positions: a row per position, with means over sequences. `copy` (0 for BOS, 1, 2), `entropy`, `loss`, and `scale`,
    the final norm's.
    neurons: a row per neuron of the layers with chosen neurons and of the last layer, or per component of the kind that
    is chosen. `name`, `w_norm`, `rho`, `rho_chance`, the mean activations `activation_first` and `activation_second` in
    the two copies, and `weighted_change`, their difference times w_norm (Figure 11).
    activations: a row per position of every chosen neuron and of the neurons of one random set. `kind` ("chosen" or
    "random") and the mean `activation` over sequences (Figure 5a).
    ablations: a row per `ablation`, neuron set and position. `ablation` is "clip", or "full" for sets of several
    neurons (the paper clips only single neurons). The changes of `entropy` and `loss`, as means over sequences; with
    `_ln_frozen`, the changes while the final norm's scale is frozen; with `_ratio`, the mean after the ablation over
    the mean before it (Figure 5b).
    sets: a row per `ablation` and neuron set, its `kind` "neuron", "set" or "random". The means of the same changes
    over the repeat and their ratios, with `_lo` and `_hi` from a bootstrap over sequences.
    heads: a row per head. Its induction `score`, and `is_highest` if the score is one of the four highest, but at most
    a quarter of all. As in the paper: `score_random`, on random tokens, and `is_above_threshold` if it is above 0.7.
    head_sets: a row per set of heads that attends to BOS alone, its `kind` "single", "cumulative" or "random". The
    mean changes of `entropy` and `loss` over the repeat and their ratios, with their intervals.
    head_activations: a row per set of heads and chosen neuron. The mean activation over the repeat, `activation` in the
    unablated model, and `activation_ablated` if the heads attend to BOS alone (Figure 5c).
    doses: a row per `data` ("text" or "repeat"), `factor` on the activations, and neuron set. `loss`, `entropy`, `ece`,
    `brier`, `top1` (the accuracy), the `temperature` that mimics the scaling best, and the share of the change of the
    log-probabilities that it `explained`.
    natural: see `jaxconf.studies.induction.natural.Natural`; None unless it was asked for.
    """

    facts: dict[str, Any]
    positions: pd.DataFrame
    neurons: pd.DataFrame
    activations: pd.DataFrame
    ablations: pd.DataFrame
    sets: pd.DataFrame
    heads: pd.DataFrame
    head_sets: pd.DataFrame
    head_activations: pd.DataFrame
    doses: pd.DataFrame
    natural: Natural | None

    def save(self, folder: str | Path) -> Path:
        """Write induction.html, its figures, the tables and the facts into the folder, which is created if needed.

        Returns the path of the page.
        """
        return save_study(self, "induction", sentences(self), figures_of(self), page, folder)


def induction(
    lm: LanguageModel,
    tokens: np.ndarray | int = 4096,
    *,
    data: str = OWN,
    sequences: np.ndarray | int = 64,
    length: int = 100,
    random: bool = False,
    natural: np.ndarray | bool = False,
    neurons: Named | None = None,
    components: str = NEURONS,
    heads: Members | None = None,
    controls: int = 20,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Induction:
    """What chosen neurons do when text repeats, which heads attend to it, and what scaling does to calibration.

    `tokens`: the text on which scaling is measured besides the repeat: windows, int [s T], or how many tokens of
    `data`. `sequences`: the text to repeat: int [b L], or how many pieces of `length` tokens, which are read from
    `data` or, with `random`, drawn at random. `natural`: also look for six tokens that occur twice in unmodified text,
    namely in these windows, int [s T], or if true in the first 262,144 tokens of `data`.
    `neurons`: (layer, index) of the chosen neurons, by default the ten of the last layer with the highest ρ; or the
    names of directions or latents of one kind, such as "sae.12,sae.99", which then stand in the neurons' place.
    `components`: where these are from, as for `jaxconf.analyze`; principal components are those of `tokens`. `heads`:
    (layer, index) of the heads that are made to attend to BOS alone, by default the four with the highest induction
    scores, but at most a quarter of all. `controls`: how many random sets of as many neurons, and of as many heads.
    `k`: size of the null space, for ρ. `memory`: bytes for the sequences and sets that are processed together. `facts`:
    are added to those of the result.

    Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5, figures 5, 10 and 11; scaling is ours. Raises InputError
    for a model without BOS, sequences longer than its positions, neurons, components and heads that it does not have,
    and text that is too short.
    """
    check_amounts(1, tokens=tokens, sequences=sequences)
    check_amounts(0, bootstrap_draws=bootstrap_draws, seed=seed)
    check_runnable(lm.params)
    refuse_mixture(lm.config, "the study of induction")
    check_repeats(lm, length if isinstance(sequences, int) else sequences.shape[1])
    k = null_space_size(lm.config, k)
    named = check_chosen(lm.config, [neurons] if neurons else [], components, controls, k, last=False)
    check_heads(lm.config, heads or [])
    progress("reading the text", 0, 0)
    texts = read_texts(lm, tokens, data, sequences, length, random, natural, seed)
    places = None if texts.searched is None else natural_places(lm, texts.searched)
    timing = Timing()
    setting = Setting(lm, texts, bootstrap_draws, seed, memory, progress)
    space = null_space(lm, k)
    of = populations(lm, named, components, k, texts.windows, texts.kept, memory, progress)
    (picked,) = named or [Checked("neuron", highest_rho(lm.config, rho_of_last_layer(space)))]
    chosen = choose(of[picked.component], picked.members, controls, seed)
    found = _measured(setting, space, chosen, heads, places)
    chosen_by = "name" if neurons else f"the highest rho of layer {lm.config.n_layers - 1}"
    own, pairs = _facts(setting, found, chosen, chosen_by, k), texts.repeated.size * len(found.neurons)
    found.facts = facts_of(lm, own, timing, pairs, {**texts.facts, **(facts or {})})
    return found


def _measured(
    setting: Setting, space: NullSpace, chosen: Chosen, heads: Members | None, places: Places | None
) -> Induction:
    """The result with all tables, and without facts."""
    lm, tokens = setting.lm, setting.texts.repeated
    layers, dictionary = tuple(sorted(chosen.layers | {lm.config.n_layers - 1})), chosen.own.population.dictionary
    means = setting.fitted(observe, tokens, layers, dictionary)
    ablations, sets = tables_of_ablations(setting, chosen.sets, clips_of(means))
    scores, on_random = (setting.fitted(scores_of_heads, of) for of in (tokens, setting.random))
    of_heads = sets_of_heads(lm.config, heads or highest_scores(scores), len(chosen.random), setting.seed)
    head_sets, head_activations = tables_at_bos(setting, of_heads, chosen.own, means)
    doses = table_of_scaling(setting, chosen.compared)
    return Induction(
        facts={},
        positions=table_of_positions(means),
        neurons=table_of_neurons(lm, space, means, chosen.own),
        activations=table_of_activations(means, chosen.shown),
        ablations=ablations,
        sets=sets,
        heads=table_of_scores(scores, on_random),
        head_sets=head_sets,
        head_activations=head_activations,
        doses=doses,
        natural=None if places is None else _natural(setting, chosen, places),
    )


def _natural(setting: Setting, chosen: Chosen, places: Places) -> Natural:
    texts, draws = setting.texts, (setting.bootstrap_draws, setting.seed)
    return setting.fitted(natural_induction, texts.searched, places, texts.windows, chosen.sets, chosen.shown, *draws)


def _facts(setting: Setting, found: Induction, chosen: Chosen, chosen_by: str, k: int) -> dict[str, Any]:
    texts = setting.texts
    return {
        "sequences": len(texts.repeated),
        "length": texts.length,
        "data_sha256": digest(texts.repeated),
        "text_positions": int(texts.kept.sum()),
        "chosen": chosen.own.names,
        "noun": chosen.own.population.noun,
        "chosen_by": chosen_by,
        "heads": found.head_sets.loc[found.head_sets["kind"] == "single", "set"].tolist(),
        "controls": len(chosen.random),
        "k": k,
        "seed": setting.seed,
        "bootstrap": setting.bootstrap_draws,
        **(found.natural.counts if found.natural else {}),
    }
