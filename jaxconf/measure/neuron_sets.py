"""Chosen neurons: sets that are ablated together and compared with random sets, and single neurons token by token.

Letters: s window, t position, c set, n neuron.
"""

import collections
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import MEAN, Ablation
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.intervals import bootstrap, columns_of
from jaxconf.analysis.metrics import SHARES
from jaxconf.analysis.neuron_names import neuron_name, place, read_names
from jaxconf.analysis.neuron_sets import Neurons, crowded, masks_of, random_sets, widths_of
from jaxconf.analysis.rerun import Frozen
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.component_sets import is_component_set
from jaxconf.measure.inputs import in_words, text_of
from jaxconf.measure.reruns import rerun_parts, token_effects
from jaxconf.measure.work import Work, work_on
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.words import counted
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress

CANDIDATES = 10
FORMS = {
    "neuron": "LAYER.NEURON of each neuron, such as 11.584,11.2378 for neurons 584 and 2378 of layer 11",
    "expert": "LAYER.EXPERT.NEURON of each neuron, such as 11.3.584 for neuron 584 of expert 3 of layer 11",
    "head": "LAYER.HEAD of each head, such as 5.1,5.5 for heads 1 and 5 of layer 5",
}
"""How neurons and attention heads are named, for error messages."""

Named = Sequence[Sequence[int]] | str
"""A set as a user names it: (layer, index) of each neuron, or the names of components, such as "sae.12,sae.99"."""


def read_option(option: str, text: str, kind: str = "neuron") -> list[tuple[int, int]]:
    """The (layer, index) of each neuron or head that an option names; `kind`: which of the two.

    Raises InputError for any other text, and for neurons of experts.
    """
    message = f"{option} is {str(text)!r}; give {FORMS[kind]}"
    names = _read(text, message)
    if any(len(name) != 2 for name in names):
        raise InputError(message)
    return [(layer, index) for layer, index in names]


def read_set(option: str, text: str) -> Named:
    """The neurons that an option names, as `read_option`, or the components."""
    return text if is_component_set(text) else read_option(option, text)


def read_sets(texts: Sequence[str], option: str = "--set") -> list[Named]:
    """The sets that an option names: neurons as "11.584,11.2378", components as "sae.12,sae.99", which stay as they
    are, or the name of a file with such a set on each line.

    Neurons of a mixture of experts have three numbers each. Raises InputError for a text that is neither, and for a
    file without sets.
    """
    one_a_line = f"give one set of neurons on each line, as {FORMS['neuron']}"
    sets: list[Named] = []
    for text in texts:
        if Path(text).is_file():
            lines = [line for line in Path(text).read_text(errors="replace").splitlines() if line.strip()]
            if not lines:
                raise InputError(f"the file {text} has no sets of neurons; {one_a_line}")
            sets += [_read_set(line, f"the file {text} has a line {line!r}; {one_a_line}") for line in lines]
        else:
            problem = f"{option} is {str(text)!r}, which is neither neurons nor a file"
            sets.append(_read_set(text, f"{problem}; give {FORMS['neuron']}, or a file with a set on each line"))
    return sets


def _read_set(text: str, message: str) -> Named:
    return text if is_component_set(text) else _read(text, message)


def _read(text: str, message: str) -> list[tuple[int, ...]]:
    try:
        return read_names(text)
    except ValueError as error:
        raise InputError(message) from error


def check_places(kind: str, places: Neurons, layers: int, each: int) -> None:
    """Raises InputError for a neuron or a head that a model of so many `layers`, with so many in `each`, does not have.

    `kind`: "neuron" or "head". `places`: the layer and index of each.
    """
    for layer, index in places:
        if not (0 <= layer < layers and 0 <= index < each):
            raise InputError(
                f"there is no {kind} {layer}.{index} ({kind} {index} of layer {layer}), since the model has "
                f"{counted(layers, 'layer')} of {counted(each, kind)}{' each' * (layers > 1)}; "
                f"give LAYER.{kind.upper()} from 0.0 to {layers - 1}.{each - 1}"
            )


def check_once(kind: str, places: Neurons, where: str, experts: Sequence[int] = ()) -> None:
    """Raises InputError for a neuron or a head that is named more than once; `where`: in what.

    `experts`: the widths of the experts of a layer, if there are some.
    """
    for name, times in collections.Counter(neuron_name(*pair, experts) for pair in places).most_common(1):
        if times > 1:
            raise InputError(f"{kind} {name} is named more than once in {where}; give each {kind} once")


def check_form(config: DecoderConfig, names: Sequence[Sequence[int]], where: str) -> None:
    """Raises InputError for a name that has the form of other models: with an expert, or without one in a mixture."""
    for name in names:
        if len(name) != (3 if config.experts else 2):
            form = f"{FORMS['expert']}, since the model is a mixture of experts" if config.experts else FORMS["neuron"]
            raise InputError(f"{where} names the neuron {'.'.join(map(str, name))}; give {form}")


def check_set(
    config: DecoderConfig, neurons: Sequence[Sequence[int]], controls: int, where: str = "a set of neurons"
) -> list[tuple[int, int]]:
    """The set as pairs of layer and index.

    `neurons`: (layer, index) each, or in a mixture of experts (layer, expert, index). `controls`: how many random sets
    it is to be compared with. `where`: what names the neurons. Raises InputError for neurons that the model does not
    have, an empty set, a neuron named twice, and a set that leaves too few other neurons for random sets.
    """
    if controls < 0:
        raise InputError(f"controls is {controls}; give how many random sets to compare with, or 0")
    try:
        found = [place(name, config.experts) for name in neurons]
    except ValueError as error:
        have = f"experts of the widths {', '.join(map(str, config.experts))}" if config.experts else "no experts"
        raise InputError(f"{error}, since a layer of the model has {have}; name neurons that it has") from error
    check_places("neuron", found, config.n_layers, config.d_mlp)
    if not found:
        raise InputError("a set of neurons is empty; give at least one neuron, such as 11.584")
    check_once("neuron", found, where, config.experts)
    if controls and (most := crowded(widths_of(config), found)):
        group = "an expert" if config.experts else "a layer"
        raise InputError(
            f"a set takes {most[0]} of {group}'s {most[1]} neurons, which leaves too few for random sets; "
            "ask for 0 controls"
        )
    return found


def check_last_layer(config: DecoderConfig, neurons: Sequence[Sequence[int]], controls: int) -> list[tuple[int, int]]:
    """The set of neurons. Raises InputError as `check_set` does, and for neurons of other layers than the last."""
    found = check_set(config, neurons, controls)
    last = config.n_layers - 1
    for layer, index in found:
        if layer != last:
            name = neuron_name(layer, index)
            raise InputError(f"neuron {name} is not in the last layer, which is {last}; name neurons of that layer")
    return found


def highest_rho(config: DecoderConfig, rho: np.ndarray) -> list[tuple[int, int]]:
    """The CANDIDATES neurons of the last layer with the highest ρ [n], highest first, but at most half of the layer."""
    most = min(CANDIDATES, max(1, config.d_mlp // 2))
    return [(config.n_layers - 1, int(n)) for n in np.argsort(-rho)[:most]]


def ablate_sets(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int,
    sets: Sequence[Sequence[Sequence[int]]],
    *,
    controls: int = 20,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    ablation: Ablation = MEAN,
    frozen: Frozen = "final",
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    resume_folder: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> pd.DataFrame:
    """The effects of ablating all neurons of a set together, beside `controls` random sets of the same layers and size.

    `sets`: the neurons of each, as (layer, index), or in a mixture of experts (layer, expert, index); there random sets
    have as many neurons of each expert.

    The table has a row for each set, followed by one for each of its controls: `set` (the set's number from 0),
    `control` (0 for the set itself, else the number of the control), `neurons` (their names), `size`, and the effects
    and mediated shares of `jaxconf.analyze` under the same names and in the same units, with `_lo` and `_hi` from the
    bootstrap over documents. Other arguments as in `jaxconf.analyze`. Sets of the last layer are evaluated by its
    algebra; for others, the layers from the lowest layer of a set upwards are run again. Source: Stolfo et al. 2024
    (arXiv 2406.16254), sections 3.2 and 6. Raises InputError for neurons that the model does not have or that a set
    names twice, for sets that leave too few others for their controls, and as `jaxconf.analyze` does.
    """
    check_runnable(lm.params)
    work = work_on(lm, text_of(lm, tokens, data, counts, progress), kept, memory, progress, resume_folder)
    chosen = [check_set(lm.config, neurons, controls) for neurons in sets]
    statistics = _statistics(work, ablation, [pair for neurons in chosen for pair in neurons])

    def measured(drawn: Sequence[Neurons], memory: int) -> dict[str, np.ndarray]:
        masks = masks_of(lm.config.d_mlp, drawn)
        own = [x for layer in masks for x in statistics[layer]]
        of_sets = work.resuming(memory, drawn, ablation, frozen, *own)
        parts = rerun_parts(of_sets, masks, {layer: ablation.of_layer(statistics[layer]) for layer in masks}, frozen)
        rows = ((part.units, part.sums) for part in parts)
        return columns_of(bootstrap(rows, work.unit_counts, SHARES, bootstrap_draws, seed))

    rows = []
    for number, neurons in enumerate(chosen):
        drawn = [neurons, *random_sets(widths_of(lm.config), neurons, controls, np.random.default_rng([seed, number]))]
        names = [",".join(neuron_name(*pair, lm.config.experts) for pair in members) for members in drawn]
        columns = {"set": number, "control": np.arange(len(drawn)), "neurons": names, "size": len(neurons)}
        rows.append(pd.DataFrame(columns | fitting(functools.partial(measured, drawn), memory, progress)))
    return pd.concat(rows, ignore_index=True)


def per_token(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int,
    neurons: Sequence[Sequence[int]],
    *,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    ablation: Ablation = MEAN,
    frozen: Frozen = "final",
    memory: int = MEMORY,
    progress: Progress = lambda what, done, total: None,
) -> pd.DataFrame:
    """What ablating each of these neurons alone does at every kept position.

    Columns as in `jaxconf.measure.reruns.token_effects`, with tokens as text where the model has a tokenizer. Arguments
    and errors as in `ablate_sets`.
    """
    check_runnable(lm.params)
    text = text_of(lm, tokens, data, counts, progress)
    chosen = check_set(lm.config, neurons, 0, "the list of neurons")

    def measured(memory: int) -> pd.DataFrame:
        work, frames = work_on(lm, text, kept, memory, progress), []
        for layer, statistics in _statistics(work, ablation, chosen).items():
            own = {index: neuron_name(layer, index, lm.config.experts) for of, index in chosen if of == layer}
            frames.append(token_effects(work, layer, own, ablation.of_layer(statistics), frozen))
        return pd.concat(frames, ignore_index=True)

    return in_words(lm, fitting(measured, memory, progress))


def _statistics(work: Work, ablation: Ablation, neurons: Neurons) -> dict[int, ActivationStatistics]:
    """Layer → statistics of its activations, for each layer that has one of the neurons, in ascending order."""
    layers = sorted({layer for layer, _ in neurons})
    every = {layer: LayerActivations(work.lm, work.tokens, layer, work.memory) for layer in layers}
    return {layer: activation_statistics(of, work.progress, ordered=ablation.ordered) for layer, of in every.items()}
