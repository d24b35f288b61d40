"""Components other than neurons over training: those of an analysis of the same model, resumed, and drawn."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusals import check_error
from tiny_training import TINY, corpus_of_text, text

from jaxconf.data.windows import kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.models.language_model import load
from jaxconf.training.config import TrackConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.figures import save_emergence_figures
from jaxconf.training.measurements import DRAWS
from jaxconf.training.run import train

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly")]

CONFIG = dataclasses.replace(TINY, steps=12)
TRACK = TrackConfig(points=3, effects_every=2, tokens=100, components="heads,null")


@pytest.fixture(scope="module")
def folder(compiled_quickly: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(CONFIG, text, folder, track=TRACK)
    return folder


def test_components_are_those_of_an_analysis(folder: Path) -> None:
    e = Emergence.load(folder)
    steps = e.components["step"].unique().tolist()
    measured = e.neurons[e.neurons["loss_delta"].notna()]["step"].unique().tolist()
    assert steps == measured
    assert len(steps) >= 2
    assert steps[-1] == CONFIG.steps
    lm, corpus = load(folder), corpus_of_text()
    windows = corpus.held_out_windows(TRACK.tokens, CONFIG.context)
    how = {"kept": kept_positions(windows, lm.special_ids), "counts": corpus.counts(CONFIG.vocab_size)}
    table = analyze(lm, windows, components="heads,null", bootstrap_draws=DRAWS, **how)
    last = e.components[e.components["step"] == CONFIG.steps]
    assert last["name"].tolist() == table.names == ["0.h0", "0.h1", "null.0"]
    for column in ("rho", "loss_abs_delta", "entropy_delta_lo", "ln_mediated", "logit_var"):
        np.testing.assert_allclose(last[column], table.frame[column], rtol=1e-5, atol=1e-6, err_msg=column)
    files = [file.name for file in save_emergence_figures(e, folder)]
    assert "emergence_components.png" in files


def test_a_resumed_run_measures_later_steps_again(folder: Path, tmp_path: Path) -> None:
    """The rows of later steps are replaced, and so are those of the step at which the run goes on."""
    rows = pd.read_parquet(folder / "components.parquet")
    copy = tmp_path / "copy"
    train(CONFIG, text, copy, track=TRACK)
    again = pd.read_parquet(copy / "components.parquet")
    pd.testing.assert_frame_equal(rows, again)
    train(CONFIG, text, copy, track=TRACK, resume=True)
    pd.testing.assert_frame_equal(rows, pd.read_parquet(copy / "components.parquet"))


@pytest.mark.parametrize(
    ("components", "why"),
    [("neurons", "tracked anyway"), ("head", "the nearest is 'heads'"), ("pc=99", "has the width 16")],
)
def test_components_that_a_track_does_not_take(components: str, why: str, tmp_path: Path) -> None:
    track = dataclasses.replace(TRACK, components=components)
    check_error(lambda: train(CONFIG, text, tmp_path / "run", track=track), why)
    assert not (tmp_path / "run").exists()
