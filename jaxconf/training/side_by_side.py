"""Models of one shape, trained side by side in one program on a mesh.

Letters: m model, b sequence, t position. If the mesh's axis `data` divides m, each device has models of its own; else
all devices have all models, and each has its share of the sequences. The axis `model` splits the weights.
"""

import functools
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.errors import InputError
from jaxconf.models.families import leaves
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import fetched, sharding
from jaxconf.training.config import TrainConfig
from jaxconf.training.step import Hyperparameters, State, extras_of, hyperparameters, start, train_step

CPU_TOKENS = 512  # in a microbatch; one that fits a CPU's caches trains twice as fast

Program = Callable[[State, Hyperparameters, jax.Array, int], tuple[State, jax.Array]]


def splits(mesh: Mesh, m: int) -> tuple[PartitionSpec, PartitionSpec]:
    """How states [m …] and the tokens of a step [m b t+1] are split over `data`."""
    if m % mesh.shape["data"] == 0:
        return PartitionSpec("data"), PartitionSpec("data")
    return PartitionSpec(), PartitionSpec(None, "data")


def state_shardings(decoder: DecoderConfig, mesh: Mesh, m: int, states: State) -> State:
    """Where each array of the states [m …] lies.

    `splits` says how it is split over `data`. The leaf table says how weights and their moments are split over `model`.
    """
    over_data, table = splits(mesh, m)[0], {leaf.path: leaf for leaf in leaves(decoder)}

    def place(path: tuple, array: jax.Array) -> NamedSharding:
        leaf = table.get("/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey)))
        over_model = sharding(mesh, leaf.axes, array.shape[1:]).spec if leaf else ()
        return NamedSharding(mesh, PartitionSpec(over_data[0] if over_data else None, *over_model))

    return jax.tree_util.tree_map_with_path(place, states)


def microbatch_size(config: TrainConfig, sequences: int) -> int:
    """On how many of its `sequences` a device works at once. Raises InputError if they do not divide."""
    if config.microbatch:
        if sequences % config.microbatch:
            raise InputError(
                f"a device has {sequences} sequences of a batch, which do not divide into microbatches of "
                f"{config.microbatch}; choose numbers that do"
            )
        return config.microbatch
    most = max(1, CPU_TOKENS // config.context) if jax.default_backend() == "cpu" else sequences
    return max(n for n in range(1, sequences + 1) if sequences % n == 0 and n <= most)


def start_all(decoder: DecoderConfig, mesh: Mesh, hyper: Hyperparameters) -> State:
    """The states [m …] before the first step, on the mesh."""
    shapes = jax.eval_shape(functools.partial(_starts, decoder), hyper)
    places = state_shardings(decoder, mesh, len(hyper.seed), shapes)
    return jax.jit(_starts, static_argnums=0, out_shardings=places)(decoder, hyper)


def _starts(decoder: DecoderConfig, hyper: Hyperparameters) -> State:
    return jax.vmap(functools.partial(start, decoder))(hyper)


def training_program(configs: Sequence[TrainConfig], decoder: DecoderConfig, mesh: Mesh) -> Program:
    """The jitted step of models [m] that differ only in PER_MODEL.

    (states, hyperparameters, tokens int32 [m b t+1], step) → the next states and the losses [m].
    """
    return _program(configs[0].shared(), decoder, extras_of(configs), mesh, len(configs))


@functools.lru_cache(maxsize=8)  # so that training the same shapes again in one process compiles nothing
def _program(config: TrainConfig, decoder: DecoderConfig, extras: frozenset[str], mesh: Mesh, m: int) -> Program:
    state_split, token_split = splits(mesh, m)
    by_model = state_split == token_split
    sequences = config.batch if by_model else config.batch // mesh.shape["data"]
    parts = sequences // microbatch_size(config, sequences)
    step_of_one = functools.partial(train_step, config, decoder, extras, parts, None if by_model else "data")
    # A CPU works on one model after the other: side by side they would not fit its caches.
    over_models = jax.lax.map if jax.default_backend() == "cpu" else lambda f, models: jax.vmap(f)(models)

    def step_of_all(
        states: State, hyper: Hyperparameters, tokens: jax.Array, step: jax.Array
    ) -> tuple[State, jax.Array]:
        return over_models(lambda model: step_of_one(model[0], model[1], model[2], step), (states, hyper, tokens))

    # Written out for `data` only: the compiler adds what the split of the weights over `model` needs.
    mapped = jax.shard_map(
        step_of_all,
        mesh=mesh,
        in_specs=(state_split, state_split, token_split, PartitionSpec()),
        out_specs=(state_split, state_split),
        axis_names={"data"},
        check_vma=False,
    )
    # Stated, because XLA may call a split over one device a copy, and the next step would be compiled again.
    shapes = jax.eval_shape(functools.partial(_starts, decoder), hyperparameters([config] * m))
    places = (state_shardings(decoder, mesh, m, shapes), NamedSharding(mesh, state_split))
    return jax.jit(mapped, donate_argnums=0, out_shardings=places)


def params_of_one(decoder: DecoderConfig, mesh: Mesh, params: Params, index: int) -> Params:
    """One model's parameters out of those of all [m …], placed as an analysis takes them.

    They lie on this host's first device, or on the mesh where that splits weights.
    """
    one = jax.tree.map(lambda w: w[index], params)
    if mesh.shape["model"] == 1:
        return jax.device_put(fetched(one), jax.local_devices()[0])
    places = nest((leaf.path, sharding(mesh, leaf.axes, leaf.shape(decoder))) for leaf in leaves(decoder))
    return jax.device_put(one, places)
