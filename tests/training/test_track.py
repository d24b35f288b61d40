"""`jaxconf.track`: it does what the command does, for a run, a grid and the revisions of a hub model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hub import hub
from hub_models import NAME, build
from hub_models import text as hub_text
from planted_track import planted_rows, write
from refusals import check_error

import jaxconf
from jaxconf.training.emergence import FILE
from jaxconf.training.figures import FIGURES
from jaxconf.training.summary import summary_lines

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


def drawn(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.png")}


def test_a_run_is_drawn_beside_its_track(tmp_path: Path):
    for name in ("folder", "file"):
        run = tmp_path / name
        run.mkdir()
        expected = write(run, planted_rows())
        e = jaxconf.track(run if name == "folder" else run / FILE)
        pd.testing.assert_frame_equal(e.neurons, expected.neurons)
        assert drawn(run) == set(FIGURES)


def test_revisions_are_measured_and_drawn(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hub({f"models/{NAME}": {"step3": build(tmp_path / "model", 0)}}, tmp_path / "cache"):
        e = jaxconf.track(NAME, ["step3"], data=hub_text)
        in_another = jaxconf.track(NAME, ["step3"], data=hub_text, out=tmp_path / "another", k=2)
    assert e.steps["revision"].tolist() == ["step3"]
    assert (e.facts["k"], in_another.facts["k"]) == (1, 2)
    for folder in (tmp_path / "runs" / "name", tmp_path / "another"):
        assert (folder / FILE).is_file()
        assert drawn(folder) == set(FIGURES)


def test_revisions_are_measured_with_the_given_counts(tmp_path: Path):
    counts = np.random.default_rng(0).integers(0, 9, 262)
    names = {f"step{step}": build(tmp_path / f"model{step}", step) for step in (1, 2)}
    with hub({f"models/{NAME}": names}, tmp_path / "cache"):
        e = jaxconf.track(NAME, ["step1"], data=hub_text, counts=counts, out=tmp_path / "out")
        both = {"revisions": list(names), "data": hub_text, "out": tmp_path / "out"}
        check_error(lambda: jaxconf.track(NAME, counts=counts + 1, **both), "its token counts are not the same")
        assert len(jaxconf.track(NAME, counts=counts, **both).steps) == 2
    expected = jaxconf.weight_statistics(jaxconf.load(names["step1"]), counts)
    np.testing.assert_allclose(e.neurons["cos_freq"], expected["cos_freq"], atol=1e-6)
    assert (e.facts["counts"], e.facts["counts_tokens"]) == ("given", counts.sum())
    uncertain = summary_lines(e)[-1]
    assert "uncertain" in uncertain
    assert f"{counts.sum():,} tokens" in uncertain


def test_the_tokens_of_the_text_are_counted_for_revisions(tmp_path: Path):
    (tmp_path / "text.txt").write_text("".join(hub_text()))
    of_texts = []
    with hub({f"models/{NAME}": {"step3": build(tmp_path / "model", 0)}}, tmp_path / "cache"):
        for data in (str(tmp_path / "text.txt"), lambda: iter(["".join(hub_text())])):
            of_texts.append(jaxconf.track(NAME, ["step3"], data=data, out=tmp_path / f"out{len(of_texts)}"))
    lm = jaxconf.load(tmp_path / "model")
    counts = jaxconf.count_tokens(["".join(hub_text())], lm.tokenizer, 262)
    expected = jaxconf.weight_statistics(lm, counts)["cos_freq"]
    for e in of_texts:
        np.testing.assert_allclose(e.neurons["cos_freq"], expected, atol=1e-6)
        assert e.facts["counts_types"] == np.count_nonzero(counts)


def test_what_is_no_track_is_refused(tmp_path: Path):
    check_error(lambda: jaxconf.track(tmp_path / "nowhere"), "no folder", "nowhere", "--revisions")
    check_error(lambda: jaxconf.track(tmp_path), f"{FILE} does not exist", "tracked training run")
    check_error(lambda: jaxconf.track(tmp_path, ["step0"]), "local folder")
