"""Train small decoders from scratch, several side by side in one program.

Letters: m model, b sequence, t position, v vocabulary. What the models of one program share is their shape; the numbers of
`jaxconf.training.config.ARRAYS` may differ. Any step can be made from the state before it and its number alone, which is what lets an
interrupted run go on to the bit.
"""

import contextlib
import functools
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxconf.data.corpus import Corpus
from jaxconf.models.checkpoint import save_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Decoder, Params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.files import replacing
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import fetched, placed, sharding, wait_on_cpus
from jaxconf.models.sites import Dropout, Edit
from jaxconf.runtime.hosts import largest
from jaxconf.runtime.placement import training_placement
from jaxconf.training import checkpoints
from jaxconf.training.config import ARRAYS, TrainConfig

CPU_TOKENS = 512  # tokens of a microbatch on a CPU: what one keeps in its caches trains twice as fast
EVALUATED = 8192  # tokens on which the held-out loss is computed at once
REPORT_STEPS = 50  # losses are fetched and looked at every so many steps
ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "stablelm": "StableLmForCausalLM",
}


class Stopped(Exception):
    """A signal ended the training after `step`, whose checkpoint is saved."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped after step {step}")
        self.step, self.signum = step, signum


class State(NamedTuple):
    """What a step changes; every array has a leading axis m."""

    params: Params
    optimizer: Any


@struct.dataclass
class Numbers:
    """The hyperparameters that may differ between models, [m] each, or () for one model."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    clip: jax.Array
    dropout: jax.Array
    z_loss: jax.Array
    label_smoothing: jax.Array
    seed: jax.Array


def hf_config(config: TrainConfig, begin: int | None = 0, end: int | None = 0) -> dict[str, Any]:
    """The config.json of the model to be trained. Raises InputError for an attribute that is not NAME=VALUE."""
    common = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": begin,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    if config.model_type == "gpt2":
        shape: dict[str, Any] = {
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.neurons,
            "n_positions": config.context,
        }
    else:
        shape = {
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.neurons,
            "max_position_embeddings": config.context,
        }
    special = {
        "gpt2": {},
        "gpt_neox": {"rotary_pct": 1.0, "use_parallel_residual": False},
        "llama": {"num_key_value_heads": config.heads, "rms_norm_eps": 1e-5},
        "stablelm": {"num_key_value_heads": config.heads, "partial_rotary_factor": 1.0},
    }[config.model_type]
    return {**common, **shape, **special, **dict(map(_attribute, config.attributes))}


def _attribute(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"the attribute {text!r} has no value; give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def train_models(
    configs: Sequence[TrainConfig],
    corpus: Corpus,
    folders: Sequence[Path],
    checkpoint_folder: Path,
    checkpoint_every: int = 250,
    track: Callable[[int, int, Params, float], None] = lambda model, step, params, train_loss: None,
    tracked: frozenset[int] = frozenset(),
    report: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
    mesh: Mesh | None = None,
) -> list[dict[str, Any]]:
    """Train models of one shape side by side and write the config.json, model.safetensors and losses.npy of each to its folder.

    Goes on from the newest good checkpoint in `checkpoint_folder`, if there is one, with the same losses to the bit as if it had never
    stopped; checkpoints are written there every `checkpoint_every` steps and when SIGTERM or SIGINT asks to stop (then Stopped is
    raised; of several hosts any may be asked, and all stop when they next look at their losses), and deleted at the end. `track(model, step, params, train_loss)` is called at the `tracked` steps (0: before the first) with
    the model's index, its parameters and its mean training loss since the tracked step before; a resumed run may call it again for steps
    after the checkpoint. `report(step, figures)` gets the mean loss (nats per token) and the throughput (tokens/s) every 50 steps. `mesh`: as
    `jaxconf.runtime.placement.training_placement` gives it, which is the default.

    Returns for each model `loss` (mean of the last 50 steps) and `held_out_loss`, nats per token, or only `diverged_at`, the first step
    whose loss is not a finite number: such a model is not written, and training ends at once if that has happened to all. Raises
    InputError if a checkpoint cannot be written and OSError for other files; the checkpoints before it stay.
    """
    config, m = configs[0], len(configs)
    files = [hf_config(c, corpus.begin, corpus.end) for c in configs]
    decoder = config_from_hf(files[0])
    mesh = mesh or training_placement(decoder, m, config.batch)
    step_fn = _program(config, decoder, _used(configs), mesh, m)
    numbers = jax.tree.map(lambda x: placed(x, NamedSharding(mesh, _places(mesh, m)[0])), _numbers(configs))
    tokens_place = NamedSharding(mesh, _places(mesh, m)[1])
    state = _start(decoder, mesh, m, numbers)
    losses = np.full((m, config.steps), np.nan, np.float32)
    done = 0
    if found := checkpoints.restore(checkpoint_folder, {"state": state, "losses": losses}):
        done, saved = found
        state, losses = saved["state"], np.array(saved["losses"])

    def measure(step: int) -> None:
        before = max((t for t in tracked if t < step), default=0)
        for i in range(m):
            if not _diverged_at(losses[i, :step]):
                track(i, step, _model(decoder, mesh, state.params, i), float(losses[i, before:step].mean()) if step else math.nan)

    if done == 0 and 0 in tracked:
        measure(0)
    begun, seen, pending = time.perf_counter(), done, []
    with _signals() as caught:
        for step in range(done + 1, config.steps + 1):
            batch = np.stack([corpus.batch(c.seed, step, c.batch, c.context) for c in configs])
            state, loss = step_fn(state, numbers, placed(batch, tokens_place), step)
            pending.append(loss)
            wait_on_cpus(mesh, loss)
            look = step == config.steps or step in tracked or step % checkpoint_every == 0 or step % REPORT_STEPS == 0
            # Read once, for what is said to be saved must be; and where there are several hosts, only where all of them look.
            asked = largest(caught[0] if caught else 0) if look or jax.process_count() == 1 else 0
            if not (look or asked):
                continue
            stop = bool(asked) or step == config.steps
            save = stop or step % checkpoint_every == 0
            losses[:, seen:step] = np.stack(fetched(pending), 1)
            rate = m * (step - seen) * config.batch * config.context / (time.perf_counter() - begun)
            if step % REPORT_STEPS == 0 or stop:
                report(step, {"loss": float(losses[:, max(0, step - REPORT_STEPS) : step].mean()), "tokens_per_second": rate})
            if all(_diverged_at(of_one[:step]) for of_one in losses):
                return [{"diverged_at": _diverged_at(of_one[:step])} for of_one in losses]
            if step in tracked:
                measure(step)
            if save and step < config.steps:
                checkpoints.save(checkpoint_folder, step, {"state": state, "losses": losses})
            if asked and step < config.steps:
                raise Stopped(step, asked)
            begun, seen, pending = time.perf_counter(), step, []

    results: list[dict[str, Any]] = []
    for i, folder in enumerate(folders):
        params = _model(decoder, mesh, state.params, i)
        held_out = _held_out_loss(decoder, params, corpus, config)
        if not (np.isfinite(losses[i]).all() and np.isfinite(held_out)):
            results.append({"diverged_at": _diverged_at(losses[i]) or config.steps})
            continue
        results.append({"loss": float(losses[i, -REPORT_STEPS:].mean()), "held_out_loss": held_out})
        _save(files[i], decoder, params, losses[i], folder)
    shutil.rmtree(checkpoint_folder, ignore_errors=True)
    return results


def _numbers(configs: Sequence[TrainConfig]) -> Numbers:
    arrays: dict[str, Any] = {name: np.array([getattr(c, name) for c in configs]) for name in ARRAYS}
    return Numbers(**{name: array.astype(np.uint32 if name == "seed" else np.float32) for name, array in arrays.items()})


def _diverged_at(losses: np.ndarray) -> int | None:
    """The first step whose loss is not finite."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    return int(wrong[0]) + 1 if len(wrong) else None


def _used(configs: Sequence[TrainConfig]) -> frozenset[str]:
    """The extras that any of the models asks for; a program without them does not pay for them."""
    return frozenset(name for name in ("dropout", "z_loss", "label_smoothing") if any(getattr(c, name) for c in configs))


def _places(mesh: Mesh, m: int) -> tuple[PartitionSpec, PartitionSpec]:
    """How the state [m …] and a step's tokens [m b t] lie over `data`: split by model, or the tokens by sequence and the state copied."""
    if m % mesh.shape["data"] == 0:
        return PartitionSpec("data"), PartitionSpec("data")
    return PartitionSpec(), PartitionSpec(None, "data")


def _shardings(decoder: DecoderConfig, mesh: Mesh, m: int, state: State) -> State:
    """Where each array of a state [m …] lies: over `data` as `_places` says, and the weights and their moments over `model` as the leaf table does."""
    over_data, table = _places(mesh, m)[0], {leaf.path: leaf for leaf in leaves(decoder)}

    def place(path: Any, array: jax.Array) -> NamedSharding:
        leaf = table.get("/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey)))
        split = sharding(mesh, leaf.axes, array.shape[1:]).spec if leaf else ()
        return NamedSharding(mesh, PartitionSpec(over_data[0] if over_data else None, *split))

    return jax.tree_util.tree_map_with_path(place, state)


def _microbatch(config: TrainConfig, sequences: int) -> int:
    """How many of a device's sequences it works on at once."""
    if config.microbatch:
        if sequences % config.microbatch:
            raise InputError(f"a device has {sequences} sequences of a batch, which do not divide into microbatches of {config.microbatch}")
        return config.microbatch
    most = max(1, CPU_TOKENS // config.context) if jax.default_backend() == "cpu" else sequences
    return max(n for n in range(1, sequences + 1) if sequences % n == 0 and n <= most)


def _start(decoder: DecoderConfig, mesh: Mesh, m: int, numbers: Numbers) -> State:
    """The state before the first step, of all models, on the mesh."""
    places = _shardings(decoder, mesh, m, jax.eval_shape(functools.partial(_initial, decoder), numbers))
    return jax.jit(_initial, static_argnums=0, out_shardings=places)(decoder, numbers)


def _initial(decoder: DecoderConfig, numbers: Numbers) -> State:
    def one(numbers: Numbers) -> State:
        params = Decoder(decoder).init(jax.random.key(numbers.seed), jnp.zeros((1, 2), jnp.int32))["params"]
        return State(params, _optimizer(decoder, numbers, 0.0).init(params))

    return jax.vmap(one)(numbers)


def _program(
    config: TrainConfig, decoder: DecoderConfig, used: frozenset[str], mesh: Mesh, m: int
) -> Callable[[State, Numbers, jax.Array, int], tuple[State, jax.Array]]:
    """The jitted step of all models: (state, numbers, tokens [m b t+1], step) → the next state and the losses [m]."""
    state_place, token_place = _places(mesh, m)
    by_model = state_place == token_place
    sequences = config.batch if by_model else config.batch // mesh.shape["data"]
    parts = sequences // _microbatch(config, sequences)
    one = functools.partial(_step, config, decoder, used, parts, None if by_model else "data")
    # A CPU works on one model after the other: side by side they would not fit its caches.
    over_models = jax.lax.map if jax.default_backend() == "cpu" else lambda f, models: jax.vmap(f)(models)

    def step(state: State, numbers: Numbers, tokens: jax.Array, step: jax.Array) -> tuple[State, jax.Array]:
        return over_models(lambda model: one(model[0], model[1], model[2], step), (state, numbers, tokens))

    places = (state_place, state_place, token_place, PartitionSpec())
    # By hand over `data` only: what the weights' split over `model` asks for, the compiler adds.
    mapped = jax.shard_map(step, mesh=mesh, in_specs=places, out_specs=(state_place, state_place), axis_names={"data"}, check_vma=False)
    # Said outright, since XLA may call a split over one device a copy, and the next step would be compiled anew.
    shapes = jax.eval_shape(functools.partial(_initial, decoder), _numbers([config] * m))
    out = (_shardings(decoder, mesh, m, shapes), NamedSharding(mesh, state_place))
    return jax.jit(mapped, donate_argnums=0, out_shardings=out)


def _step(
    config: TrainConfig,
    decoder: DecoderConfig,
    used: frozenset[str],
    parts: int,
    axis: str | None,
    state: State,
    numbers: Numbers,
    tokens: jax.Array,
    step: jax.Array,
) -> tuple[State, jax.Array]:
    """One step of one model on tokens [b t+1], in so many parts; `axis` is the mesh's axis that the batch is split over."""
    key = jax.random.fold_in(jax.random.key(numbers.seed), step)
    if axis:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    gradient = jax.value_and_grad(functools.partial(_loss, config, decoder, used), has_aux=True)

    def add(sums: tuple[jax.Array, Params], part: tuple[jax.Array, jax.Array]) -> tuple[tuple[jax.Array, Params], None]:
        i, tokens = part
        (_, loss), grads = gradient(state.params, numbers, tokens, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, sums, (loss, grads)), None

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
    sums, _ = jax.lax.scan(add, nothing, (jnp.arange(parts), tokens.reshape(parts, -1, tokens.shape[1])))
    loss, grads = jax.tree.map(lambda total: total / parts, sums)
    if axis:
        loss, grads = jax.lax.pmean((loss, grads), axis)
    rate = numbers.learning_rate * _schedule(config)(step)
    updates, optimizer = _optimizer(decoder, numbers, rate).update(grads, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), optimizer), loss


def _loss(
    config: TrainConfig,
    decoder: DecoderConfig,
    used: frozenset[str],
    params: Params,
    numbers: Numbers,
    tokens: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What is minimised, and the plain loss in nats per token."""
    edits = _dropout(decoder, numbers.dropout, key) if "dropout" in used else {}
    params = jax.tree.map(lambda w: w.astype(config.precision), params)
    logits: Any = forward(decoder, params, tokens[:, :-1], edits).logits
    log_z = jax.nn.logsumexp(logits, -1)
    of_target = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    loss = (log_z - of_target).mean()
    objective = loss
    if "label_smoothing" in used:
        objective += numbers.label_smoothing * (of_target - logits.mean(-1)).mean()
    if "z_loss" in used:
        objective += numbers.z_loss * jnp.square(log_z).mean()
    return objective, loss


def _dropout(decoder: DecoderConfig, rate: jax.Array, key: jax.Array) -> dict[str, Edit]:
    sites = ("attn.hook_pattern", "hook_attn_out", "hook_mlp_out")
    names = ["hook_embed", *(f"blocks.{i}.{site}" for i in range(decoder.n_layers) for site in sites)]
    return {name: Dropout(rate, one) for name, one in zip(names, jax.random.split(key, len(names)), strict=True)}


def _schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate of each step, counted from 1, as a share of its peak."""
    warmup = max(1, round(config.warmup * config.steps))
    if config.schedule == "constant":
        return optax.warmup_constant_schedule(0.0, 1.0, warmup)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(config.steps, warmup + 1), 0.1)


def _optimizer(decoder: DecoderConfig, numbers: Numbers, rate: Any) -> optax.GradientTransformation:
    matrices = nest((leaf.path, leaf.init in ("normal", "residual")) for leaf in leaves(decoder))
    adamw = optax.adamw(rate, b2=0.95, weight_decay=numbers.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(numbers.clip), adamw)


def _model(decoder: DecoderConfig, mesh: Mesh, params: Params, i: int) -> Params:
    """The parameters of one of the models, as an analysis takes them: on this host's first device, or on the mesh where that splits weights."""
    one = jax.tree.map(lambda w: w[i], params)
    if mesh.shape["model"] == 1:
        return jax.device_put(fetched(one), jax.local_devices()[0])
    return jax.device_put(one, nest((leaf.path, sharding(mesh, leaf.axes, leaf.shape(decoder))) for leaf in leaves(decoder)))


def _held_out_loss(decoder: DecoderConfig, params: Params, corpus: Corpus, config: TrainConfig) -> float:
    """Mean loss over the held-out text, nats per token."""
    windows = corpus.held_out_windows(len(corpus.held_out), config.context)
    at_once = max(1, EVALUATED // config.context)
    chunks = [windows[i : i + at_once] for i in range(0, len(windows), at_once)]
    losses = [float(_mean_loss(decoder, params, chunk)) for chunk in chunks]
    return float(np.average(losses, weights=[len(chunk) for chunk in chunks]))


@functools.partial(jax.jit, static_argnames="decoder")
def _mean_loss(decoder: DecoderConfig, params: Params, tokens: jax.Array) -> jax.Array:
    logits = forward(decoder, params, tokens[:, :-1]).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def _save(hf: Mapping[str, Any], decoder: DecoderConfig, params: Params, losses: np.ndarray, folder: Path) -> None:
    """Write the model, config.json last, and the losses of all steps."""
    folder.mkdir(parents=True, exist_ok=True)
    save_params(decoder, params, folder / "model.safetensors")
    with replacing(folder / "losses.npy") as path, path.open("wb") as file:
        np.save(file, losses)
    with replacing(folder / "config.json") as path:
        path.write_text(json.dumps(hf, indent=1) + "\n")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Within the block SIGTERM and SIGINT are put down in the list that it gets, the first time; a second one acts as ever."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
