"""The benchmark of neuron sets: both sides compute the same, and the page has a row for each result."""

import json
from pathlib import Path

import bench_effects
import bench_sets
import cases
import effects_page
import pytest
from hub_models import TEXT, build
from plan_tables import between

HF = cases.CASES["llama-gqa"] | {"vocab_size": 262, "max_position_embeddings": 40}


def test_both_sides_agree_and_the_page_has_their_rows(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", 0, HF)
    (tmp_path / "text.txt").write_text("".join(TEXT))
    bench = bench_sets.Bench((folder,), data=tmp_path / "text.txt", windows=2, length=24, sets=3, rounds=1)
    found = bench_sets.main(bench, folder)
    assert 0 < found["error"] < 1e-4
    assert (found["set_positions"], found["size"], found["device"]) == (48, 10, bench_effects.device())
    for name in ("losses", "changes"):
        assert found[f"ratio_{name}"] == found[f"seconds_{name}_whole"] / found[f"seconds_{name}"]
    file = tmp_path / "sets.json"
    file.write_text(json.dumps(found))
    text = effects_page.page([file])
    assert text.count("| model | 10 | 48 | ") == 2
    assert between(text, effects_page.SETS, effects_page.sets([found])) == text


def test_sides_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "model", 0, HF)
    (tmp_path / "text.txt").write_text("".join(TEXT))
    monkeypatch.setattr(bench_sets, "AGREE", 1e-12)
    with pytest.raises(SystemExit, match="the sides differ by"):
        bench_sets.main(bench_sets.Bench((folder,), data=tmp_path / "text.txt", length=24, windows=2, sets=2), folder)
