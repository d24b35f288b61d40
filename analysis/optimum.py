"""How far predictions are from the best possible ones. Losses, entropies and divergences are in nats.

Letters: c neuron set, s window, q position that counts, v vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.programs import Program
from jaxconf.analysis.rerun import Sets, compiled_entry, of_each
from jaxconf.analysis.streamed_sets import Moved, whole_logits
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.norms import norm_scale


class Distance(NamedTuple):
    """Each prediction beside the best possible one, float32 […] (`correct`: bool)."""

    loss: Any
    entropy: Any
    kl: Any  # D_KL(best || model)
    confidence: Any  # the largest probability
    correct: Any  # whether the most likely token is the one that follows


def distances(
    config: DecoderConfig,
    layers: tuple[int, ...],
    params: Params,
    readout: Readout,
    frequency: Frequency,
    tokens: jax.Array,
    positions: jax.Array | np.ndarray,
    best: jax.Array,
    norm_frozen: jax.Array | bool,
    of_sets: Sets,
) -> Distance:
    """The distances when each neuron set is ablated, [c s q].

    They are from the whole logits of one set after the other, since text whose best predictions are known has a small
    vocabulary. `best` [s q v]: the best log-probabilities, -inf for tokens that cannot follow. `norm_frozen`: whether
    the final norm keeps its unablated scale. `config` to `positions` are as for `rerun.compiled_entry`, which is a part
    of this program: what the distances do not need of it is then neither compiled nor computed. `frequency` changes
    nothing.
    """
    entry, _ = compiled_entry(config, layers, params, readout, frequency, tokens, positions)
    P, target = jnp.exp(best), entry.before.target
    finite = jnp.where(P > 0, best, 0)

    def of(moved: Moved) -> Distance:
        inv = jnp.where(norm_frozen, entry.before.inv, 1 / norm_scale(config.final, moved.x)[..., 0])
        logits = whole_logits(config, readout, moved.x, inv)
        less = logits - logits.max(-1, keepdims=True)
        own, e = jnp.take_along_axis(less, target[..., None], -1)[..., 0], jnp.exp(less)
        S = e.sum(-1)
        log_S = jnp.log(S)
        kl = jnp.sum(P * (finite - less), -1) + log_S
        return Distance(log_S - own, log_S - jnp.sum(e * less, -1) / S, kl, 1 / S, own == 0)

    return of_each(of, config, params, readout, entry, of_sets)


compiled_distances = Program(distances, ("config", "layers"))
