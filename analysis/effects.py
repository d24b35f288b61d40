"""The effects of ablating each neuron of the last layer on every prediction, without a logit vector for each neuron.

Letters: r row (a kept position), n neuron, d model width, v vocabulary, s window, p unit of rows, such as a document.
Source: Stolfo et al. 2024 (arXiv 2406.16254), sections 3.2 and 4. Nothing lies between the last MLP and the final norm,
so with A = centred(x)·W_U, M = w·W_U and δ the change of activation

    total            z = (A + δM)/σ' + b    σ' the norm's scale of x + δw
    norm frozen      z = (A + δM)/σ + b     σ that of x
    frequency frozen z of the total effect, with its coordinate along u set back to the unablated one

Without a final norm, x is not centred and σ' = σ = 1, so that the first two effects are one.

The metrics need only a log-sum-exp of z, an expectation, two counts, and sums that are bilinear in A and M.

A norm after the MLP (Gemma 2, OLMo 2) turns the MLP's output m + δw into γ ⊙ (m + δw)/σ_m'. Before the ablation it
added p = γ ⊙ m/σ_m, so the stream becomes x + (σ_m/σ_m' − 1)·p + (δ/σ_m')·γ ⊙ w, and the logits also move along P =
p·W_U. Soft-capped logits are cap·tanh(z/cap), with b inside. Sums of z are then not bilinear in A and M, and are
computed like the log-sum-exp, in a loop over the vocabulary.

In a mixture of experts, what a neuron writes is multiplied by the router's weight of its expert, and δ is the change of
activation times that weight. The router reads the MLP's input, so an ablation in this layer does not change it.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from jaxconf.analysis.ablated_logits import Moved, PostNorm, changes_from_whole_logits, moved_logits
from jaxconf.analysis.ablated_softmax import ablated_softmax
from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.adaptive_softmax import Certainty, adaptive_softmax
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.metrics import CHANGES_IN_NATS, UNABLATED, effects_of
from jaxconf.analysis.softmax_sums import Cells, Rows, Vocabulary
from jaxconf.analysis.unembedding import Readout
from jaxconf.analysis.whole_logits import Changes, Prediction, by_rows, prediction_of_row
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Cache, Params, forward
from jaxconf.models.mlp import of_neurons
from jaxconf.models.softcap import capped


class LastLayer(NamedTuple):
    """The stream [… d] and the activations [… n] of the last layer, float32."""

    x: jax.Array  # the stream that enters the final norm
    h: jax.Array  # activations
    post: PostNorm | None  # in models with a norm after the MLP
    weight: jax.Array | None  # in a mixture of experts: the router's weight of each neuron's expert, [… n]

    def written(self, change: jax.Array) -> jax.Array:
        """The changes of what the neurons write, in multiples of w, from changes of their activations; both [… n]."""
        return change if self.weight is None else change * self.weight


class Adaptive(NamedTuple):
    """Options of the adaptive engine."""

    tolerance: jax.Array | float  # nats
    audited: tuple[ArrayLike, ArrayLike]  # int [a] rows and int [b] neurons, compared with whole logits


class Audit(NamedTuple):
    """How accurate the adaptive engine was; scalars."""

    # The largest bound on the error of a loss, an entropy or a divergence of one row and neuron, in nats.
    bound: jax.Array
    rr_bound: jax.Array  # the largest bound on the error of a reciprocal rank
    redone: jax.Array  # int: rows × neurons that were computed with every token
    error: jax.Array  # the largest difference from whole logits, in nats, at the audited pairs


@functools.partial(jax.jit, static_argnames="config")
def last_layer(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    cache: Cache | None = None,
    dictionary: Dictionary | None = None,
) -> tuple[LastLayer, Cache | None]:
    """The last layer at every token of `tokens`, int [s t], and the cache with these tokens added, if one is given.

    With a `dictionary`, its coefficients are in the activations' place.
    """
    last = f"blocks.{config.n_layers - 1}."
    if dictionary is not None:
        both = {last + "hook_resid_post", dictionary.reads}
        output = forward(config, params, tokens, capture=both, stop_at_layer=config.n_layers, cache=cache)
        x = output.captured[last + "hook_resid_post"].astype(jnp.float32)
        return LastLayer(x, dictionary.read(output.captured), None, None), output.cache
    sites = [last + "hook_resid_post", last + "mlp.hook_post"]
    if config.norm_place in ("post", "both"):
        sites += [last + "ln2_post.hook_normalized", last + "ln2_post.hook_scale"]
    router = last + "mlp.hook_router"
    capture = [*sites, router] if config.experts else sites
    output = forward(config, params, tokens, capture=capture, stop_at_layer=config.n_layers, cache=cache)
    x, h, *post = (output.captured[site].astype(jnp.float32) for site in sites)
    weight = of_neurons(config, output.captured[router]) if config.experts else None
    return LastLayer(x, h, PostNorm(*post) if post else None, weight), output.cache


@jax.jit
def ablated_rows(
    last: LastLayer, places: jax.Array, ablations: Sequence[tuple[LayerAblation, jax.Array]]
) -> tuple[jax.Array, jax.Array, PostNorm | None]:
    """The arguments `x` [D r d], `delta` [D r n] and `post` of `sharded_effects`, for some positions of windows.

    `last`: the last layer in the windows, [s t …], which are split into D equal parts. `places`: int [D r 2], the index
    of a window in its part, and a position in it. `ablations`: each with the neurons that it changes, int, in the order
    of n.
    """

    def at(site: jax.Array) -> jax.Array:
        of_parts = site.reshape(len(places), -1, *site.shape[1:])
        return jax.vmap(lambda part, place: part[place[:, 0], place[:, 1]])(of_parts, places)

    last = jax.tree.map(at, last)
    delta = [last.written(ablation.ablated(last.h) - last.h)[..., neurons] for ablation, neurons in ablations]
    return last.x, jnp.concatenate(delta, -1), last.post


def effects(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    member: jax.Array,
    post: PostNorm | None = None,
    adaptive: Adaptive | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], Audit | None]:
    """Each of EFFECTS summed over the rows of every unit, float32 [p n], and UNABLATED of each row, float32 [r].

    `readout`: in the paper's convention. `x` [r d]: the stream that enters the final norm. `delta` [r n]: how much each
    neuron's activation changes, times the router's weight if there are experts. `target` int [r]: the token that
    follows. `member` [p r]: 1 where a row belongs to a unit, else 0. `post`: for a model with a norm after the MLP.
    `adaptive`: if it is given, the adaptive engine computes the effects within its tolerance, and an Audit is returned
    too; without it they are exact.
    """
    change, found, certainty = _changes(
        config, readout, frequency, x, delta, target, post, adaptive and adaptive.tolerance
    )
    ablated = _ablated(readout, delta)
    audit = None
    if adaptive and certainty:
        rows, neurons = adaptive.audited
        some = readout.of(neurons)
        given, of_some = jax.tree.map(lambda y: y[rows], ((x, delta[:, neurons], post), (target, found)))
        exact = changes_from_whole_logits(config, some, frequency, moved_logits(config, some, *given), *of_some)
        errors = [
            jnp.abs(getattr(change, name)[rows][:, neurons] - getattr(exact, name)).max() for name in CHANGES_IN_NATS
        ]
        counted = ablated & (member.sum(0) > 0)[:, None]
        audit = Audit(
            jnp.where(counted, certainty.bound, 0).max(),
            jnp.where(counted, certainty.rr_bound, 0).max(),
            jnp.sum(certainty.redone & counted),
            jnp.max(jnp.stack(errors)),
        )
    with jax.default_matmul_precision("highest"):
        sums = {name: member @ jnp.where(ablated, value, 0) for name, value in effects_of(change).items()}
    return sums, {name: getattr(found, name) for name in UNABLATED}, audit


def adaptive_losses(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    last: LastLayer,
    ablation: LayerAblation,
    neurons: jax.Array,
    target: jax.Array,
    tolerance: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """The loss and the entropy of each row with each of some `neurons`, int [n], ablated, float32 [n r].

    Both are within `tolerance` of the exact ones, all in nats. `readout`, `frequency` and `target`, int [r], are as
    for `effects`. `last`: the last layer at each row.
    """
    some = readout.of(neurons)
    delta = last.written(ablation.ablated(last.h) - last.h)[:, neurons]
    change, found, _ = _changes(config, some, frequency, last.x, delta, target, last.post, tolerance)
    moved = _ablated(some, delta)
    both = ((found.loss, change.loss), (found.entropy, change.entropy))
    loss, entropy = ((before[:, None] + jnp.where(moved, by, 0)).T for before, by in both)
    return loss, entropy


@functools.partial(jax.jit, static_argnames=("config", "names"))
def effects_at_rows(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    post: PostNorm | None,
    names: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Those of EFFECTS with these names at each row, float32 [r n].

    They are from whole logits, which for a few neurons takes less time than an engine, compiling included. The other
    arguments are as for `effects`.
    """
    moved = moved_logits(config, readout, x, delta, post)
    before, *_ = _unablated(config, readout, frequency, moved, target)
    change = changes_from_whole_logits(config, readout, frequency, moved, target, before)
    ablated, found = _ablated(readout, delta), effects_of(change)
    return {name: jnp.where(ablated, found[name], 0) for name in names}


def sharded_effects(
    mesh: Mesh,
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    member: jax.Array,
    post: PostNorm | None = None,
    adaptive: Adaptive | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], Audit | None]:
    """`effects` on a mesh: each device takes its own rows and the neurons whose weights it holds; sums are gathered.

    The arrays of rows have a first axis D that is split over the mesh's `data`: `x` [D r d], `delta` [D r n], `target`
    [D r], `member` [D p r] and UNABLATED [D r]. Each device audits the same indices of its own rows and neurons.
    """
    neurons, of_model = delta.shape[-1], mesh.shape["model"]
    filled = -(-neurons // of_model) * of_model - neurons
    w_out, w_mlp = (jnp.pad(w, ((0, filled), (0, 0))) for w in (readout.w_out, readout.w_mlp))
    readout = dataclasses.replace(readout, w_out=w_out, w_mlp=w_mlp)
    delta = jnp.pad(delta, ((0, 0), (0, 0), (0, filled)))

    def local(readout: Readout, frequency: Frequency, rows: Any, adaptive: Adaptive | None) -> Any:
        x, delta, target, member, post = jax.tree.map(lambda y: y[0], rows)
        sums, before, audit = effects(config, readout, frequency, x, delta, target, member, post, adaptive)
        sums = jax.lax.all_gather(jax.lax.psum(sums, "data"), "model", axis=1, tiled=True)
        if audit is not None:
            redone = jax.lax.psum(audit.redone, ("data", "model"))
            audit = jax.lax.pmax(audit, ("data", "model"))._replace(redone=redone)
        return sums, jax.lax.all_gather(before, "data"), audit

    of_rows, whole = PartitionSpec("data"), PartitionSpec()
    of_neurons: Any = PartitionSpec("model")
    of_readout = dataclasses.replace(jax.tree.map(lambda _: whole, readout), w_out=of_neurons, w_mlp=of_neurons)
    places = (of_readout, whole, (of_rows, PartitionSpec("data", None, "model"), *[of_rows] * 3), whole)
    split = jax.shard_map(local, mesh=mesh, in_specs=places, out_specs=whole, check_vma=False)
    sums, before, audit = split(readout, frequency, (x, delta, target, member, post), adaptive)
    return {name: value[:, :neurons] for name, value in sums.items()}, before, audit


def _changes(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    x: jax.Array,
    delta: jax.Array,
    target: jax.Array,
    post: PostNorm | None,
    tolerance: jax.Array | float | None,
) -> tuple[Changes, Prediction, Certainty | None]:
    """The changes, the unablated predictions, and the adaptive engine's certainty; without a tolerance all is exact."""
    with jax.default_matmul_precision("highest"):
        moved = moved_logits(config, readout, x, delta, post)
        found, lse, along_u = _unablated(config, readout, frequency, moved, target)
        change, certainty = _streamed_changes(config, readout, frequency, moved, target, found, lse, along_u, tolerance)
        return change, found, certainty


def _unablated(
    config: DecoderConfig, readout: Readout, frequency: Frequency, moved: Moved, target: jax.Array
) -> tuple[Prediction, jax.Array, jax.Array | None]:
    """The predictions of the unablated logits ℓ of each row, log Σ e^ℓ, and for soft-capped logits Σ u·ℓ, [r] each."""

    def of_row(A: jax.Array, inv: jax.Array, target: jax.Array) -> tuple[Prediction, Any, Any]:
        logits = capped(A * inv + readout.b_U, config.logit_softcap)
        along_u = None if config.logit_softcap is None else logits @ frequency.u
        return prediction_of_row(logits, frequency, target), jax.nn.logsumexp(logits), along_u

    with jax.default_matmul_precision("highest"):
        return by_rows(of_row)(moved.A, moved.inv, target)


def _ablated(readout: Readout, delta: jax.Array) -> jax.Array:
    """Where the ablation changes anything, bool [r n].

    Elsewhere the changes must be 0, but sums before and after are in different orders and would differ by rounding.
    """
    return (delta != 0) & (jnp.linalg.norm(readout.w_out, axis=1) > 0)


def _streamed_changes(
    config: DecoderConfig,
    readout: Readout,
    frequency: Frequency,
    moved: Moved,
    target: jax.Array,
    before: Prediction,
    lse: jax.Array,
    along_u: jax.Array | None,
    tolerance: jax.Array | float | None,
) -> tuple[Changes, Certainty | None]:
    """The changes, without a logit vector for any neuron. `before`, `lse` and `along_u` [r]: of the unablated logits ℓ.

    `lse`: log Σ e^ℓ. `along_u`: Σ u·ℓ, for soft-capped logits.
    """
    W_U, b, w, u, f = readout.W_U, readout.b_U, readout.w_out, frequency.u, frequency.f
    inv, inv_te = moved.inv, moved.inv_te

    def along(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A along a direction of the vocabulary, [r 1], and β·P + c·M, [r n]."""
        written = moved.write * (w @ (W_U @ direction))
        if moved.P is not None and moved.beta is not None:
            written += moved.beta * (moved.P @ direction)[:, None]
        return (moved.A @ direction)[:, None], written

    kappa = None
    if config.logit_softcap is None:
        Au, added_u = along(u)
        kappa = Au * (inv - inv_te) - added_u * inv_te  # sets the coordinate along u back
    rows = Rows(moved.A, moved.P, inv[:, 0], target, before.top, along_u)
    cells, vocabulary = Cells(inv_te, moved.beta, moved.write, kappa), Vocabulary(W_U, b, u, f, config.logit_softcap)
    certainty = None
    if tolerance is None:
        sums = ablated_softmax(rows, cells, w, vocabulary)
    else:
        sums, certainty = adaptive_softmax(rows, cells, w, vocabulary, lse, tolerance)
    mean_f = sums.mean_f
    if mean_f is None:
        Af, added_f = along(f)
        mean_f = (Af + added_f) * inv_te + b @ f
    changes = Changes(
        loss=sums.lse_te - sums.target_te - before.loss[:, None],
        loss_ln_frozen=sums.lse_ln - sums.target_ln - before.loss[:, None],
        loss_freq_frozen=sums.lse_fr - sums.target_fr - before.loss[:, None],
        entropy=sums.lse_te - sums.mean_te - before.entropy[:, None],
        entropy_ln_frozen=sums.lse_ln - sums.mean_ln - before.entropy[:, None],
        kl_freq=jnp.sum(f * frequency.log_f) - mean_f + sums.lse_te - before.kl_freq[:, None],
        top=sums.top_changed,
        reciprocal_rank=1 / (1 + sums.n_above_target) - 1 / before.rank[:, None],
        scale=inv / inv_te - 1,
        norm=config.d_model**0.5 * (1 / inv_te - 1 / inv),
    )
    return changes, certainty
