"""Next-token logits with whole sets of the last layer's neurons ablated: many sets, over the same states.

Letters: r state (the last layer at one position of one text), c set, k neuron of a set, u neuron that is in any set, d
model width, v vocabulary. As in `jaxconf.analysis.effects`, nothing lies between these neurons and the final norm, so
with A = centred(x)·W_U, M = w·W_U and δ the changes of the activations

    z = (A + Σ_k δ_k·M_k)/σ' + b    σ' the norm's scale of x + Σ_k δ_k·w_k

A and M are shared by all sets, so a set costs O(k·v) for each state, not O(d·v). With a norm after the MLP, the logits
also move along the direction P, as in `effects`.
"""

from typing import Any, NamedTuple

import jax

from jaxconf.analysis.effects import LastLayer
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.norms import centre, norm_scale
from jaxconf.models.softcap import capped


class Ablations(NamedTuple):
    """Sets of neurons of the last layer, and the values that their activations are set to, or moved towards.

    k is the size of the largest set; smaller sets are filled up with neurons that stay as they are. Without the axis c,
    it is one such set. An activation h becomes h + ablated·(value − h). So `ablated` 1 sets it to the value, and
    1 − f with the value 0 multiplies it by f.
    """

    members: Any  # int [c k]
    values: Any  # float32 [c k]
    ablated: Any  # bool or float32 [c k]: 0 for neurons that stay as they are: all of them in the unablated model


class Writes(NamedTuple):
    """The write directions of the neurons that are in any set."""

    w_out: jax.Array  # u d
    w_mlp: jax.Array  # u d: the output weights as stored, but centred if the model uses LayerNorm
    M: jax.Array  # u v


class Behind(NamedTuple):
    """A norm behind the MLP: what enters it, m, its scale, and what leaves it but its bias, p; m and p are centred."""

    m: Any
    scale: Any
    p: Any


class States(NamedTuple):
    """What all sets share of each state. Only models with a norm after the MLP have post and P."""

    x: jax.Array  # r d: the stream that enters the final norm, centred
    h: jax.Array  # r u: activations
    weight: jax.Array | None  # r u: in a mixture of experts, the router's weight of each neuron's expert
    A: jax.Array  # r v
    post: Behind | None
    P: jax.Array | None  # r v: p·W_U


def behind(config: DecoderConfig, readout: Readout, last: LastLayer) -> Behind | None:
    """The norm behind the last MLP; None in models without one."""
    if last.post is None:
        return None
    normalized, scale = last.post
    return Behind(normalized * scale, scale, centre(config.final, normalized * readout.write_gain))


def writes(config: DecoderConfig, readout: Readout, neurons: jax.Array) -> Writes:
    """The writes of some `neurons` of the last layer, int [u]; float32. `readout`: in the paper's convention."""
    w_out = readout.w_out[neurons]
    with jax.default_matmul_precision("highest"):
        return Writes(w_out, centre(config, readout.w_mlp[neurons]), w_out @ readout.W_U)


def states(config: DecoderConfig, readout: Readout, neurons: jax.Array, last: LastLayer) -> States:
    """The states from the last layer's stream [… d] and activations [… n]. The leading axes become the axis r."""
    last = jax.tree.map(lambda y: y.reshape(-1, y.shape[-1]), last)
    x, h, weight = centre(config.final, last.x), last.h[:, neurons], last.weight
    weight = None if weight is None else weight[:, neurons]
    with jax.default_matmul_precision("highest"):
        post = behind(config, readout, last)
        return States(x, h, weight, x @ readout.W_U, post, None if post is None else post.p @ readout.W_U)


def set_logits(
    config: DecoderConfig,
    readout: Readout,
    written: Writes,
    seen: States,
    of_set: Ablations,
) -> jax.Array:
    """The logits of the states with the neurons of one set ablated, float32 [r v], up to a constant of each state.

    `of_set`: one set, whose members are indices of the axis u.
    """
    members, values, ablated = of_set
    with jax.default_matmul_precision("highest"):
        delta = ablated * (values - seen.h[:, members])  # r k
        if seen.weight is not None:
            delta = delta * seen.weight[:, members]
        x, beta, delta = moved(config, seen.x, delta, written.w_out[members], written.w_mlp[members], seen.post)
        A = seen.A if beta is None or seen.P is None else seen.A + beta * seen.P
        scale = norm_scale(config.final, x)
        return capped((A + delta @ written.M[members]) / scale + readout.b_U, config.logit_softcap)


def moved(
    config: DecoderConfig, x: jax.Array, delta: jax.Array, w_out: jax.Array, w_mlp: jax.Array, post: Behind | None
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """The stream x + β·p + Σ_k δ_k·w_k with one set ablated, [… d], β [… 1] and δ [… k].

    `delta` [… k]: the changes of what the neurons write. `w_out`, `w_mlp` [k d]: their rows in `Writes`.
    """
    beta = None
    if post is not None:
        inv = 1 / norm_scale(config, post.m + delta @ w_mlp)
        beta, delta = post.scale * inv - 1, delta * inv
        x = x + beta * post.p
    return x + delta @ w_out, beta, delta
