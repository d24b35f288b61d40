"""Which components an analysis measures: neurons, and whatever else writes into the last stream.

    neurons          those of the analysed layers
    heads            the attention heads of the last layer, 11.h5
    biases           the output biases of its MLP and its attention, 11.b_out and 11.b_O, which are set to 0
    null             the singular directions of the unembedding's null space one by one, null.0 the least visible
    pc=8             so many principal components of the last stream over the kept positions, pc.0 the largest
    sae=FOLDER       the latents of a sparse autoencoder or a transcoder, sae.1234
    directions=FILE  directions that a user gives, direction.3, or as the file names them

(`jaxconf.measure.autoencoders` reads the last two.) Letters: d model width, n component.
"""

from collections.abc import Collection, Sequence

import numpy as np

from jaxconf.analysis.dictionaries import Dictionary, along, last_stream, null_directions, output_bias
from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import Spectrum, spectrum
from jaxconf.analysis.weights import null_space_size
from jaxconf.measure.activations import stream_covariance
from jaxconf.measure.autoencoders import read_autoencoder, read_directions, stored_autoencoder
from jaxconf.measure.groups import Group
from jaxconf.measure.work import Work
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError, nearest

PLAIN = ("neurons", "heads", "biases", "null")
"""The components that need no value."""
LABELS = {"directions": "direction"}  # what a component of a kind is called, if not as the kind
VALUED = {"pc": "how many, such as pc=8", "sae": "a folder, such as sae=FOLDER", "directions": "an .npz file"}


def label_of(name: str) -> str:
    """What the components with a name such as "sae=FOLDER" are called, before their numbers."""
    kind = name.partition("=")[0]
    return LABELS.get(kind, kind)


def read_components(text: str) -> tuple[str, ...]:
    """The components that are named, with commas between them.

    Raises InputError for a component that is not known, one without its value, and one that is named twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        kind, given, value = name.partition("=")
        if kind not in (*PLAIN, *VALUED):
            raise InputError(
                f"components has {name!r}, which is not known; the nearest is {nearest(kind, (*PLAIN, *VALUED))!r}, "
                f"and {', '.join(PLAIN)}, pc=COUNT, sae=FOLDER and directions=FILE are all"
            )
        if kind in VALUED and not value:
            raise InputError(f"components has {name!r} without a value; give {VALUED[kind]}")
        if kind in PLAIN and given:
            raise InputError(f"components has {name!r}, but {kind} takes no value; leave it out")
        if kind == "pc" and not (value.isdecimal() and int(value) >= 1):
            raise InputError(f"components has {name!r}; give how many principal components, at least 1, such as pc=8")
    kinds = [name.partition("=")[0] for name in names]
    if len(set(kinds)) < len(kinds):
        twice = max(kinds, key=kinds.count)
        raise InputError(f"components names {twice} more than once; give each kind once, and further ones another run")
    return names


def check_fit(config: DecoderConfig, names: Sequence[str], layers: Sequence[int], frozen: Frozen = "final") -> None:
    """Raises InputError for components that a model of this shape does not have, and for files that do not fit it.

    `layers`: those whose neurons are measured; other components are those of the last layer, which must be one of them.
    `frozen`: the norms that keep their scale; those of heads and biases are the "final" one.
    """
    if frozen != "final" and {"heads", "biases"} & set(names):
        raise InputError(f"frozen is {frozen}, which heads and biases do not take; give final, or leave them out")
    last = config.n_layers - 1
    if set(names) != {"neurons"} and layers[-1] != last:
        raise InputError(f"components other than neurons are those of the last layer, {last}; give layer last or all")
    for name in names:
        kind, _, value = name.partition("=")
        match kind:
            case "biases" if not (config.attn_out_bias or (config.mlp_bias and not config.experts)):
                raise InputError("the last layer of the model has no output biases; leave out biases")
            case "pc" if int(value) > config.d_model:
                raise InputError(f"pc is {value}, but the stream has the width {config.d_model}; give at most that")
            case "sae":
                stored_autoencoder(config, value)
            case "directions":
                read_directions(config, value)


def names_of_directions(config: DecoderConfig, names: Sequence[str], k: int) -> dict[str, list[str]]:
    """The kind of each of the components that are directions or latents → the names of these.

    `names`, `k`: as for `groups_of`. Raises InputError for files that do not fit.
    """
    found = {}
    for name in names:
        kind, _, value = name.partition("=")
        label, own = label_of(name), None
        match kind:
            case "null":
                count = k
            case "pc":
                count = int(value)
            case "sae":
                count = stored_autoencoder(config, value).latents
            case "directions":
                directions, own = read_directions(config, value)
                count = len(directions.w)
            case _:
                continue
        found[label] = [f"{label}.{n}" for n in range(count)] if own is None else list(own)
    return found


def groups_named(work: Work, components: str, kinds: Collection[str], k: int | None) -> dict[str, Group]:
    """Kind → the group of its directions, for those `kinds` of directions or latents that `components` names.

    `components`, `k`: as for `jaxconf.analyze`.
    """
    names = [name for name in read_components(components) if label_of(name) in kinds]
    values = spectrum(work.lm.config, work.lm.params) if "null" in names else None
    groups = groups_of(work, names, [work.lm.config.n_layers - 1], values, null_space_size(work.lm.config, k))
    return {group.component: group for group in groups}


def groups_of(work: Work, names: Sequence[str], layers: Sequence[int], values: Spectrum | None, k: int) -> list[Group]:
    """The groups of the components with these `names`, in their order.

    `layers`: those whose neurons are measured; other components are those of the last layer. `values`, `k`: the
    spectrum of the unembedding and the size of its null space, for the components "null". They have passed `check_fit`.
    """
    return [group for name in names for group in _groups_of(work, name, layers, values, k)]


def _groups_of(work: Work, name: str, layers: Sequence[int], values: Spectrum | None, k: int) -> list[Group]:
    config = work.lm.config
    last = config.n_layers - 1
    kind, _, value = name.partition("=")
    match kind:
        case "neurons":
            numbers = range(config.d_mlp)
            return [Group("neuron", of, [neuron_name(of, n, config.experts) for n in numbers]) for of in layers]
        case "heads":
            return [Group("head", last, [f"{last}.h{head}" for head in range(config.n_heads)], attention=True)]
        case "biases":
            return _biases(work, last)
        case "null":
            assert values is not None
            found = null_directions(config, values, k)
        case "pc":
            found = _principal(work, int(value))
        case "sae":
            found = read_autoencoder(config, value)
        case "directions":
            found, own = read_directions(config, value)
            if own is not None:
                return [Group("direction", last, own, found)]
    label = label_of(name)
    return [Group(label, last, [f"{label}.{n}" for n in range(len(found.w))], found)]


def _biases(work: Work, last: int) -> list[Group]:
    """The output biases of the last MLP and of the last attention, each a group of one."""
    config, groups = work.lm.config, []
    if config.mlp_bias and not config.experts:
        groups.append(Group("bias", last, [f"{last}.b_out"], output_bias(config, work.lm.params), constant=True))
    if config.attn_out_bias:
        groups.append(Group("bias", last, [f"{last}.b_O"], constant=True, attention=True))
    return groups


def _principal(work: Work, count: int) -> Dictionary:
    """The `count` principal components of the stream that enters the final norm, over the kept positions."""
    config = work.lm.config
    covariance = stream_covariance(work.lm, work.tokens, last_stream(config), work.kept, work.memory)
    return along(config, np.linalg.eigh(covariance)[1][:, ::-1][:, :count].T)
