"""Records tests/analysis/real_logits.npz: what SmolLM2's last layer holds at 64 positions of a text.

    python scripts/record_real_logits.py --model FOLDER --data TEXT

Everything is float16, and of the vocabulary there are the targets, the positions' most likely tokens, and others at
random, so that the file stays small. Half of the neurons are those whose mean ablation changes most; half are drawn.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxconf
from jaxconf.analysis.effects import last_layer
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.unembedding import readout
from jaxconf.measure.inputs import text_of
from jaxconf.models.files import replacing

FILE = Path(__file__).parents[1] / "tests" / "analysis" / "real_logits.npz"
LENGTH, POSITIONS, NEURONS, TOKENS, LIKELY = 512, 64, 64, 1300, 8


@dataclasses.dataclass(frozen=True)
class Record:
    """Record what the last layer holds."""

    model: str
    """the folder of SmolLM2-135M-Instruct"""
    data: str
    """the text"""


def main(options: Record) -> None:
    lm = jaxconf.load(options.model)
    text = text_of(lm, LENGTH, options.data, None, lambda what, done, total: None)
    tokens = jnp.asarray(text.windows.tokens[:1])
    layer = jax.tree.map(lambda y: np.asarray(y[0]), last_layer(lm.config, lm.params, tokens)[0])
    read = jax.tree.map(np.asarray, readout(lm.config, lm.params))
    rng = np.random.default_rng(0)
    at = np.sort(rng.choice(np.arange(1, tokens.shape[1] - 1), POSITIONS, replace=False))
    x, target, delta = layer.x[at], np.asarray(tokens)[0, at + 1], (layer.h.mean(0) - layer.h)[at]
    by_change = np.argsort(-np.abs(delta).max(0) * np.linalg.norm(read.w_out, axis=1))
    neurons = np.concatenate([by_change[: NEURONS // 2], rng.choice(by_change[NEURONS // 2 :], NEURONS // 2, False)])
    likely = np.argsort(-(x @ read.W_U), 1)[:, :LIKELY]
    kept = np.union1d(target, likely)
    others = np.setdiff1d(np.arange(lm.config.vocab_size), kept)
    kept = np.concatenate([kept, rng.choice(others, TOKENS - len(kept), replace=False)])
    arrays = {
        "x": x,
        "delta": delta[:, neurons],
        "w": read.w_out[neurons],
        "W_U": read.W_U[:, kept],
        "log_f": np.asarray(frequency(text.counts).log_f)[kept],
    }
    place = np.argsort(kept)[np.searchsorted(np.sort(kept), target)]
    with replacing(FILE) as path, path.open("wb") as file:
        np.savez(file, target=place, **{name: value.astype(np.float16) for name, value in arrays.items()})


if __name__ == "__main__":
    main(tyro.cli(Record))
