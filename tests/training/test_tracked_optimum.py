"""Tracks of models in a world: their predictions beside the best possible ones, step by step."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_training import TINY, text

from jaxconf.cli.train import preset
from jaxconf.data.corpus import read_corpus
from jaxconf.data.windows import kept_positions
from jaxconf.data.worlds import World, world_of
from jaxconf.measure.inputs import with_target
from jaxconf.measure.optimum import beside_optimum
from jaxconf.models.language_model import load
from jaxconf.results.optimum import UNABLATED, optimum_sentences
from jaxconf.results.run_folder import OPTIMUM
from jaxconf.training.config import PRESET_DATA, PRESETS, TrackConfig
from jaxconf.training.emergence import Emergence, append_rows
from jaxconf.training.run import train
from jaxconf.training.summary import summary_lines

SOURCE = "noise:words=12,levels=3,stretch=5,size=6000"
CONFIG = dataclasses.replace(TINY, layers=2, vocab_size=16, steps=12)
TRACK = TrackConfig(points=3, effects_every=2, tokens=600)


def world() -> World:
    found = world_of(SOURCE)
    assert found
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "run"
    train(CONFIG, SOURCE, out, track=TRACK)
    return out


def test_the_last_step_is_the_saved_model_beside_the_optimum(run: Path) -> None:
    e, lm = Emergence.load(run), load(run)
    assert sorted(set(e.optimum["step"])) == e.steps["step"].tolist() == [0, 1, 3, 12]
    tokens = read_corpus(16, CONFIG.context, SOURCE).held_out_windows(TRACK.tokens, CONFIG.context)
    kept = with_target(tokens, kept_positions(tokens, lm.special_ids))
    expected = beside_optimum(lm, tokens, kept, world(), {}, 1)
    last = e.optimum[(e.optimum["step"] == 12) & (e.optimum["how"] == UNABLATED)].drop(columns="step")
    pd.testing.assert_frame_equal(last.reset_index(drop=True), expected.sets, atol=1e-6)
    neurons = e.neurons[e.neurons["step"] == 12]
    np.testing.assert_allclose(neurons["temperature_r2"], expected.neurons["temperature_r2"], atol=1e-6)
    [whole] = last[last["level"] < 0].to_dict("records")
    assert whole["loss"] == pytest.approx(e.steps["loss"].iloc[-1], abs=1e-5)


def test_the_summary_has_the_optimum_s_numbers(run: Path) -> None:
    e = Emergence.load(run)
    assert optimum_sentences(e.optimum[e.optimum["step"] == 12])[0] in summary_lines(e)


def test_the_model_has_the_tokenizer_of_its_world(run: Path) -> None:
    for name, content in world().tokenizer_files.items():
        assert (run / name).read_text("utf-8") == content
    np.testing.assert_array_equal(load(run).tokenizer.encode("w3 e1 w0 <|endoftext|>"), [3, 13, 0, 15])


def test_a_step_that_is_measured_again_replaces_later_ones(tmp_path: Path) -> None:
    for step, loss in ((0, 3.0), (5, 2.0), (9, 1.0), (5, 2.5)):
        append_rows(tmp_path, OPTIMUM, step, pd.DataFrame({"loss": [loss, loss + 0.1]}))
    found = pd.read_parquet(tmp_path / OPTIMUM)
    assert found["step"].tolist() == [0, 0, 5, 5]
    assert found["loss"].tolist() == [3.0, 3.1, 2.5, 2.6]


def test_a_text_of_no_world_has_no_optimum(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=2)
    train(config, text, tmp_path, track=TRACK)
    assert not (tmp_path / OPTIMUM).exists()
    assert Emergence.load(tmp_path).optimum.empty


def test_train_without_a_preset_trains_the_noise_world() -> None:
    command, rest = preset(["--seeds", "2"])
    assert (command.config, command.data, rest) == (PRESETS["noise"], PRESET_DATA["noise"], ["--seeds", "2"])
    world = world_of(command.data)
    assert world
    assert len(world.tokens) == command.config.vocab_size
    small, rest = preset(["small", "--width", "64"])
    assert (small.config, small.data, rest) == (PRESETS["small"], "stdlib", ["--width", "64"])
