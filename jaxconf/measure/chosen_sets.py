"""Sets as users name them: neurons by layer and index, or directions and latents by the names of their components.

A study checks them first, from the model's shape alone. When its text is read, it builds what they are drawn from, for
which the principal components need the text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxconf.analysis.weights import null_space_size
from jaxconf.data.windows import Windows
from jaxconf.measure.component_sets import check_component_sets
from jaxconf.measure.components import check_fit, groups_named, read_components
from jaxconf.measure.inputs import Text, check_amounts
from jaxconf.measure.named_sets import Population
from jaxconf.measure.neuron_sets import Named, check_form, check_last_layer, check_set
from jaxconf.measure.work import work_on
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.progress import Progress

NEURONS = "neurons"  # the components without which sets are of neurons alone


class Checked(NamedTuple):
    """A set that a user names and that there is."""

    component: str  # "neuron", or the kind of its directions
    members: list[tuple[int, int]]


def check_chosen(
    config: DecoderConfig,
    sets: Sequence[Named],
    components: str,
    controls: int,
    k: int | None,
    last: bool = True,
) -> list[Checked]:
    """The sets, each of neurons or of components of one kind.

    `components`: where the components are from, as for `jaxconf.analyze`. `controls`: how many random sets each is to
    be compared with. `k`: the size of the null space. `last`: whether neurons must be of the last layer. Raises
    InputError for components that no set names, and as `check_set`, `check_last_layer` and
    `jaxconf.measure.component_sets.ablate_component_sets` do.
    """
    check_amounts(0, controls=controls)
    null_space_size(config, k)
    names = read_components(components)
    check_fit(config, names, [config.n_layers - 1])
    named = [one for one in sets if isinstance(one, str)]
    if components != NEURONS and not named:
        raise InputError(
            f"components is {components}, but no set names one of them; name some, such as sae.12,sae.99, or leave "
            "components out"
        )
    of_components = iter(check_component_sets(config, named, components, controls, k))
    found = []
    for one in sets:
        if isinstance(one, str):
            component, indices = next(of_components)
            found.append(Checked(component, [(config.n_layers - 1, index) for index in indices]))
        else:
            check_form(config, one, "a set")
            own = check_last_layer(config, one, controls) if last else check_set(config, one, controls)
            found.append(Checked("neuron", own))
    return found


def populations(
    lm: LanguageModel,
    chosen: Sequence[Checked],
    components: str,
    k: int | None,
    tokens: np.ndarray,
    kept: np.ndarray | None,
    memory: int,
    progress: Progress,
) -> dict[str, Population]:
    """What the sets, and the random sets beside them, are drawn from: by the kind, of which "neuron" is always one.

    `tokens`: windows, int32 [s t]; principal components are those of the last stream over their `kept` positions, bool
    [s t], by default those of `jaxconf.kept_positions`. The other arguments are as for `check_chosen`, which `chosen`
    has passed.
    """
    found = {"neuron": Population.of_neurons(lm.config)}
    kinds = {one.component for one in chosen} - found.keys()
    if kinds:
        # No direction depends on the documents or on token counts.
        text = Text(Windows(tokens, np.indices(tokens.shape)[0]), np.zeros(lm.config.vocab_size, np.int64), {})
        work = work_on(lm, text, kept, memory, progress)
        for kind, group in groups_named(work, components, kinds, k).items():
            found[kind] = Population(kind, (len(group.names),), tuple(group.names), group.dictionary)
    return found
