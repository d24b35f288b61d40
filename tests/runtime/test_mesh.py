"""Every mesh gives the tables of one device, and gathers no large array. Eight virtual devices: see conftest.py."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from meshes import ACROSS, MESHES, agree, gathered, on_mesh, same
from parameters import marked
from random_models import analysed, random_model, windows_for, with_repeats
from refusals import check_error

from jaxconf.analysis import rerun
from jaxconf.analysis.effects import Adaptive
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.mean_ablation import set_to
from jaxconf.analysis.unembedding import readout
from jaxconf.analysis.weights import vocabulary_statistics
from jaxconf.measure import last_layer
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.families import leaves
from jaxconf.models.mesh import over_data
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.runtime import placement
from jaxconf.runtime.timing import Timing
from jaxconf.studies.comparison.study import compare
from jaxconf.studies.induction.study import induction
from jaxconf.studies.universal.study import universal

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KINDS = ["layer", "rms", "large", "capped"]


@functools.cache
def table(kind: str, data: int, model: int) -> NeuronTable:
    lm = random_model(kind)
    engine = "adaptive" if kind.startswith("large") else "exact"
    how = {"engine": engine, "bootstrap_draws": 20}
    return analysed(on_mesh(lm, data, model), windows_for(lm, count=5), **how)


@pytest.mark.parametrize(
    ("kind", "mesh"),
    marked(itertools.product(KINDS, MESHES), quick=[("rms", (2, 2))]),
)
def test_last_layer(kind: str, mesh: tuple[int, int]) -> None:
    ours, alone = table(kind, *mesh), table(kind, 1, 1)
    same(ours.frame, alone.frame)
    same(ours.positions, alone.positions)


@pytest.mark.parametrize(
    ("kind", "mesh"),
    marked([("rms", (2, 2)), ("rms", (8, 1)), ("capped", (2, 2))], quick=[("rms", (2, 2))]),
)
def test_changes_at_single_positions(kind: str, mesh: tuple[int, int]) -> None:
    lm, how = random_model(kind), {"bootstrap_draws": 5, "nulls": 200, "token_changes": 40}
    ours, alone = (analysed(on_mesh(lm, *of), windows_for(lm, count=5), **how).token_changes for of in (mesh, (1, 1)))
    assert ours["neuron"].nunique() > 1
    np.testing.assert_array_equal(ours.pop("neuron"), alone.pop("neuron"))
    same(ours, alone)


@pytest.mark.parametrize(
    ("kind", "layer", "mesh"),
    marked(
        [("layer", 0, (2, 2)), ("rms", 0, (8, 1)), ("rms", 0, (1, 4)), ("capped", 1, (2, 2))],
        quick=[("layer", 0, (2, 2))],
    ),
)
def test_a_layer_below(kind: str, layer: int, mesh: tuple[int, int]) -> None:
    ours, alone = (
        analysed(on_mesh(random_model(kind), *of), windows_for(random_model(kind)), layer=layer, bootstrap_draws=0)
        for of in (mesh, (1, 1))
    )
    same(ours.frame, alone.frame)


@pytest.mark.parametrize(
    ("engine", "mesh"),
    marked(
        [("exact", (1, 8)), ("exact", (2, 4)), ("exact", (8, 1)), ("adaptive", (2, 4))],
        quick=[("exact", (2, 4)), ("adaptive", (2, 4))],
    ),
)
def test_no_large_array_is_gathered(engine: str, mesh: tuple[int, int]) -> None:
    """Products of neurons or positions with the vocabulary stay in their pieces; W_U, which is narrower, may not."""
    data, model = mesh
    lm = on_mesh(random_model("large"), data, model)
    config = lm.config
    D, V, N, d = data, config.vocab_size, config.d_mlp, config.d_model
    T = D * N  # as many positions on a device as there are neurons
    paper, freq = readout(config, lm.params), frequency(np.arange(V))
    placed = functools.partial(over_data, lm.mesh)
    rows = [np.ones((D, T // D, d)), np.ones((D, T // D, N)), np.ones((D, T // D), np.int32), np.ones((D, 4, T // D))]
    x, delta, target, member = (placed(a.astype(np.float32) if a.dtype == float else a) for a in rows)
    adaptive = Adaptive(1e-4, (np.arange(2), np.arange(2))) if engine == "adaptive" else None
    given = paper, freq, x, delta, target, member, None, adaptive
    compiled = last_layer.compiled_effects.lower(lm.mesh, config, *given).compile()
    assert gathered(compiled) < N * V
    statistics = vocabulary_statistics.lower(lm.mesh, paper, freq.u).compile()
    assert gathered(statistics) < N * V
    if model > 1 and V % model == 0:
        assert gathered(statistics) >= d * V  # the vocabulary is split, so W_U is gathered, and the pattern sees it


@pytest.mark.parametrize("mesh", [pytest.param((1, 4), marks=pytest.mark.slow), (2, 2)])
def test_running_layers_again_gathers_no_logits(mesh: tuple[int, int]) -> None:
    lm = on_mesh(random_model("large"), *mesh)
    config, tokens = lm.config, windows_for(random_model("large"), count=4)
    freq, at = frequency(np.arange(config.vocab_size)), np.arange(tokens.shape[1])
    runs = SetRuns(lm, {0: np.eye(config.d_mlp, dtype=bool)[:5]}, freq, 2**28)
    how = config, (0,), lm.params, runs.readout, freq, lm.over_data(tokens), at
    entry, before = runs.entry(tokens, at)
    base = rerun.unablated_sums(config, runs.readout, freq, entry)
    some = runs.some(np.arange(5), {0: set_to(np.zeros(config.d_mlp))})
    again = rerun.compiled_changes.lower(*runs.how, entry, before, base, some).compile()
    losses = rerun.compiled_losses.lower(config, lm.params, runs.readout, entry, some).compile()
    for compiled in (rerun.compiled_entry.lower(*how).compile(), again, losses):
        assert gathered(compiled) < tokens.size * config.vocab_size


def tables(found: Any) -> dict[str, pd.DataFrame]:
    """The tables of a study's result, those of a part of it too."""
    every = {}
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, pd.DataFrame):
            every[field.name] = value
        elif dataclasses.is_dataclass(value):
            every |= tables(value)
    return every


@functools.cache
def study(name: str, kind: str, data: int, model: int) -> dict[str, pd.DataFrame]:
    lm, other = (on_mesh(random_model(kind, seed), data, model) for seed in (0, 1))
    tokens = windows_for(lm, count=5)
    if name == "induction":
        text = np.random.default_rng(3).integers(1, lm.config.vocab_size, (5, 10))
        return tables(
            induction(
                lm,
                windows_for(lm),
                sequences=text,
                natural=with_repeats(lm.config.vocab_size),
                controls=2,
                bootstrap_draws=20,
            )
        )
    if name == "compare":
        return tables(compare(lm, [other], tokens, bootstrap_draws=20))
    counts = np.arange(1, lm.config.vocab_size + 1)
    return tables(universal([lm, other], tokens, counts=counts, effects=tokens.size))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "mesh"),
    [
        *(("induction", "layer", mesh) for mesh in ((2, 2), (1, 8), (8, 1))),
        *(("induction", kind, (2, 4)) for kind in ("rms", "capped")),
        *((name, *case) for name in ("compare", "universal") for case in ACROSS),
    ],
)
def test_studies_on_a_mesh(name: str, kind: str, mesh: tuple[int, int]) -> None:
    ours, alone = study(name, kind, *mesh), study(name, kind, 1, 1)
    assert len(alone) >= 5
    for table in alone:
        agree(ours[table], alone[table])


def test_the_mesh_follows_from_what_a_device_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = random_model("large").config
    shapes = [leaf.shape(config) for leaf in leaves(config)]
    whole = 4 * (sum(map(math.prod, shapes)) + config.d_model * config.vocab_size)
    assert placement.bytes_needed(config, 1) == whole
    placed = on_mesh(random_model("large"), 2, 4)
    held = sum(w.addressable_shards[0].data.nbytes for w in jax.tree.leaves(placed.params))
    assert placement.bytes_needed(config, 4) == held + 4 * config.d_model * config.vocab_size

    for memory, model in ((whole, 1), (whole - 1, 2), (placement.bytes_needed(config, 2) - 1, 4), (None, 1)):
        monkeypatch.setattr(placement, "memory_of_a_device", lambda memory=memory: memory)
        assert placement.placement(config).shape == {"data": 8 // model, "model": model}
    assert placement.placement(config, (1, 8)).shape == {"data": 1, "model": 8}

    monkeypatch.setattr(placement, "memory_of_a_device", lambda: 10**5)
    needed = placement.bytes_needed(config, 8) / 1e9
    check_error(lambda: placement.placement(config), f"{needed:.1f} GB on each of 8 devices", "0.0 GB")
    check_error(lambda: placement.placement(config, (3, 2)), "data=3,model=2 has 6 devices, and JAX sees 8")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("data=4,model=2", (4, 2)),
        ("model=4,data=2", (2, 4)),
        ("model=2", (4, 2)),
        ("data=8", (8, 1)),
        ("data=2", (2, 4)),
    ],
)
def test_a_mesh_in_words(text: str, sizes: tuple[int, int]) -> None:
    assert placement.read_mesh(text) == sizes


@pytest.mark.parametrize(
    "text", ["", "4", "data=0", "data=2,data=4", "rows=2", "data=2;model=4", "data=2,model=2,data=2"]
)
def test_other_words_are_refused(text: str) -> None:
    check_error(lambda: placement.read_mesh(text), repr(text), "data=4,model=2")


def test_time_and_memory_are_counted() -> None:
    timing = Timing()
    jax.block_until_ready(jax.jit(lambda x: x @ x + 1)(np.ones((64, 64))))
    facts = timing.facts(100)
    assert 0 < facts["seconds_compiling"] < facts["seconds"]
    assert facts["pairs_per_second"] == pytest.approx(100 / (facts["seconds"] - facts["seconds_compiling"]))
    assert facts["peak_memory"] > 10**7
    assert Timing().facts(1)["seconds_compiling"] == 0
