"""Models of one shape, trained side by side in one program on a mesh.

Letters: m model, b sequence, t position. If the size of the mesh's axis `data` divides m, the models are split over
`data`. Otherwise the sequences are: each device along `data` has all models and a share of their sequences. The axis
`model` splits the weights.
"""

import dataclasses
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

CPU_TOKENS = 512  # in a microbatch on a CPU; training is twice as fast when a microbatch fits the caches

Program = Callable[[State, Hyperparameters, jax.Array, int], tuple[State, jax.Array]]


def splits(mesh: Mesh, m: int) -> tuple[PartitionSpec, PartitionSpec]:
    """How the states [m …], and how the tokens of a step [m b t+1], are split over `data`."""
    if m % mesh.shape["data"] == 0:
        return PartitionSpec("data"), PartitionSpec("data")
    return PartitionSpec(), PartitionSpec(None, "data")


def state_shardings(decoder: DecoderConfig, mesh: Mesh, m: int, states: State) -> State:
    """The sharding of each array of the states [m …].

    `splits` gives the split over `data`. The leaf table gives the split of weights and their moments over `model`.
    """
    over_data, table = splits(mesh, m)[0], {leaf.path: leaf for leaf in leaves(decoder)}

    def place(path: tuple, array: jax.Array) -> NamedSharding:
        leaf = table.get("/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey)))
        over_model = sharding(mesh, leaf.axes, array.shape[1:]).spec if leaf else ()
        return NamedSharding(mesh, PartitionSpec(over_data[0] if over_data else None, *over_model))

    return jax.tree_util.tree_map_with_path(place, states)


def microbatch_size(config: TrainConfig, sequences: int) -> int:
    """How many of its `sequences` a device processes at once.

    Raises InputError if `sequences` is not a multiple of the config's microbatch.
    """
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
    places = state_shardings(decoder, mesh, len(hyper.seed), _shapes(decoder, len(hyper.seed)))
    return jax.jit(_starts, static_argnums=0, out_shardings=places)(decoder, hyper)


def _starts(decoder: DecoderConfig, hyper: Hyperparameters) -> State:
    return jax.vmap(functools.partial(start, decoder))(hyper)


@functools.lru_cache(maxsize=8)
def _shapes(decoder: DecoderConfig, m: int) -> State:
    """The shapes of the states [m …]."""
    return jax.eval_shape(functools.partial(_starts, decoder), hyperparameters([TrainConfig()] * m))


def training_program(configs: Sequence[TrainConfig], decoder: DecoderConfig, mesh: Mesh, held: bool = False) -> Program:
    """The jitted training step of models [m] whose configs differ only in PER_MODEL.

    It maps (states, hyperparameters, tokens int32 [m b t+1], step) to the next states and the losses [m] (nats per
    token). The states passed in are donated. `held`: whether the neurons of `hold` are at zero. Without it the program
    is that of models that hold none.
    """
    # The program does not depend on the step from which it is used.
    config = dataclasses.replace(configs[0].shared(), hold_from=TrainConfig.hold_from)
    config = config if held else dataclasses.replace(config, hold=TrainConfig.hold)
    return _program(config, decoder, extras_of(configs), mesh, len(configs))


@functools.lru_cache(maxsize=8)  # so that nothing is compiled again if a process trains the same shapes again
def _program(config: TrainConfig, decoder: DecoderConfig, extras: frozenset[str], mesh: Mesh, m: int) -> Program:
    state_split, token_split = splits(mesh, m)
    by_model = state_split == token_split
    sequences = config.batch if by_model else config.batch // mesh.shape["data"]
    parts = sequences // microbatch_size(config, sequences)
    step_of_one = functools.partial(train_step, config, decoder, extras, parts, None if by_model else "data")
    # A CPU trains the models one after the other, because all of them together would not fit its caches.
    over_models = jax.lax.map if jax.default_backend() == "cpu" else lambda f, models: jax.vmap(f)(models)

    def step_of_all(
        states: State, hyper: Hyperparameters, tokens: jax.Array, step: jax.Array
    ) -> tuple[State, jax.Array]:
        return over_models(lambda model: step_of_one(model[0], model[1], model[2], step), (states, hyper, tokens))

    # Manual over `data` only. The compiler adds the communication that the split of the weights over `model` needs.
    mapped = jax.shard_map(
        step_of_all,
        mesh=mesh,
        in_specs=(state_split, state_split, token_split, PartitionSpec()),
        out_specs=(state_split, state_split),
        axis_names={"data"},
        check_vma=False,
    )
    # The output shardings are given because XLA may report a split over one device as a replication. The next step
    # would then be compiled again.
    places = (state_shardings(decoder, mesh, m, _shapes(decoder, m)), NamedSharding(mesh, state_split))
    return jax.jit(mapped, donate_argnums=0, out_shardings=places)


def params_of_one(decoder: DecoderConfig, mesh: Mesh, params: Params, index: int) -> Params:
    """The parameters of one of the models [m …], placed as an analysis takes them.

    They lie on this host's first device, or on the mesh if it splits weights.
    """
    one = _one(params, index)
    if mesh.shape["model"] == 1:
        return jax.device_put(fetched(one), jax.local_devices()[0])
    places = nest((leaf.path, sharding(mesh, leaf.axes, leaf.shape(decoder))) for leaf in leaves(decoder))
    return jax.device_put(one, places)


@jax.jit
def _one(params: Params, index: int) -> Params:
    return jax.tree.map(lambda w: w[index], params)
