"""The frequencies of rotary embeddings, as a model's config gives them.

Letters: r rotated pairs. Sources: Su et al. 2021 (arXiv 2104.09864); Llama 3.1's release for its frequencies; Peng et
al. 2023 (arXiv 2309.00071) for YaRN; Ding et al. 2024 (arXiv 2402.13753) for LongRoPE. JAX is not imported here, and
numpy only where it is used, so that the families are listed at once.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SINUSOIDS_FROM = 2  # XGLM counts positions from 2


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first 2r entries of each head; the others pass through."""

    frequencies: tuple[float, ...]  # radians per position of each pair, [r]
    pairs: bool = False  # a pair is two neighbouring entries (GPT-J's layout), not two entries that are r apart
    magnitude: float = 1.0  # factor on the rotated entries (YaRN, LongRoPE)
    long: tuple[float, ...] = ()  # the frequencies for sequences longer than `original` (LongRoPE)
    original: int = 0  # the length, in positions, up to which `frequencies` hold (LongRoPE), or before queries grow
    # The query at position p is multiplied by 1 + growth·log(1 + ⌊p/original⌋) (Llama 4, Ministral 3).
    growth: float = 0.0


def geometric(dim: int, base: float) -> "np.ndarray":
    """Frequencies base^(−2i/dim), float64 [r]; an odd `dim` counts as the next even one.

    Raises ValueError for a `dim` or a `base` out of range.
    """
    import numpy as np

    if not (1 <= dim <= 2**16 and base > 0):
        raise ValueError(f"a rotation of {dim} entries of a head, with the base {base}")
    return base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def llama3(freqs: "np.ndarray", factor: float, low: float, high: float, original: int) -> "np.ndarray":
    """Llama 3.1's frequencies [r], from those of the original context.

    `original`: the length of the original context. Frequencies with fewer than `low` turns within it are divided by
    `factor`; those with more than `high` are kept; between the two the change is gradual.
    """
    import numpy as np

    turns = original * freqs / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return kept * freqs + (1 - kept) * freqs / factor


def yarn(
    freqs: "np.ndarray", dim: int, base: float, factor: float, fast: float, slow: float, original: int, truncate: bool
) -> "np.ndarray":
    """YaRN's frequencies [r], from those of the original context.

    `original`: the length of the original context. Pairs that turn `fast` times or more within it keep their frequency.
    The frequency of pairs that turn `slow` times or less is divided by `factor`. Between the two, the change is linear
    in the index of the pair, and `truncate` rounds its two ends to whole indices.
    """
    import numpy as np

    def pair(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(fast), pair(slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    stretched = np.clip((np.arange(len(freqs)) - first) / max(last - first, 1e-3), 0, 1)
    return (1 - stretched) * freqs + stretched * freqs / factor
