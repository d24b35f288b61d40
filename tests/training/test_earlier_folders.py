"""Folders that the version before wrote: an interrupted run, a grid and a track of hub revisions are read and resumed.

That version had the training's modules side by side in `jaxconf/`. The folders were recorded with its `train`, `study`
and `track_revisions`, of the texts of tiny_training and hub_models.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hub import hub
from hub_models import NAME, build
from hub_models import text as hub_text
from refusals import check_error
from tiny_training import TINY, text

import jaxconf
from jaxconf.cli.train import grid_sentences
from jaxconf.training import checkpoints
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.emergence import FILE, Emergence
from jaxconf.training.grid import grid
from jaxconf.training.revisions import track_revisions
from jaxconf.training.run import train
from jaxconf.training.summary import summary_lines

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

SMALL = dataclasses.replace(TINY, layers=1, width=4, neurons=4, vocab_size=257)
TRACK = TrackConfig(points=2, effects_every=1, tokens=100, k=1)


@pytest.fixture
def earlier(tmp_path) -> Path:
    shutil.unpack_archive(Path(__file__).parents[1] / "support" / "earlier_training.zip", tmp_path)
    return tmp_path


def unread() -> Iterator[str]:
    raise AssertionError("there is nothing to read the text for")


@pytest.mark.command
def test_an_interrupted_run_is_resumed_to_the_losses_of_one_that_was_not(earlier):
    run = earlier / "run"
    assert checkpoints.steps(run / "checkpoints") == [40]
    before = Emergence.load(run)
    assert before.steps["step"].tolist() == [0, 1]
    other = dataclasses.replace(SMALL, steps=61)
    check_error(lambda: train(other, text, run, track=TRACK, resume=True), "steps is 60 there and 61 here")
    reports = []
    train(SMALL, text, run, track=TRACK, resume=True, report=lambda step, measured: reports.append(step))
    np.testing.assert_allclose(np.load(run / "losses.npy"), np.load(earlier / "whole_losses.npy"), rtol=1e-4)
    assert reports == [50, 60]
    after = Emergence.load(run)
    assert after.steps["step"].tolist() == [0, 1, 60]
    pd.testing.assert_frame_equal(after.steps.iloc[:2], before.steps, check_exact=True)
    assert train(SMALL, unread, run, track=TRACK, resume=True)["held_out_loss"] < 4


def test_a_track_is_loaded_whole(earlier):
    e = Emergence.load(earlier / "run")
    rows = pq.read_table(earlier / "run" / FILE).to_pylist()
    assert TrainConfig(**{**e.facts["recipe"], "attributes": tuple(e.facts["recipe"]["attributes"])}) == SMALL
    assert e.singular_values.tolist() == [row["singular_values"] for row in rows]
    for name in ("rho", "w_norm", "loss_abs_delta", "ln_mediated", "is_entropy_neuron"):
        assert e.neurons[name].tolist() == [value for row in rows for value in row[name]]
    assert summary_lines(e)[0] == "Measured steps: 2, the last 1; with effects: 2."


def test_a_grid_is_compared_and_resumed(earlier):
    folder = earlier / "grid"
    before = pd.read_parquet(folder / "study.parquet")
    assert before["weight_decay"].tolist() == [0.1, 0.5]
    (folder / "study.parquet").unlink()
    again = jaxconf.track(folder)
    pd.testing.assert_frame_equal(again[list(before)], before, check_exact=True)
    assert again.drop(columns=list(before)).isna().all(axis=None)  # what that version did not state
    assert len(grid_sentences(again, folder)) == 1
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "study.parquet"), again, check_exact=True)
    assert (folder / "study.png").is_file()
    base, vary = dataclasses.replace(SMALL, steps=3), {"weight_decay": [0.1, 0.5]}
    pd.testing.assert_frame_equal(grid(base, vary, 1, unread, folder, track=TRACK, resume=True), again)
    check_error(lambda: grid(base, vary, 2, unread, folder, track=TRACK, resume=True), "seeds is 1 there and 2 here")


def test_a_track_of_revisions_is_read_and_not_continued_by_other_rules(earlier):
    folder = earlier / "revisions"
    before = Emergence.load(folder)
    assert before.steps["revision"].tolist() == ["step0"]
    models = {name: build(earlier / name, int(name.removeprefix("step"))) for name in ("step0", "step20")}
    with hub({f"models/{NAME}": models}, earlier / "cache"):
        check_error(lambda: track_revisions(NAME, [*models], hub_text, folder), "another track", "rules is")
    pd.testing.assert_frame_equal(Emergence.load(folder).neurons, before.neurons)
