"""Compares the times of small analyses with those that `jaxconf sweep --plan` expects, as a table in docs/sweeps.md.

    python scripts/check_plan.py

The models have random weights. Each analysis runs twice, and only the second run is timed, so that compiling does not
count. The machine's rates are measured just before and just after that run, and the plan gets their means. Times are
seconds of all cores together, which hardly depend on other processes. Letters: d width, N neurons of a layer, V
vocabulary.
"""

import functools
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from bench_effects import device
from plan_tables import between, markdown

from jaxconf.measure.analyze import analyze
from jaxconf.measure.last_layer import ADAPTIVE_FROM
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import start
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.files import replacing
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import nest
from jaxconf.runtime.memory import MEMORY
from jaxconf.sweeps.estimate import Devices, estimate
from jaxconf.sweeps.rates import measured_rates

PAGE = Path(__file__).parents[1] / "docs" / "sweeps.md"
LENGTH = 256  # tokens of a window
LAST = {"layers": 4, "d": 256, "N": 512, "V": 4096, "layer": 3, "tokens": 1024}
WIDE = {**LAST, "N": 256, "V": 20000}
BELOW = {**LAST, "N": 64, "layer": 1, "tokens": 512}
RUNS = [
    LAST,
    {**LAST, "tokens": 2048},
    {**LAST, "N": 1024},
    {**LAST, "V": 8192},
    WIDE,
    {**WIDE, "tokens": 2048},
    {**WIDE, "N": 512},
    BELOW,
    {**BELOW, "tokens": 1024},
    {**BELOW, "V": 8192},
    {**BELOW, "layers": 8, "V": 1024},
]


class Found(NamedTuple):
    """The expected and the measured seconds of one of RUNS, and the method that computes its effects."""

    by: str
    expected: float
    measured: float


def config_of(run: dict[str, int]) -> DecoderConfig:
    sizes = {
        "hidden_size": run["d"],
        "intermediate_size": run["N"],
        "vocab_size": run["V"],
        "num_hidden_layers": run["layers"],
    }
    return config_from_hf(
        {"model_type": "gpt_neox", "num_attention_heads": 4, "max_position_embeddings": LENGTH, **sizes}
    )


def drawn(config: DecoderConfig) -> LanguageModel:
    """A model with initial weights as for training, but a larger unembedding, so that its predictions are confident."""
    keys = jax.random.split(jax.random.key(0), len(leaves(config)))
    params = {leaf.path: start(leaf, config, key) for leaf, key in zip(leaves(config), keys, strict=True)}
    params["unembed/w"] *= 20
    return LanguageModel(config, nest(params.items()), "random", None, Path(), {"bos_token_id": 0})


def measured(run: dict[str, int]) -> Found:
    config = config_of(run)
    lm, tokens = (
        drawn(config),
        np.random.default_rng(0).integers(1, config.vocab_size, (run["tokens"] // LENGTH, LENGTH)),
    )
    counts = np.arange(1, config.vocab_size + 1)
    once = functools.partial(analyze, lm, tokens, counts=counts, layer=run["layer"], bootstrap_draws=0)
    once()
    before, begun = measured_rates(time.process_time), time.process_time()
    once()
    took, after = time.process_time() - begun, measured_rates(time.process_time)
    devices = Devices(1, float("inf"), *((x + y) / 2 for x, y in zip(before, after, strict=True)))
    expected = estimate(
        config,
        devices,
        tokens=run["tokens"],
        layers=[run["layer"]],
        adaptive=config.vocab_size >= ADAPTIVE_FROM,
        frozen="final",
        memory=MEMORY,
    )
    return Found(expected.by, expected.seconds, took)


def table(found: list[Found]) -> str:
    factors = [x.measured / x.expected for x in found]
    rows = [["by", "layers", "d", "N", "V", "layer", "tokens", "expected", "measured", "measured / expected"]]
    for run, x, factor in zip(RUNS, found, factors, strict=True):
        sizes = [f"{run[name]:,}" for name in rows[0][1:7]]
        rows.append([x.by, *sizes, f"{x.expected:.1f} s", f"{x.measured:.1f} s", f"{factor:.2f}"])
    return f"{device()}; measured / expected from {min(factors):.2f} to {max(factors):.2f}:\n\n{markdown(rows)}"


if __name__ == "__main__":
    found = []
    for run in RUNS:
        found.append(measured(run))
        print(run, found[-1], flush=True)
    with replacing(PAGE) as path:
        path.write_text(between(PAGE.read_text(), "check_plan", table(found)))
