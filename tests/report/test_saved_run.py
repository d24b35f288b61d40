"""A finished result in its folder: that of an analysis, and that of a study."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_table import planted_table

from jaxconf.report import page, run
from jaxconf.report.figures import FIGURES
from jaxconf.report.run import save_run, save_study
from jaxconf.report.style import canvas
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import SETS

pytestmark = pytest.mark.usefixtures("drawn_quickly")

ANALYSIS = [
    "kept.npy",
    "neurons.parquet",
    "nulls.parquet",
    "positions.parquet",
    "report.html",
    "spectrum.npz",
    "summary.json",
    "token_changes.parquet",
    "windows.npy",
    "figure_1.png",
]


@dataclass
class Part:
    pairs: pd.DataFrame


@dataclass
class Found:
    sets: pd.DataFrame
    facts: dict[str, Any]
    natural: Part | None = None


def found(**facts: Any) -> Found:
    return Found(pd.DataFrame({"x": [1.0, 2.0]}), {"model": "m", **facts}, Part(pd.DataFrame({"y": [3]})))


def save(result, folder, figures=("one",)):
    drawings = {f"study_{name}": lambda it: canvas(it.facts["model"], "s", "n")[0] for name in figures}
    page = lambda it, images: f"<p>{it.facts['model']}: {', '.join(image.name for image in images)}</p>"  # noqa: E731
    return save_study(result, "study", ["A sentence."], drawings, page, folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_study_is_written_with_tables_facts_figures_and_page(tmp_path):
    path = save(found(k=3), tmp_path / "run")
    assert path == tmp_path / "run" / "study.html"
    assert sorted(contents(tmp_path / "run")) == [
        "study.html",
        "study.json",
        "study_natural_pairs.parquet",
        "study_one.png",
        "study_sets.parquet",
    ]
    assert path.read_text(encoding="utf-8") == "<p>m: study_one.png</p>"
    said = json.loads((tmp_path / "run" / "study.json").read_text(encoding="utf-8"))
    assert list(said.items()) == [("verdict", ["A sentence."]), ("model", "m"), ("k", 3)]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "study_sets.parquet"), found().sets)
    assert pd.read_parquet(tmp_path / "run" / "study_natural_pairs.parquet")["y"].tolist() == [3]


def test_a_study_takes_the_place_of_an_older_one_and_leaves_others_alone(tmp_path):
    (tmp_path / "other_sets.parquet").write_bytes(b"other")
    save(found(), tmp_path, ["one", "two"])
    result = found(k=4)
    result.natural = None
    save(result, tmp_path)
    assert sorted(contents(tmp_path)) == [
        "other_sets.parquet",
        "study.html",
        "study.json",
        "study_one.png",
        "study_sets.parquet",
    ]


def test_a_study_that_cannot_be_drawn_leaves_the_older_one_as_it_was(tmp_path):
    save(found(), tmp_path)
    before = contents(tmp_path)

    def fail(it):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_study(found(k=4), "study", [], {"study_one": fail}, lambda it, images: "", tmp_path)
    assert contents(tmp_path) == before


def test_an_analysis_is_written_with_its_windows_and_what_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FIGURES", {"figure_1": FIGURES["figure_1"]})  # all of them take seconds
    monkeypatch.setattr(page, "plots", lambda table: {})
    tokens, kept = np.arange(12).reshape(2, 6), np.ones((2, 6), bool)
    columns = {name: [0.5] for name in ("loss_delta", "entropy_delta", "kl_freq_delta", "loss_abs_delta")}
    columns |= {"ln_mediated": [0.5], "top1_change": [0.1]}
    sets = pd.DataFrame({"set": [0], "size": [1], "neurons": ["3.5"], **columns})
    sets = sets.assign(**{f"{name}_{end}": 0.1 for name in columns for end in ("lo", "hi")})
    save_run(planted_table(), tokens, kept, tmp_path, {SETS: sets})
    assert sorted(contents(tmp_path)) == sorted([*ANALYSIS, SETS])
    assert 'id="sets"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert np.load(tmp_path / "windows.npy").dtype == np.int32
    np.testing.assert_array_equal(np.load(tmp_path / "windows.npy"), tokens)
    np.testing.assert_array_equal(np.load(tmp_path / "kept.npy"), kept)

    save_run(planted_table(plant=False), tokens, kept, tmp_path, {})
    assert sorted(contents(tmp_path)) == sorted(ANALYSIS)
    assert not NeuronTable.load(tmp_path).frame["is_entropy_neuron"].any()
