"""--text-column, which every command that reads text has, and what is said of rows that hold none."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import options_of, refusal, run
from hub_models import build

from jaxconf.cli.main import COMMANDS

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")]

STATEMENTS = "rel_p_id,statement_subject,statement_relation,statement_object\n"
STATEMENTS += "P36,France,has the capital,Paris\nP36,Italy,has the capital,Rome\n"
TINY = "--layers 1 --width 16 --heads 2 --neurons 24 --vocab-size 280 --context 32 --steps 2 --batch 2".split()
ARGUMENTS = {
    "analyze": ["MODEL", "--data", "TEXT"],
    "induction": ["MODEL", "--data", "TEXT", "--length", 4],
    "compare": ["MODEL", "OTHER", "--data", "TEXT"],
    "universal": ["MODEL", "OTHER", "--data", "TEXT"],
    "carry": ["MODEL", "--data", "TEXT"],
    "steer": ["MODEL", "--data", "TEXT"],
    "copying": ["MODEL", "--data", "STATEMENTS", "--text", "TEXT"],
    "tasks": ["MODEL", "--data", "QUESTIONS", "--text", "TEXT"],
    "unigram": ["MODEL", "--data", "TEXT"],
    "train": ["tiny", *TINY, "--data", "TEXT"],
    "track": ["owner/model", "--revisions", "step1", "--data", "TEXT"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("places")
    rows = [f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(400)]
    pq.write_table(pa.table({"id": range(402), "body": [None, *rows, None]}), folder / "text.parquet")
    (folder / "statements.csv").write_text(STATEMENTS)
    (folder / "questions.csv").write_text("question,answer\nThe capital of Italy is,Rome\n")
    models = {name: build(folder / name.lower(), seed) for seed, name in enumerate(("MODEL", "OTHER"))}
    files = {"TEXT": "text.parquet", "STATEMENTS": "statements.csv", "QUESTIONS": "questions.csv"}
    return {**models, **{name: folder / file for name, file in files.items()}}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_column_reaches_the_text_of_every_command(name, places, tmp_path, capsys):
    given = [places.get(str(word), word) for word in ARGUMENTS[name]]
    said = refusal(capsys, name, *given, "--out", tmp_path / "out", "--text-column", "bodi")
    assert 'text.parquet has no column "bodi"; the nearest is "body", and all are id, body' in said


def test_every_command_that_reads_text_has_the_option():
    assert {name for name, command in COMMANDS.items() if "text_column" in options_of(command)} == ARGUMENTS.keys()


def test_rows_without_text_are_said_and_stand_in_the_record(places, tmp_path, capsys):
    run("unigram", places["MODEL"], "--out", tmp_path / "counts.npy", "--data", f"{places['TEXT']}:column=body")
    assert "2 rows without text were skipped." in capsys.readouterr().out
    assert np.load(tmp_path / "counts.npy").sum() > 0
    run("train", "tiny", *TINY, "--out", tmp_path / "run", "--data", places["TEXT"], "--text-column", "body")
    assert "2 rows without text were skipped." in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "train.json").read_text())["result"]["rows_skipped"] == 2
