"""Sets of directions or latents of one kind that are ablated together, beside random sets of the same kind.

Letters: c set, n direction.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import MEAN, Ablation
from jaxconf.analysis.activations import ActivationStatistics
from jaxconf.analysis.intervals import bootstrap, columns_of
from jaxconf.analysis.metrics import SHARES
from jaxconf.analysis.neuron_sets import masks_of, random_sets
from jaxconf.analysis.unembedding import readout
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.own_text import OWN
from jaxconf.data.windows import Windows
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.components import groups_named, names_of_directions, read_components
from jaxconf.measure.groups import Group
from jaxconf.measure.inputs import check_amounts, in_words, text_of
from jaxconf.measure.reruns import rerun_parts, token_effects
from jaxconf.measure.work import Work, work_on
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress

WITHOUT = re.compile(r"\d+\.(h\d+|b_\w+)")  # names of heads and of biases
NAME = re.compile(rf"[A-Za-z]\w*\.\d+|{WITHOUT.pattern}")


def is_component_set(text: str) -> bool:
    """Whether an option names components such as sae.12,sae.99, and neither neurons nor a file."""
    return all(NAME.fullmatch(part.strip()) for part in text.split(",")) and not Path(text).is_file()


def check_component_sets(
    config: DecoderConfig, sets: Sequence[str], components: str, controls: int, k: int | None = None
) -> list[tuple[str, list[int]]]:
    """The kind of each set, and the indices of its members. Raises InputError as `ablate_component_sets` does."""
    kinds = names_of_directions(config, read_components(components), null_space_size(config, k)) if sets else {}
    return [_found(kinds, [name.strip() for name in text.split(",")], controls) for text in sets]


def ablate_component_sets(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int,
    sets: Sequence[str],
    components: str,
    *,
    controls: int = 20,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    ablation: Ablation = MEAN,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    resume_folder: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> pd.DataFrame:
    """As `jaxconf.ablate_sets`, for sets of directions or latents, each of one kind, such as "sae.12,sae.99".

    `components`: where they are from, as for `jaxconf.analyze`. A random set has as many others of the kind. Raises
    InputError for a set of several kinds or of neurons, heads or biases, for a component that there is not, and for a
    set that leaves too few others.
    """
    check_amounts(0, controls=controls)
    check_runnable(lm.params)
    chosen = check_component_sets(lm.config, sets, components, controls, k)
    work = work_on(lm, text_of(lm, tokens, data, counts, progress), kept, memory, progress, resume_folder)
    groups, last = groups_named(work, components, {kind for kind, _ in chosen}, k), lm.config.n_layers - 1
    lengths = fetched(jnp.linalg.norm(readout(lm.config, lm.params).W_U, axis=0))

    @functools.cache
    def statistics(kind: str, memory: int) -> ActivationStatistics:
        return _statistics(dataclasses.replace(work, memory=memory), groups[kind], ablation)

    def measured(kind: str, masks: np.ndarray, memory: int) -> dict[str, np.ndarray]:
        dictionary, own = groups[kind].dictionary, statistics(kind, memory)
        assert dictionary is not None
        of_sets = dataclasses.replace(work, dictionary=dictionary)
        of_sets = of_sets.resuming(memory, kind, masks, ablation, *own, lengths, fetched(dictionary.w))
        parts = rerun_parts(of_sets, {last: masks}, {last: ablation.of_layer(own)}, "final")
        rows = ((part.units, part.sums) for part in parts)
        return columns_of(bootstrap(rows, work.unit_counts, SHARES, bootstrap_draws, seed))

    rows = []
    for number, (kind, own) in enumerate(chosen):
        group = groups[kind]
        pairs = [(last, index) for index in own]
        drawn = [
            pairs,
            *random_sets((len(group.names),), pairs, controls, np.random.default_rng([seed, number])),
        ]
        masks = masks_of(len(group.names), drawn)[last]
        columns: dict[str, Any] = {
            "set": number,
            "control": np.arange(len(drawn)),
            "neurons": [",".join(group.names[n] for _, n in members) for members in drawn],
            "size": len(own),
        }
        rows.append(pd.DataFrame(columns | fitting(functools.partial(measured, kind, masks), memory, progress)))
    return pd.concat(rows, ignore_index=True)


def per_component_token(
    lm: LanguageModel,
    tokens: np.ndarray | Windows | int,
    names: str,
    components: str,
    *,
    data: str = OWN,
    kept: np.ndarray | None = None,
    counts: np.ndarray | str | Path | None = None,
    ablation: Ablation = MEAN,
    k: int | None = None,
    memory: int = MEMORY,
    progress: Progress = lambda what, done, total: None,
) -> pd.DataFrame:
    """As `jaxconf.per_token`, for directions or latents of one kind, such as "sae.12,sae.99".

    `components`: where they are from, as for `jaxconf.analyze`. Raises InputError as `ablate_component_sets` does.
    """
    check_runnable(lm.params)
    ((kind, own),) = check_component_sets(lm.config, [names], components, 0, k)
    text = text_of(lm, tokens, data, counts, progress)

    def measured(memory: int) -> pd.DataFrame:
        work = work_on(lm, text, kept, memory, progress)
        group = groups_named(work, components, {kind}, k)[kind]
        work = dataclasses.replace(work, dictionary=group.dictionary)
        levels = ablation.of_layer(_statistics(work, group, ablation))
        return token_effects(work, group.layer, {n: group.names[n] for n in own}, levels, "final")

    return in_words(lm, fitting(measured, memory, progress))


def _statistics(work: Work, group: Group, ablation: Ablation) -> ActivationStatistics:
    activity = LayerActivations(work.lm, work.tokens, group.layer, work.memory, group.dictionary)
    return activation_statistics(activity, work.progress, ordered=ablation.ordered)


def _found(kinds: Mapping[str, Sequence[str]], names: Sequence[str], controls: int) -> tuple[str, list[int]]:
    """The kind that the names are of, and their indices in it. `kinds`: kind → the names of its directions."""
    for name in filter(WITHOUT.fullmatch, names):
        raise InputError(
            f"a set names {name}, but there is no direction or latent {name}: a head writes another direction at each "
            "position and a bias never varies, so that neither has a coefficient to set; name directions or latents"
        )
    kind = next((kind for kind, of in kinds.items() if names[0] in of), None)
    if kind is None:
        ranges = ", ".join(f"{of[0]} to {of[-1]}" for of in kinds.values())
        if not ranges:
            raise InputError(
                f"there is no direction or latent {names[0]}, since --components names none; give where it is "
                "from, such as --components sae=FOLDER"
            )
        raise InputError(f"there is no direction or latent {names[0]}; those of --components are: {ranges}")
    places = {name: index for index, name in enumerate(kinds[kind])}
    missing = [name for name in names if name not in places]
    if missing:
        raise InputError(
            f"{missing[0]} is not of the same kind as {names[0]}, of which there are {kinds[kind][0]} to "
            f"{kinds[kind][-1]}; name a set of one kind"
        )
    own = [places[name] for name in names]
    if len(set(own)) < len(own):
        raise InputError(f"a set names {max(names, key=list(names).count)} more than once; give each component once")
    if controls and 2 * len(own) > len(places):
        raise InputError(
            f"a set takes {len(own)} of {len(places)} {kind} components, which leaves too few for random sets; ask for "
            "0 controls"
        )
    return kind, own
