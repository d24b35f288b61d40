"""The mesh that a model is put on: the one that is asked for, or one that is chosen by the model's size."""

import functools
import math
import os
import re
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import LanguageModel, find, load, read_config
from jaxconf.models.mesh import make_mesh, pieces

FLOAT32 = 4  # bytes


def load_placed(
    model: str, revision: str | None, mesh: str | None, say: Callable[[str], None], accept: str | Sequence[str] = ()
) -> LanguageModel:
    """Load a model in float32 onto the mesh that `mesh` names, such as "data=4,model=2", or onto that of `placement`.

    `model`, `revision`, `accept`: as for `jaxconf.load`. `say`: called with a sentence about the mesh if it has several
    devices. Raises InputError as `jaxconf.load` does, and, before the weights are fetched, for a mesh that does not
    have as many devices as JAX sees and for a model that does not fit into their memory.
    """
    sizes = read_mesh(mesh) if mesh else None
    folder, _ = find(model, revision, weights=False)
    chosen = placement(config_from_hf(read_config(folder), accept), sizes)
    if chosen.size > 1:
        say(f"Mesh: data={chosen.shape['data']}, model={chosen.shape['model']}.")
    return load(model, revision, mesh=chosen, accept=accept)


AXES = "give the sizes of its axes, which are data and model, such as data=4,model=2 for 8 devices"


def read_mesh(text: str, devices: int | None = None) -> tuple[int, int]:
    """The sizes of `data` and `model` in a text such as "data=4,model=2".

    An axis that is not named gets the remaining devices. `devices`: how many there are in all; by default as many as
    JAX sees. Raises InputError for any other text.
    """
    if not re.fullmatch(r"(data|model)=[1-9]\d*(,(data|model)=[1-9]\d*)?", text):
        raise InputError(f"--mesh is {text!r}; {AXES}")
    sizes = [part.split("=") for part in text.split(",")]
    named = {name: int(size) for name, size in sizes}
    if len(named) < len(sizes):
        raise InputError(f"--mesh is {text!r}; give each axis once, such as data=4,model=2")
    rest = max(1, (devices or jax.device_count()) // math.prod(named.values()))
    return named.get("data", rest), named.get("model", rest)


def placement(config: DecoderConfig, sizes: tuple[int, int] | None = None) -> Mesh:
    """The mesh of these `sizes` (data, model) over all devices.

    By default the axis `model` has the fewest devices that can hold the weights together, and `data` has the rest.
    Raises InputError for sizes whose product is not the number of devices, and for devices with too little memory.
    """
    return _fitting(sizes, functools.partial(bytes_needed, config), lambda rest: rest)


def training_placement(config: DecoderConfig, m: int, batch: int, sizes: tuple[int, int] | None = None) -> Mesh:
    """The mesh on which `m` models of one shape are trained on batches of `batch` sequences.

    The axis `data` splits the models if its size divides their number, and otherwise the sequences of a batch. By
    default it has all devices that `model` leaves if they divide the models, and otherwise as many of them as divide
    the sequences. A device holds the float32 weights, their gradients and Adam's two moments: of its share of the
    models, or of all models where the sequences are split. Sizes and errors as for `placement`; InputError is also
    raised if the size of `data` divides neither.
    """

    def over_data(rest: int) -> int:
        return rest if m % rest == 0 else math.gcd(batch, rest)

    if sizes and over_data(sizes[0]) != sizes[0]:
        # A single model cannot be split over data, so nothing is said of models then.
        what, number = (f"neither {m} models nor ", f"{m} or {batch}") if m > 1 else ("", f"{batch}")
        raise InputError(
            f"{what}a batch of {batch} sequences can{'not' * (m == 1)} be split evenly over data={sizes[0]}; give a "
            f"batch that is a multiple of {sizes[0]}, or a mesh whose size of data divides {number}"
        )

    def needed(model: int) -> int:
        data = over_data(sizes[0] if sizes else jax.device_count() // model)
        return 4 * bytes_of_weights(config, model) * (m // data if m % data == 0 else m)

    return _fitting(sizes, needed, over_data)


def _fitting(sizes: tuple[int, int] | None, needed: Callable[[int], int], over_data: Callable[[int], int]) -> Mesh:
    """The mesh of these `sizes`, or the one with the fewest devices on `model`, if it fits into the devices' memory.

    `needed`: size of `model` → bytes that each device needs. `over_data`: number of devices that `model` leaves → how
    many of them `data` gets.
    """
    devices, memory = jax.device_count(), memory_of_a_device() or math.inf
    if sizes and math.prod(sizes) != devices:
        raise InputError(
            f"a mesh of data={sizes[0]},model={sizes[1]} has {math.prod(sizes)} devices, and JAX sees {devices}; "
            f"give sizes whose product is {devices}"
        )
    for model in [sizes[1]] if sizes else [size for size in range(1, devices + 1) if devices % size == 0]:
        if (bytes_of_one := needed(model)) <= memory:
            data = over_data(devices // model)
            if jax.process_count() > 1 and data * model < devices:
                raise InputError(
                    f"models and sequences can be split over only {data * model} of the {devices} devices, and several "
                    "hosts must use all of them; give another batch, or fewer hosts"
                )
            return make_mesh(data, model)
    raise InputError(
        f"the model needs {bytes_of_one / 1e9:.1f} GB on each of {devices} devices, split {model} ways, "
        f"and each has {memory / 1e9:.1f} GB; use more or larger devices"
    )


def bytes_needed(config: DecoderConfig, model: int) -> int:
    """Bytes that a device needs for its part of the float32 weights, which `model` devices share, and for the whole
    folded unembedding.
    """
    return bytes_of_weights(config, model) + FLOAT32 * config.d_model * config.vocab_size


def bytes_of_weights(config: DecoderConfig, model: int) -> int:
    """Bytes that a device needs for its part of the float32 weights, which `model` devices share."""
    shapes = [(leaf.axes, leaf.shape(config)) for leaf in leaves(config)]
    return FLOAT32 * sum(math.prod(shape) // pieces({"data": 1, "model": model}, axes, shape) for axes, shape in shapes)


def memory_of_a_device() -> int | None:
    """Bytes that each device has, or None if that is unknown; CPU devices share the host's memory equally."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if jax.default_backend() == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return None
