"""A whole analysis as a function: the same as its parts, and mistakes that are found before the weights are loaded."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hub_models import build
from refusals import check_error
from world_text import model_of

from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.data.windows import windows
from jaxconf.measure import run as module
from jaxconf.measure.analyze import analyze
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.measure.run import run
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import NeuronPages, paged
from jaxconf.runtime.placement import load_placed
from jaxconf.training.browse import browse

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text("".join(f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(200)))
    return str(file)


@pytest.mark.command
def test_it_is_what_its_parts_are(text: str, tmp_path: Path) -> None:
    out, stages, model = tmp_path / "run", [], str(build(tmp_path / "model", 0))
    options = AnalyzeOptions(
        model, data=text, tokens=80, out=out, bootstrap_draws=5, ablation="zero", layer=1, browse=True, neurons=2
    )
    table = run(options, lambda what, done, total: stages.append(what))
    lm = load_placed(model, None, None, lambda sentence: None)
    counts = count_tokens(documents(text), lm.tokenizer, lm.config.vocab_size)
    tokens = windows(documents(text), lm.tokenizer, 80, lm.config.n_positions)
    np.testing.assert_array_equal(np.load(out / "windows.npy"), tokens.tokens)
    parts = analyze(lm, tokens, counts=counts, bootstrap_draws=5, ablation=module.Ablation("zero"))
    pd.testing.assert_frame_equal(table.frame, parts.frame)
    pd.testing.assert_frame_equal(table.frame, NeuronTable.load(out).frame)
    assert (table.facts["model"], table.facts["data"]) == (model, text)
    assert list(dict.fromkeys(stages))[-6:] == [
        *("effects", "correlations", "tokens of layer 1", "pages of layer 1", "figures and report", "site")
    ]
    means = table.token_changes.groupby("neuron").mean()
    assert len(means) >= 12  # the nearest to each rule, and others
    for column in means:
        np.testing.assert_allclose(means[column], table.to_pandas().loc[means.index, column], atol=1e-5)
    check_error(lambda: run(options), "exists already")
    before = NeuronPages.load(out)
    assert before.names == paged(table, 2)
    assert (
        browse(out, neurons=3) == out / "site" / "index.html"
    )  # which measures a third one, with the model of the run
    after = NeuronPages.load(out)
    assert after.names == paged(table, 3)
    pd.testing.assert_frame_equal(after.some(before.names).passages, before.passages, check_like=True)
    run(dataclasses.replace(options, browse=False, force=True))
    assert not [name for name in ("site", "pages.parquet", "passages.parquet") if (out / name).exists()]


def test_counts_of_another_tokenizer_are_found_before_the_weights_are_loaded(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_placed", None)
    np.save(tmp_path / "counts.npy", np.ones(100, int))
    model = str(build(tmp_path / "model", 0))
    options = AnalyzeOptions(model, data=text, tokens=80, out=tmp_path / "run", counts=tmp_path / "counts.npy")
    check_error(lambda: run(options), "counts.npy has 100 counts, fewer than the 262 tokens")


def test_text_of_another_world_is_found_before_the_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_placed", None)
    model = str(model_of("noise", tmp_path / "model"))
    options = AnalyzeOptions(model, data="stdlib", tokens=80, out=tmp_path / "run")
    check_error(lambda: run(options), "was trained on 'noise'", "the text is 'stdlib'; give --data noise")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"layer": 7}, "layer is 7"),
        ({"k": 10**6}, "null-space size"),
        ({"set": ("7.0",)}, "no neuron 7.0 (neuron 0 of layer 7)"),
        ({"set": ("seven",)}, "--set is 'seven'"),
        ({"per_token": "0.1,0.1"}, "neuron 0.1 is named more than once in --per-token"),
        ({"data": "nowhere.txt"}, "nowhere.txt"),
        ({"data": "noise:words=64"}, "the text is 'noise:words=64'; give --data noise"),
        ({"data": "noise:wrods=2"}, "the nearest is 'words'"),
        ({"counts": Path("nowhere.npy")}, "nowhere.npy"),
        ({"tokens": 0}, "--tokens is 0"),
        ({"memory": "much"}, "--memory is 'much'"),
        ({"ablation": "fixed"}, "--ablation-value"),
        ({"browse": True, "neurons": -1}, "neurons is -1"),
        ({"browse": True, "components": "heads"}, "--browse makes pages of neurons"),
        ({"ablation_value": 0.5}, "ablation mean has the value 0.5, but takes none; leave it out"),
        ({"tokens": 10}, "tokens is 10, but one window has 64; give at least 64"),
        ({"max_q": 2.0}, "max_q is 2"),
        ({"nulls": 7}, "nulls is 7"),
        ({"model": "no such model"}, "no such model"),
    ],
)
def test_mistakes_are_found_before_the_weights_are_loaded(
    mistake: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_placed", None)
    options = AnalyzeOptions(tokens=512, out=tmp_path / "runs" / "run")
    check_error(lambda: run(dataclasses.replace(options, **mistake)), words)
    assert not (tmp_path / "runs").exists()
