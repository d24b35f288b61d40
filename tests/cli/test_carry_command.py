"""`jaxconf carry` as a user gives it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import refusal, run
from hub_models import build

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")]

SMALL = ("--tokens", 1280, "--effects", 128, "--controls", 2, "--bootstrap-draws", 9)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A random model, and two texts of many documents each."""
    folder = tmp_path_factory.mktemp("places")
    texts = [folder / name for name in ("code.jsonl", "prose.jsonl")]
    for text, template in zip(
        texts, ("def f{0}(x):\n    return x * {0} + {1}\n", "There were {0} of {1}.\n"), strict=True
    ):
        rows = [{"text": template.format(i, i % 7) * 3} for i in range(300)]
        text.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(folder / "model", 0), texts


def test_several_texts_and_sets_have_one_page(places, tmp_path, capsys):
    model, texts = places
    data, out = [word for text in texts for word in ("--data", text)], tmp_path / "run"
    run("carry", model, *data, *SMALL, "--set", "1.3,1.5", "--set", "1.2", "--out", out)
    said = capsys.readouterr().out
    assert "On code.jsonl: The set 1.3, 1.5" in said
    assert "On prose.jsonl: The set 1.2" in said
    assert str(out / "carry.html") in said.replace("\n", "")
    stated = json.loads((out / "carry.json").read_text())
    assert stated["sets"] == {"1.3,1.5": ["1.3", "1.5"], "1.2": ["1.2"]}
    assert stated["named_by"] == "the user"
    assert set(stated["texts"]) == set(map(str, texts))
    table = pd.read_parquet(out / "carry_carrying.parquet")
    assert set(table["data"]) == set(map(str, texts))
    assert np.isfinite(table.loc[table["value"] == "entropy", "r2"]).all()
    page = (out / "carry.html").read_text()
    assert "Causal but Not Carrier" in page
    assert not set(page.split('"')) & {"http:", "https:"}
    assert "--force" in refusal(capsys, "carry", model, *data, *SMALL, "--out", out)


def test_mistakes_are_refused(places, tmp_path, capsys):
    model, texts = places
    given = ("carry", model, "--data", texts[0], "--out", tmp_path / "run")
    assert "last layer" in refusal(capsys, *given, *SMALL, "--set", "0.1")
    assert "such as 11.584" in refusal(capsys, *given, *SMALL, "--set", "first")
    assert "no option --runn; the nearest is --run" in refusal(capsys, *given, "--runn", tmp_path)
    assert "neurons.parquet" in refusal(capsys, *given, *SMALL, "--run", tmp_path)
    assert "tokens is 0" in refusal(capsys, *given, "--tokens", 0)
    assert "give each text once" in refusal(capsys, *given, "--data", texts[0], *SMALL, "--set", "1.2")
    assert not (tmp_path / "run").exists()
