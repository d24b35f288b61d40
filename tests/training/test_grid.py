"""Training grids: what is varied, what is trained together, and a small one that is interrupted, or goes wrong."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from refusals import check_error
from safetensors.numpy import load_file
from tiny_training import NO_TRACK, TEXT, TINY, text

from jaxconf.results.words import COUNT_FACTS
from jaxconf.training import emergence
from jaxconf.training.config import PER_MODEL, TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.grid import grid
from jaxconf.training.grid_table import OUTCOMES, grid_figure, outcome, tabulate
from jaxconf.training.run import train
from jaxconf.training.vary import groups_of_one_shape, models_of_grid, parse_vary

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

BASE = dataclasses.replace(TINY, steps=12)
TRACK = TrackConfig(points=1, tokens=100)
VARY = {"weight_decay": [0.9], "width": [16, 24]}
SEEDS = 2


def run(out: Path, vary: dict = VARY, base: TrainConfig = BASE, seeds: int = SEEDS, **options) -> pd.DataFrame:
    return grid(base, vary, seeds, text, out, **{"track": TRACK, "checkpoint_every": 5, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A grid of two shapes that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "grid"
    return out, run(out)


def copy(whole: tuple[Path, pd.DataFrame], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "grid"))


# ------------------------------------------------------------ what is varied


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["width=16,24"], {"width": [16, 24]}),
        (["weight-decay=0,1e-2,0.5"], {"weight_decay": [0.0, 0.01, 0.5]}),
        (["tied=true,False"], {"tied": [True, False]}),
        (["model_type=gpt2,Llama"], {"model_type": ["gpt2", "llama"]}),
        (["schedule=constant"], {"schedule": ["constant"]}),
        (["microbatch=2,4"], {"microbatch": [2, 4]}),
        (["layers=1,2", "dropout=0.1"], {"layers": [1, 2], "dropout": [0.1]}),
        ([], {}),
    ],
)
def test_values_are_read_as_what_the_recipe_holds(given, expected):
    found = parse_vary(given)
    assert found == expected
    assert [[type(value) for value in values] for values in found.values()] == [
        [type(v) for v in values] for values in expected.values()
    ]
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["widht=16"], ("no 'widht'", "nearest is 'width'")),
        (["weight_decai=1"], ("nearest is 'weight_decay'",)),
        (["lr=1"], ("no 'lr'", "nearest is")),
        (["attributes=a"], ("no 'attributes'",)),
        (["seed=1,2"], ("--seeds",)),
        (["width"], ("'width'", "NAME=VALUE,VALUE")),
        (["width="], ("'width='", "NAME=VALUE,VALUE")),
        (["width=16", "width=24"], ("width is varied twice",)),
        (["weight-decay=1", "weight_decay=2"], ("weight_decay is varied twice",)),
        (["width=16,24,16"], ("has a value twice",)),
        (["weight_decay=0.1,1e-1"], ("has a value twice",)),
        (["width=16.5"], ("width", "'16.5'", "a whole number")),
        (["width=16,"], ("width", "''", "a whole number")),
        (["microbatch=none"], ("microbatch", "'none'", "a whole number")),
        (["dropout=high"], ("dropout", "'high'", "give a number")),
        (["tied=yes"], ("tied", "'yes'", "one of True, False")),
        (["model_type=gpt3"], ("'gpt3'", "one of gpt2, gpt_neox, llama, opt, stablelm")),
    ],
)
def test_what_cannot_be_varied_is_refused(given, parts):
    check_error(lambda: parse_vary(given), *parts)


def test_every_combination_has_a_name_and_the_seeds_go_on_from_the_base():
    base = dataclasses.replace(BASE, seed=7)
    models = models_of_grid(base, {"tied": [True, False], "weight_decay": [0.0, 0.5]}, 2)
    assert list(models) == [
        f"tied={t},weight_decay={w},seed={s}" for t in (True, False) for w in (0.0, 0.5) for s in (7, 8)
    ]
    assert models["tied=False,weight_decay=0.5,seed=8"] == dataclasses.replace(
        base, tied=False, weight_decay=0.5, seed=8
    )
    assert list(models_of_grid(base, {}, 2)) == ["seed=7", "seed=8"]


def test_models_are_trained_together_unless_their_shapes_differ():
    numbers = {name: [1e-3, 2e-3] for name in PER_MODEL if name != "seed"}
    [together] = groups_of_one_shape(models_of_grid(BASE, numbers, 3))
    assert len(together) == 2 ** len(numbers) * 3
    shapes = {
        "width": [16, 24],
        "tied": [True, False],
        "schedule": ["cosine", "constant"],
        "steps": [5, 6],
        "microbatch": [2, 4],
    }
    models = models_of_grid(BASE, {**shapes, "dropout": [0.0, 0.1]}, 2)
    groups = groups_of_one_shape(models)
    assert [len(names) for names in groups] == [4] * 32
    assert sorted(name for names in groups for name in names) == sorted(models)
    for names in groups:
        assert len({tuple(getattr(models[name], key) for key in shapes) for name in names}) == 1


# ------------------------------------------------------------ the real grid


@pytest.mark.command
def test_the_table_has_a_row_for_each_model_with_its_own_numbers(whole):
    out, table = whole
    pd.testing.assert_frame_equal(pd.read_parquet(out / "study.parquet"), table)
    assert list(table) == ["model", "weight_decay", "width", "seed", *OUTCOMES, *COUNT_FACTS, "diverged_at"]
    assert {path.name for path in (out / "models").iterdir()} == set(table["model"])
    settings = table[["weight_decay", "width", "seed"]].itertuples(index=False, name=None)
    assert sorted(settings) == sorted((0.9, d, s) for d in (16, 24) for s in (0, 1))
    for row in table.to_dict("records"):
        folder = out / "models" / row["model"]
        saved = json.loads((folder / "train.json").read_text())
        assert all(saved["config"][name] == row[name] for name in ("weight_decay", "width", "seed"))
        assert json.loads((folder / "config.json").read_text())["hidden_size"] == row["width"]
        steps = pq.read_table(folder / "emergence.parquet").to_pylist()
        assert [step["step"] for step in steps] == [0, 1, 12]
        last, values = steps[-1], sorted(steps[-1]["singular_values"])
        above = [n for n, rho in enumerate(last["rho"]) if rho > last["rho_chance"]]
        with_above = [step["step"] for step in steps if max(step["rho"]) > step["rho_chance"]]
        expected = {
            "held_out_loss": saved["result"]["held_out_loss"],
            "entropy": last["entropy"],
            "ece": last["ece"],
            "above_chance": len(above),
            "first_above_chance": with_above[0] if with_above else np.nan,
            "max_ln_mediated": max([last["ln_mediated"][n] for n in above], default=np.nan),
            "entropy_neurons": sum(last["is_entropy_neuron"]),
            "frequency_neurons": sum(last["is_frequency_neuron"]),
            "bottom_singular_value": values[0] / np.median(values),
            "diverged_at": np.nan,
        }
        assert set(expected) == {*OUTCOMES, "diverged_at"}
        facts = Emergence.load(folder).facts
        assert [row[name] for name in COUNT_FACTS] == [facts[name] for name in COUNT_FACTS]
        np.testing.assert_allclose([row[name] for name in expected], list(expected.values()), rtol=1e-12)
    assert table["held_out_loss"].nunique() == len(table)


def test_outcomes_of_neurons_that_emerge(tmp_path):
    """A track made by hand: neurons above chance come and go, and only those of the last step count for its share."""

    def step(number: int, rho: list[float], ln_mediated: list[float] | None, entropy: list[bool] | None) -> dict:
        numbers = {"step": number, "entropy": 1.5 - number / 100, "ece": number / 1000, "rho_chance": 0.5}
        neurons = {
            "rho": rho,
            "ln_mediated": ln_mediated,
            "is_entropy_neuron": entropy,
            "is_frequency_neuron": entropy and [True] * 4,
        }
        return {**numbers, **neurons, "singular_values": [8.0, 4.0, 3.0, 2.0, number / 100]}

    emergence.append(tmp_path, step(0, [0.1, 0.2, 0.5, 0.3], [0.9] * 4, [False] * 4), {})  # 0.5 is chance, not above it
    emergence.append(tmp_path, step(10, [0.1, 0.2, 0.3, 0.8], [0.1, 0.1, 0.1, 0.99], [False, False, False, True]), {})
    emergence.append(tmp_path, step(20, [0.9, 0.2, 0.3, 0.1], None, None), {})
    emergence.append(tmp_path, step(60, [0.6, 0.2, 0.7, 0.4], [0.2, 0.95, 0.35, 0.9], [False, False, True, False]), {})
    found = outcome(Emergence.load(tmp_path), {"held_out_loss": 2.5})
    assert found == {
        "held_out_loss": 2.5,
        "entropy": pytest.approx(0.9),
        "ece": 0.06,
        "above_chance": 2,
        "first_above_chance": 10,
        "max_ln_mediated": 0.35,
        "entropy_neurons": 1,
        "frequency_neurons": 4,
        "bottom_singular_value": pytest.approx(0.2),
    }


@pytest.mark.slow
def test_every_model_is_the_one_that_is_trained_alone(whole, tmp_path):
    out, table = whole
    for name, config in list(models_of_grid(BASE, VARY, SEEDS).items()):
        alone, beside = tmp_path / name, out / "models" / name
        track = TRACK if config.seed == 0 else NO_TRACK  # to measure takes as long as to train
        result = train(config, text, alone, track=track)
        np.testing.assert_allclose(np.load(beside / "losses.npy"), np.load(alone / "losses.npy"), rtol=1e-4)
        row = table.set_index("model").loc[name]
        assert row["held_out_loss"] == pytest.approx(result["held_out_loss"], rel=1e-4)
        one, other = load_file(beside / "model.safetensors"), load_file(alone / "model.safetensors")
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_allclose(one[key], other[key], rtol=1e-4, atol=1e-5, err_msg=key)
        if track.points:
            side, single = Emergence.load(beside), Emergence.load(alone)
            np.testing.assert_allclose(side.steps.astype(float), single.steps.astype(float), rtol=1e-4)
            np.testing.assert_allclose(side.neurons["rho"], single.neurons["rho"], rtol=1e-3)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            assert (alone / file).read_bytes() == (beside / file).read_bytes()


def drawn(table: pd.DataFrame, vary: list[str]) -> list[dict]:
    """Of each panel, each setting's label → the points, and what is marked beside them."""
    figure = grid_figure(table, vary)
    panels = []
    for axes in figure.axes:
        assert not axes.containers  # there are no intervals
        labels = [label.get_text() for label in axes.get_xticklabels()]
        panel = {"title": axes.get_title(loc="left"), "none": [text.get_text() for text in axes.texts], "places": {}}
        for place, label in enumerate(labels):
            here = [line for line in axes.lines if len(line.get_xdata()) and round(line.get_xdata()[0]) == place]
            panel["places"][label] = [
                [y for line in here if line.get_marker() == marker for y in line.get_ydata()] for marker in ("o", "_")
            ]
        panels.append(panel)
    plt.close("all")
    return panels


def check_figure(table: pd.DataFrame, vary: list[str]) -> None:
    panels = drawn(table, vary)
    assert [panel["title"] for panel in panels] == list(OUTCOMES.values())
    groups = {"\n".join(map(str, key)): rows for key, rows in table.groupby(vary, sort=False)} if vary else {"": table}
    for name, panel in zip(OUTCOMES, panels, strict=True):
        assert list(panel["places"]) == list(groups)
        assert panel["none"] == (["none"] if table[name].isna().all() else [])
        for label, (points, median) in panel["places"].items():
            values = groups[label][name].dropna().astype(float)
            assert sorted(points) == sorted(values)
            assert median == ([values.median()] if len(values) else [])


@pytest.mark.command
def test_the_figure_shows_the_models_and_their_medians(whole):
    out, table = whole
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    check_figure(table, list(VARY))
    assert "4 models by weight_decay, width" in grid_figure(table, list(VARY)).get_suptitle()


@pytest.mark.parametrize("vary", [["width"], ["model_type", "tied"], []])
def test_the_figure_leaves_out_what_is_missing(vary):
    rng = np.random.default_rng(0)
    rows = [
        {"width": w, "model_type": m, "tied": t}
        for w in (16, 24)
        for m in ("gpt2", "llama")
        for t in (True, False)
        for _ in range(3)
    ]
    table = pd.DataFrame(rows).assign(**{name: rng.random(24) for name in OUTCOMES})
    table.loc[0, "held_out_loss"] = np.nan
    table.loc[:10, "entropy"] = np.nan  # one is left of the narrow ones
    table.loc[:11, "ece"] = np.nan
    table["max_ln_mediated"] = np.nan
    check_figure(table, vary)


# ------------------------------------------------------------ interrupted, gone on with


class Halt(Exception):
    pass


def times(out: Path, names: list[str]) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for name in names for file in sorted((out / "models" / name).iterdir())}


@pytest.mark.command
def test_a_grid_that_is_stopped_is_resumed_where_it_was(whole, tmp_path):
    out, expected = tmp_path / "grid", whole[1]
    first, second = groups_of_one_shape(models_of_grid(BASE, VARY, SEEDS))
    seen = []

    def report(step: int, measured: dict[str, float]) -> None:
        seen.append(step)
        if len(seen) == 2:
            raise Halt

    with pytest.raises(Halt):
        run(out, report=report)
    assert seen == [12, 12]  # at the end of each shape
    assert not (out / "study.parquet").exists()
    check_error(lambda: tabulate(out), "not finished", second[0], "--resume")
    check_error(lambda: run(out), "holds a run already", "--resume")
    check_error(lambda: grid(BASE, VARY, SEEDS, lambda: iter(TEXT[1:]), out, track=TRACK, resume=True), "other text")
    check_error(lambda: run(out, counts=np.ones(BASE.vocab_size, int), resume=True), "other token counts")
    before = times(out, first)
    assert len(before) == 7 * len(first)

    seen.append(0)  # past the second: no more halts
    steps = []
    again = run(out, vary=dict(reversed(VARY.items())), resume=True, report=lambda step, measured: steps.append(step))
    assert steps == [12]
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "study.parquet"), expected, check_exact=True)
    assert times(out, first) == before
    assert {path.name for path in (out / "models").iterdir()} == {*first, *second}
    for name in (*first, *second):
        for file in ("losses.npy", "model.safetensors"):
            assert (out / "models" / name / file).read_bytes() == (whole[0] / "models" / name / file).read_bytes()
    assert not (out / "checkpoints").exists()


@pytest.mark.command
def test_a_model_without_its_result_is_trained_again_with_those_of_its_shape(whole, tmp_path):
    out, expected = copy(whole, tmp_path), whole[1]
    first, second = groups_of_one_shape(models_of_grid(BASE, VARY, SEEDS))
    (out / "models" / second[1] / "train.json").unlink()
    check_error(lambda: tabulate(out), "not finished", second[1])
    before, later = times(out, first), times(out, second)
    pd.testing.assert_frame_equal(run(out, resume=True), expected, check_exact=True)
    assert times(out, first) == before
    assert all(time > later.get(file, 0) for file, time in times(out, second).items())


@pytest.mark.command
def test_a_finished_grid_is_only_compared_again(whole, tmp_path):
    out, expected = copy(whole, tmp_path), whole[1]
    before = times(out, list(expected["model"]))
    (out / "study.png").unlink()

    def unread() -> Iterator[str]:
        raise AssertionError("there is nothing to read the text for")

    pd.testing.assert_frame_equal(
        grid(BASE, VARY, SEEDS, unread, out, track=TRACK, resume=True), expected, check_exact=True
    )
    assert (out / "study.png").is_file()
    assert times(out, list(expected["model"])) == before
    pd.testing.assert_frame_equal(tabulate(out), expected, check_exact=True)


@pytest.mark.command
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"base": dataclasses.replace(BASE, steps=13)}, ("steps is 12 there and 13 here",)),
        ({"track": TrackConfig(points=4, tokens=100)}, ("points is 1 there and 4 here",)),
        ({"seeds": 3}, ("seeds is 2 there and 3 here",)),
        ({"vary": {**VARY, "width": [16, 32]}}, ("width is [16, 24] there and [16, 32] here",)),
        ({"vary": {"width": [16, 24]}}, ("weight_decay is [0.9] there and None here",)),
        ({"tokenizer": "somewhere"}, ("tokenizer is None there and 'somewhere' here",)),
    ],
)
def test_only_the_same_grid_is_resumed(change, parts, whole):
    before = times(whole[0], list(whole[1]["model"]))
    check_error(lambda: run(whole[0], **change, resume=True), "holds another run", *parts)
    check_error(lambda: run(whole[0], **change), "--resume", "--force")
    assert times(whole[0], list(whole[1]["model"])) == before


def test_what_is_no_grid_is_left_alone(tmp_path):
    """A folder of someone's own that happens to have the name of a grid's."""
    for name in ("models", "checkpoints"):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "mine.txt").write_text("mine")
        for force in (False, True):
            check_error(
                lambda out=tmp_path / name, force=force: run(out, force=force), name, "not of a grid", "another --out"
            )
        assert (tmp_path / name / name / "mine.txt").read_text() == "mine"
    check_error(lambda: tabulate(tmp_path), "study.json cannot be read", "jaxconf train --vary")
    (tmp_path / "study.json").write_text("{")
    check_error(lambda: tabulate(tmp_path), "study.json cannot be read")
    check_error(lambda: run(tmp_path, resume=True), "study.json is damaged", "--force")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"seeds": 0}, ("seeds is 0",)),
        ({"track": TrackConfig(points=0)}, ("track.points",)),
        ({"track": TrackConfig(effects_every=0)}, ("track.effects_every",)),
        ({"vary": {"widht": [16]}}, ("no 'widht' to vary", "nearest is 'width'")),
        ({"vary": {"width": [16, 15]}}, ("width of 15 does not divide into 2 heads",)),
        ({"vary": {"weight_decay": [0.0, -1.0]}}, ("weight_decay is -1.0",)),
        ({"track": TrackConfig(k=16)}, ("k is 16",)),
        ({"checkpoint_every": 0}, ("checkpoint_every is 0",)),
        ({"base": dataclasses.replace(BASE, seed=2**32 - 1)}, (f"seed is {2**32}",)),
    ],
)
def test_what_no_model_can_be_trained_by_is_refused_at_once(change, parts, tmp_path):
    check_error(lambda: run(tmp_path / "out", **change), *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.command
def test_text_that_one_shape_cannot_be_trained_on_is_refused_before_the_older_grid_goes(whole, tmp_path):
    out = copy(whole, tmp_path)
    before = times(out, list(whole[1]["model"]))
    check_error(lambda: run(out, vary={"vocab_size": [264, 4096]}, force=True), "the text gives a vocabulary of only")
    assert times(out, list(whole[1]["model"])) == before
    pd.testing.assert_frame_equal(tabulate(out), whole[1], check_exact=True)


# ------------------------------------------------------------ gone wrong


@pytest.mark.command
def test_a_model_that_diverges_is_a_row_of_nan_and_its_neighbours_are_as_ever(whole, tmp_path):
    out = tmp_path / "grid"
    (out / "models" / "old").mkdir(parents=True)
    (out / "study.json").write_text("{}")
    base = dataclasses.replace(BASE, weight_decay=0.9)
    settings = {"vary": {"learning_rate": [1e-2, 1e30]}, "base": base, "seeds": 1}
    table = run(out, **settings, force=True).set_index("model")
    assert {path.name for path in (out / "models").iterdir()} == set(
        table.index
    )  # --force: nothing of the older grid is left
    good, wild = (table[table["learning_rate"] == rate] for rate in (1e-2, 1e30))
    assert len(good) == len(wild) == 1
    assert wild[list(OUTCOMES)].isna().all(axis=None)
    assert good["diverged_at"].isna().all()
    for name, row in wild.iterrows():
        saved = json.loads((out / "models" / name / "train.json").read_text())["result"]
        assert row["diverged_at"] == saved["diverged_at"]
        assert 1 < row["diverged_at"] <= BASE.steps
        assert not (out / "models" / name / "config.json").exists()
        assert 0 in Emergence.load(out / "models" / name).steps["step"].tolist()
    same = whole[1][(whole[1]["width"] == 16) & (whole[1]["seed"] == 0)]
    for name in OUTCOMES:
        np.testing.assert_allclose(good[name].astype(float), same[name].astype(float), rtol=1e-4, err_msg=name)
    assert all((out / "models" / name / "model.safetensors").is_file() for name in good.index)
    pd.testing.assert_frame_equal(run(out, **settings, resume=True).set_index("model"), table)
    check_figure(table.reset_index(), ["learning_rate"])


def test_a_grid_in_which_all_diverge_ends_and_leaves_no_checkpoints(tmp_path):
    table = run(tmp_path / "grid", vary={"learning_rate": [1e30, 1e35]}, seeds=1, checkpoint_every=1)
    assert table[list(OUTCOMES)].isna().all(axis=None)
    assert (table["diverged_at"] > 1).all()
    assert not (tmp_path / "grid" / "checkpoints").exists()
    assert (tmp_path / "grid" / "study.png").is_file()


@pytest.mark.slow
def test_a_model_that_the_last_step_spoils_has_diverged(tmp_path):
    """Its losses are all numbers, since each is of before its step; what it predicts afterwards is not."""
    table = run(
        tmp_path / "grid", vary={"learning_rate": [1e-2, 1e35]}, base=dataclasses.replace(BASE, steps=1), seeds=1
    )
    assert table["diverged_at"].tolist()[1] == 1
    assert table.loc[1, list(OUTCOMES)].isna().all()
    assert np.isfinite(table.loc[0, ["held_out_loss", "entropy", "ece"]].astype(float)).all()
    assert math.isnan(table.loc[0, "diverged_at"])
