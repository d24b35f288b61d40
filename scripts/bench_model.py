"""What scripts/bench_effects.py times with --model: a model's last layer on text, and where the time goes.

Letters: r position, d width, n neuron.
"""

import collections
import functools
import gzip
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxconf
from jaxconf.analysis.effects import LastLayer, last_layer
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.unembedding import Readout, readout
from jaxconf.measure.inputs import WINDOW, text_of
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.norms import centre

STEPS = {
    "M": "products of neurons and W_U",
    "positions": "sums of each position",
    "tail_moments": "moments of the tail with W_U",
    "tail_squares": "moments of the tail with squares",
    "heads": "heads",
    "redone": "pairs with every token",
}
"""The names of the adaptive engine's steps in profiles."""

Inputs = tuple[Readout, Frequency, jax.Array, jax.Array, jax.Array]
"""The readout, the frequencies, the stream [r d], the changes of activation [r n], and the targets, int [r]."""


def inputs(folder: Path, data: str, positions: int) -> tuple[DecoderConfig, Inputs, Any, Callable[[], Any]]:
    """A model's last layer at positions of `data` drawn at random, its neurons set to their means; float32.

    With them the outputs of a norm after the MLP, if there is one, and a forward pass over about as many tokens. Raises
    InputError for a model with soft-capped logits.
    """
    lm = jaxconf.load(str(folder))
    if lm.config.logit_softcap is not None:
        raise InputError("the naive form here has no soft cap, which this model's logits have; time another model")
    text = text_of(lm, max(8 * positions, 4 * WINDOW), data, None, lambda what, done, total: None)
    tokens = jnp.asarray(text.windows.tokens)

    def run(tokens: jax.Array) -> LastLayer:
        return last_layer(lm.config, lm.params, tokens)[0]

    found = [run(tokens[i : i + 1]) for i in range(len(tokens))]
    layer: LastLayer = jax.tree.map(lambda *parts: jnp.concatenate(parts).reshape(-1, parts[0].shape[-1]), *found)
    S, T = tokens.shape
    at = np.sort(np.random.default_rng(0).choice(S * (T - 1), positions, replace=False))
    at = at // (T - 1) * T + at % (T - 1)  # the last token of a window has no target
    target = tokens.reshape(-1)[at + 1]
    x, delta, post = jax.tree.map(lambda y: y[at], (layer.x, layer.h.mean(0) - layer.h, layer.post))
    few = tokens[: max(1, positions // T)]
    given = readout(lm.config, lm.params), frequency(text.counts), centre(lm.config.final, x), delta, target
    return lm.config, given, post, lambda: run(few)


def shares(run: functools.partial[Any], product: float) -> dict[str, float]:
    """The share of each of STEPS, and of the rest, in the time of the operations of `run`, a compiled program.

    `product`: the seconds of the products of neurons and W_U, which a profile on a CPU shows without their length.
    """
    names = dict(re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*op_name="([^"]*)"', run.func.as_text(), re.MULTILINE))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        [file] = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(file) as trace:
            events = json.load(trace)["traceEvents"]
    took: collections.Counter[str] = collections.Counter()
    for event in events:
        name = event["name"] if event.get("ph") == "X" else ""
        if name in names and not name.startswith(("while", "call", "conditional")):  # these contain others
            within = [part for part in names[name].split("/") if part in STEPS]
            took[within[-1] if within else "rest"] += event["dur"]
    took["M"] = max(took["M"], round(1e6 * product))
    return {name: took[name] / took.total() for name in (*STEPS, "rest")}
