"""Token frequencies, and their direction in logit space. Letter: v vocabulary.

Source: Stolfo et al. 2024 (arXiv 2406.16254), section 4.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Frequency:
    """The unigram distribution f and the unit direction u of its centred logarithm; float32 [v] each."""

    f: jax.Array
    log_f: jax.Array  # nats
    u: jax.Array


def split_half_cosine(counts: np.ndarray, seed: int = 0) -> float:
    """Cosine of the frequency directions u from two halves of the text behind the `counts`, integers [v].

    Each counted token goes to one of the halves at random, so it is a cosine of estimates from half as many tokens.
    """
    half = np.random.default_rng(seed).binomial(counts, 0.5)
    first, second = (np.asarray(frequency(part).u, np.float64) for part in (half, counts - half))
    return float(first @ second)


def frequency(counts: np.ndarray) -> Frequency:
    """f = (count + 1)/Σ(count + 1) and u from the token counts, integers [v]; computed in float64."""
    f = (counts.astype(np.float64) + 1) / (counts.astype(np.float64) + 1).sum()
    v_freq = np.log(f) - np.log(f).mean()
    length = np.linalg.norm(v_freq)
    u = v_freq / length if length > 0 else v_freq  # with equal counts u is 0, and so is every cosine with it
    return Frequency(*(jnp.asarray(x.astype(np.float32)) for x in (f, np.log(f), u)))
