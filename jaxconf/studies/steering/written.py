"""What a steered model writes: how sure it is of its own text, how likely the unsteered model finds it, and repetition.

Letters: b prompt, t position, n new token, v vocabulary.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import predicted
from jaxconf.analysis.dictionaries import Scaled, last_stream
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, forward
from jaxconf.models.generate import generate
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.sites import AddFrom, Edit, Scale
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.progress import Progress
from jaxconf.studies.steering.treatments import TEMPERATURE, Treatment

PROMPT, NEW = 16, 64  # tokens of a prompt, and how many are written after it
GRAM = 4  # tokens of what counts as repeated


def prompts_of(tokens: np.ndarray, held: np.ndarray, count: int) -> np.ndarray:
    """The first PROMPT tokens of `count` windows, int [b t], or of as many as there are.

    `tokens`: int [s t]. `held`: whether a position is held out, bool [s t].
    """
    begin = np.flatnonzero(held[:, min(PROMPT, tokens.shape[1]) - 1])
    return tokens[begin[:count], :PROMPT]


def table_of_text(
    lm: LanguageModel,
    treatments: Sequence[Treatment],
    doses: Mapping[str, float],
    temperature: float,
    prompts: np.ndarray,
    seed: int,
    memory: int,
    progress: Progress,
) -> pd.DataFrame:
    """The table `Steering.text`. `doses`: name of a treatment → the dose that it is given at.

    `temperature`: that of the model.
    """
    new = min(NEW, lm.config.n_positions - prompts.shape[1])
    runs: list[tuple[str, float, float, dict[str, Edit]]] = [("unsteered", 1.0, temperature, {})]
    for one in treatments:
        if one.kind == "random":
            continue
        dose = doses[one.name]
        own = temperature * dose if one.name == TEMPERATURE else temperature
        runs.append((one.name, dose, own, _edits(lm.config, one, dose)))
    rows = []
    progress("writing", 0, 0)
    for name, dose, own, edits in runs:
        written = generate(lm.config, lm.params, prompts, new, temperature=own, seed=seed, edits=edits)
        text = np.concatenate([prompts, np.stack(written)], 1)
        measured = _read(lm, text, prompts.shape[1], own, edits, memory)
        repeated = float(np.mean([_repeated(row) for row in written]))
        rows.append({"treatment": name, "dose": dose, **measured, "repeated": repeated})
        progress(f"writing with {name}", 0, 0)
    return pd.DataFrame(rows)


def _edits(config: DecoderConfig, one: Treatment, dose: float) -> dict[str, Edit]:
    if one.own is None:
        return {}
    dictionary, factors = one.own.population.dictionary, np.ones(one.own.population.count, np.float32)
    factors[one.own.indices] = 1 + dose - one.neutral
    if dictionary is None:
        return {f"blocks.{config.n_layers - 1}.mlp.hook_post": Scale(jnp.asarray(factors))}
    return {last_stream(config): AddFrom(dictionary.reads, Scaled(dictionary, jnp.asarray(factors)))}


def _read(
    lm: LanguageModel, text: np.ndarray, begin: int, temperature: float, edits: Mapping[str, Edit], memory: int
) -> dict[str, float]:
    """The mean entropy of the steered model at each written token, and the loss of the loaded one, nats a token.

    `begin`: how many tokens of each text, int [b t], are its prompt.
    """
    sums, each = np.zeros(2), 4 * 4 * text.shape[1] * lm.config.vocab_size
    for rows, real in batches_in_memory(len(text), each, memory):
        found = fetched(_both(lm.config, lm.params, jnp.asarray(text[rows]), dict(edits), temperature))
        sums += [float(x[real][:, begin - 1 :].sum(dtype=np.float64)) for x in found]
    entropy, loss = sums / (len(text) * (text.shape[1] - begin))
    return {"entropy": float(entropy), "loss_as_loaded": float(loss)}


@functools.partial(jax.jit, static_argnames="config")
def _both(
    config: DecoderConfig, params: Params, text: jax.Array, edits: dict[str, Edit], temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The entropies with the edits at a temperature, and the losses without them at 1, [b t-1]."""

    def of(edits: dict[str, Edit], temperature: Any) -> Any:
        logits = forward(config, params, text[:, :-1], edits).logits
        assert logits is not None
        return predicted(jax.nn.log_softmax(logits / temperature), text[:, 1:])

    return of(edits, temperature).entropy, of({}, 1.0).loss


def _repeated(written: np.ndarray) -> float:
    """Which share of the runs of GRAM tokens in a text, int [n], stands in it before."""
    grams = [tuple(written[i : i + GRAM].tolist()) for i in range(len(written) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
