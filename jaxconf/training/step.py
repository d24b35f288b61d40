"""One training step of one model: a pure function of its state, its tokens and the step's number.

Letters: b sequence, t position, v vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Decoder, Params, forward
from jaxconf.models.families import leaves
from jaxconf.models.leaves import nest
from jaxconf.models.sites import Dropout, Edit
from jaxconf.training.config import PER_MODEL, TrainConfig
from jaxconf.training.hold import held_neurons, hold

EXTRAS = ("dropout", "z_loss", "label_smoothing")


class State(NamedTuple):
    """The arrays that a training step updates."""

    params: Params
    optimizer: Any


@struct.dataclass
class Hyperparameters:
    """The settings of `jaxconf.training.config.PER_MODEL`: scalars for one model, arrays [m] for m models."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    clip: jax.Array
    dropout: jax.Array
    z_loss: jax.Array
    label_smoothing: jax.Array
    seed: jax.Array


def hyperparameters(configs: Sequence[TrainConfig]) -> Hyperparameters:
    """The hyperparameters [m] of models that are trained side by side: uint32 for the seeds, float32 for the others."""
    arrays: dict[str, Any] = {name: np.array([getattr(config, name) for config in configs]) for name in PER_MODEL}
    dtypes = {name: np.uint32 if name == "seed" else np.float32 for name in PER_MODEL}
    return Hyperparameters(**{name: array.astype(dtypes[name]) for name, array in arrays.items()})


def extras_of(configs: Sequence[TrainConfig]) -> frozenset[str]:
    """The EXTRAS that at least one of the models uses. The others are left out of the compiled program."""
    return frozenset(name for name in EXTRAS if any(getattr(config, name) for config in configs))


def start(decoder: DecoderConfig, hyper: Hyperparameters) -> State:
    """The state before the first step."""
    params = Decoder(decoder).init(jax.random.key(hyper.seed), method="parameters")["params"]
    return State(params, optimizer(decoder, hyper, 0.0).init(params))


def train_step(
    config: TrainConfig,
    decoder: DecoderConfig,
    extras: frozenset[str],
    parts: int,
    axis: str | None,
    state: State,
    hyper: Hyperparameters,
    tokens: jax.Array,
    step: jax.Array,
) -> tuple[State, jax.Array]:
    """Train on tokens int32 [b t+1] for one step: the next state, and the mean loss (nats per token).

    `step`: the step's number, counted from 1. `parts`: the number of microbatches, whose gradients are averaged.
    `axis`: the axis of the mesh over which the batch is split, if it is; `tokens` are then one device's share of it.
    """
    key = jax.random.fold_in(jax.random.key(hyper.seed), step)
    if axis:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    gradient = jax.value_and_grad(functools.partial(objective, config, decoder, extras), has_aux=True)

    def add(sums: tuple[jax.Array, Params], part: tuple[jax.Array, jax.Array]) -> tuple[tuple[jax.Array, Params], None]:
        i, tokens = part
        (_, loss), grads = gradient(state.params, hyper, tokens, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, sums, (loss, grads)), None

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
    sums, _ = jax.lax.scan(add, nothing, (jnp.arange(parts), tokens.reshape(parts, -1, tokens.shape[1])))
    loss, grads = jax.tree.map(lambda total: total / parts, sums)
    if axis:
        loss, grads = jax.lax.pmean((loss, grads), axis)
    rate = hyper.learning_rate * schedule(config)(step)
    updates, moments = optimizer(decoder, hyper, rate).update(grads, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), moments), loss


def objective(
    config: TrainConfig,
    decoder: DecoderConfig,
    extras: frozenset[str],
    params: Params,
    hyper: Hyperparameters,
    tokens: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The objective that is minimised on tokens int32 [b t+1], and the cross-entropy loss (nats per token).

    The cross-entropy loss leaves out label smoothing and z-loss. Dropout applies to both, and so does the hold: the
    neurons of `config.hold` are at zero, whatever `config.hold_from` is.
    """
    edits = dropout(decoder, hyper.dropout, key) if "dropout" in extras else {}
    edits |= hold(decoder, held_neurons(config, decoder))
    params = jax.tree.map(lambda w: w.astype(config.precision), params)
    logits: Any = forward(decoder, params, tokens[:, :-1], edits).logits
    log_z = jax.nn.logsumexp(logits, -1)
    of_target = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    loss = (log_z - of_target).mean()
    minimised = loss
    if "label_smoothing" in extras:
        minimised += hyper.label_smoothing * (of_target - logits.mean(-1)).mean()
    if "z_loss" in extras:
        minimised += hyper.z_loss * jnp.square(log_z).mean()
    return minimised, loss


def dropout(decoder: DecoderConfig, rate: jax.Array, key: jax.Array) -> dict[str, Edit]:
    """Edits that drop a share `rate` of the embedding, and in each layer of the attention pattern and of the outputs of
    attention and MLP.
    """
    sites = ("attn.hook_pattern", "hook_attn_out", "hook_mlp_out")
    names = ["hook_embed", *(f"blocks.{i}.{site}" for i in range(decoder.n_layers) for site in sites)]
    return {name: Dropout(rate, own) for name, own in zip(names, jax.random.split(key, len(names)), strict=True)}


def schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate of each step, counted from 1, as a share of its peak."""
    warmup = max(1, round(config.warmup * config.steps))
    if config.schedule == "constant":
        return optax.warmup_constant_schedule(0.0, 1.0, warmup)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(config.steps, warmup + 1), 0.1)


def optimizer(decoder: DecoderConfig, hyper: Hyperparameters, rate: Any) -> optax.GradientTransformation:
    """AdamW on the gradient clipped by its global norm. Weight decay applies to matrices only."""
    matrices = nest((leaf.path, leaf.init in ("normal", "residual")) for leaf in leaves(decoder))
    adamw = optax.adamw(rate, b2=0.95, weight_decay=hyper.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(hyper.clip), adamw)
