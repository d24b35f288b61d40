"""The commands as a user meets them: what a run leaves behind, and what each mistake is answered with."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from commands import refusal, run
from spoilt_models import MISTAKES

from jaxconf.analysis.adaptive_softmax import HEAD
from jaxconf.analysis.metrics import COLUMNS
from jaxconf.cli.main import COMMANDS
from jaxconf.data.windows import kept_positions
from jaxconf.report.figures import FIGURES
from jaxconf.results.neuron_table import NeuronTable

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")]

TEXT = [f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(400)]
VOCABULARY, NEURONS, CONTEXT = 280, 24, 32
SMALL = f"--layers 1 --width 16 --heads 2 --neurons {NEURONS} --vocab-size {VOCABULARY} --context {CONTEXT}".split()
SMALL += "--steps 4 --batch 2".split()
TRACK = "--track.points 3 --track.tokens 100".split()
ANALYSIS = ("--tokens", 256, "--bootstrap-draws", 50)
MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


class Ran(NamedTuple):
    """A command that ended well: its folder, and what it said on standard output and on standard error."""

    folder: Path
    out: str
    err: str


def ran(folder: Path, *arguments: object) -> Ran:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        run(*arguments, "--out", folder)
    return Ran(folder, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "code.jsonl"
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXT))
    return file


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory) -> Ran:
    """A tiny model with its training run, not to be changed."""
    return ran(tmp_path_factory.mktemp("trained") / "run", "train", "tiny", *SMALL, *TRACK, "--data", text)


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory) -> Path:
    """The tiny model in Hugging Face layout, with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    for name in MODEL:
        shutil.copyfile(trained.folder / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def analysed(model, text, tmp_path_factory) -> Ran:
    """An analysis of it, not to be changed."""
    return ran(tmp_path_factory.mktemp("analysed") / "run", "analyze", model, "--data", text, *ANALYSIS)


@pytest.fixture
def copy(model, tmp_path) -> Path:
    """The tiny model again, to be spoilt."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_analyze_writes_a_whole_run(analysed, model, text):
    out, said, progress = analysed
    names = {file.name for file in out.iterdir()}
    figures = {f"{name}.png" for name in FIGURES}
    arrays = {"windows.npy", "kept.npy", "spectrum.npz"}
    assert names == figures | arrays | {
        "neurons.parquet",
        "nulls.parquet",
        "positions.parquet",
        "token_changes.parquet",
        "summary.json",
        "report.html",
    }

    windows, kept = np.load(out / "windows.npy"), np.load(out / "kept.npy")
    assert windows.dtype == np.int32
    assert windows.shape == kept.shape == (8, CONTEXT)
    assert kept.dtype == bool
    np.testing.assert_array_equal(kept, kept_positions(windows, {0}))
    frame = pd.read_parquet(out / "neurons.parquet")
    assert list(frame.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert len(frame) == NEURONS
    assert (frame["loss_abs_delta_lo"] <= frame["loss_abs_delta"]).all()
    assert (frame["loss_abs_delta"] <= frame["loss_abs_delta_hi"]).all()
    facts = NeuronTable.load(out).facts
    assert (facts["data"], facts["tokens"], facts["positions"]) == (str(text), 256, int(kept.sum()))
    assert json.loads((out / "summary.json").read_text())["facts"]["model"] == str(model)
    assert str(out / "report.html") in said.replace("\n", "")
    assert "nats" in said
    begun = ["loading the model", "reading the text", "token counts", "weights", "activations: 0 of 256"]
    stages = [line for line in progress.splitlines() if "so far" not in line]
    effects = ["activations of 1 neuron: 0 of 256", "effects: 0 of 256", "correlations: 0 of 256"]
    assert stages == [*begun, *effects, "tokens of layer 0: 0 of 256", "figures and report"]


def test_a_run_is_drawn_again_and_replaced_by_force_alone(analysed, model, text, tmp_path, capsys):
    out = Path(shutil.copytree(analysed.folder, tmp_path / "run"))
    before = (out / "neurons.parquet").read_bytes()
    assert "--force" in refusal(capsys, "analyze", model, "--data", text, "--tokens", 256, "--out", out)
    assert (out / "neurons.parquet").read_bytes() == before
    (out / "report.html").unlink()
    run("report", out / "neurons.parquet")
    assert (out / "report.html").is_file()
    other = ("--tokens", 224, "--bootstrap-draws", 50)
    run("analyze", model, "--data", text, *other, "--out", out, "--force", "--ablation", "zero")
    assert NeuronTable.load(out).facts["ablation"] == "zero"
    assert len(np.load(out / "windows.npy")) == 7
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_any_layer_sets_and_token_by_token(model, text, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("analyze", model, "--data", text, "--tokens", 64, "--out", out, "--bootstrap-draws", 9)
    how = "--layer all --set 0.1,0.2 --set 0.3 --controls 3 --per-token 0.3,0.5 --memory 300KB"
    run(*arguments, *how.split())
    assert NeuronTable.load(out).facts["layer"] == [0]
    sets = pd.read_parquet(out / "sets.parquet")
    assert sets["neurons"][[0, 4]].tolist() == ["0.1,0.2", "0.3"]
    assert len(sets) == 8
    assert pd.read_parquet(out / "per_token.parquet")["neuron"].unique().tolist() == ["0.3", "0.5"]
    assert {file.name for file in out.glob("figure_4*")} == {"figure_4.png", "figure_4_passages.png"}
    said = capsys.readouterr().out
    assert "2 neurons ablated together: 0.1,0.2" in said
    assert "Chance level of rho in layer 0" in said
    for name in ("report.html", "figure_4.png"):
        (out / name).unlink()
    run("report", out)
    assert (out / "figure_4.png").is_file()
    page = (out / "report.html").read_text()
    assert "1 neuron ablated: 0.3" in page
    assert "median of 3 random sets" in page
    assert 'id="figure_4_0.3"' in page
    assert "where ablating it raises the loss most" in page
    run(*arguments, "--force", "--layer", 0, "--frozen", "all")
    assert NeuronTable.load(out).facts["frozen_norms"] == "all"
    assert not (out / "sets.parquet").exists()
    assert "random sets" not in (out / "report.html").read_text()
    assert 'id="tokens"' not in (out / "report.html").read_text()
    assert not (out / "per_token.parquet").exists()
    assert not list(out.glob("figure_4*"))


def test_induction_writes_its_page_beside_the_other(model, text, tmp_path, capsys):
    out = tmp_path / "run"
    small = ("--length", 8, "--sequences", 3, "--tokens", 64, "--controls", 2, "--bootstrap-draws", 9)
    run("induction", model, "--data", text, *small, "--natural", "--neurons", "0.3,0.5", "--heads", "0.1", "--out", out)
    said = capsys.readouterr().out
    assert "0.3, 0.5 (chosen by name)" in said
    page = (out / "induction.html").read_text()
    assert all(words in page for words in ("Natural induction", "change only the temperature", "0.3", "data:image/png"))
    assert "The paper drops windows with a BOS or EOS inside" in said
    assert not set(page.split('"')) & {"http:", "https:"}
    stated = json.loads((out / "induction.json").read_text())
    assert stated["heads"] == ["0.1"]
    assert stated["length"] == 8
    assert stated["windows_dropped"] <= stated["windows_with_repeats"]
    tables = {file.stem for file in out.glob("induction_*.parquet")}
    assert {"induction_sets", "induction_doses", "induction_head_sets", "induction_natural_pairs"} <= tables
    assert "--force" in refusal(capsys, "induction", model, "--data", text, *small, "--out", out)
    run("induction", model, "--data", text, *small, "--random", "--out", out, "--force")
    assert not list(out.glob("induction_natural*"))
    assert json.loads((out / "induction.json").read_text())["repeated"] == "random tokens"
    arguments = ("induction", model, "--data", text, "--out", tmp_path / "other")
    assert "32 positions" in refusal(capsys, *arguments, "--length", 16)
    assert "no neuron 0.99" in refusal(capsys, *arguments, "--length", 8, "--neurons", "0.99")
    assert "from 0.0 to 0.1" in refusal(capsys, *arguments, "--length", 8, "--heads", "0.2")
    assert "such as 5.1" in refusal(capsys, *arguments, "--length", 8, "--heads", "first")
    assert "more text, or at most" in refusal(capsys, *arguments, "--length", 8, "--sequences", 100_000)
    assert "controls is -1" in refusal(capsys, *arguments, "--length", 8, "--controls", -1)
    assert not (tmp_path / "other").exists()


def test_counts_are_counted_saved_and_used(analysed, model, text, tmp_path, capsys):
    file, out = tmp_path / "counts.npy", tmp_path / "run"
    run("unigram", model, "--data", text, "--out", file)
    counts = np.load(file)
    assert counts.shape == (VOCABULARY,)
    assert f"{counts.sum():,} tokens" in capsys.readouterr().out
    run("unigram", model, "--data", text, "--out", file, "--force", "--json")
    assert json.loads(capsys.readouterr().out)["tokens"] == counts.sum()
    run("analyze", model, "--data", text, *ANALYSIS, "--out", out, "--counts", file, "--json")
    answered = json.loads(capsys.readouterr().out)
    assert answered == {"report": str(out / "report.html"), **json.loads((out / "summary.json").read_text())}
    given, default = NeuronTable.load(out), NeuronTable.load(analysed.folder)
    assert given.facts["counts"] == str(file)
    pd.testing.assert_frame_equal(given.frame, default.frame)
    assert "exists already" in refusal(capsys, "unigram", model, "--data", text, "--out", file)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_spoilt_model_is_refused(mistake, copy, text, tmp_path, capsys):
    spoil, words = MISTAKES[mistake]
    spoil(copy)
    out = tmp_path / "run"
    assert words in refusal(capsys, "analyze", copy, "--data", text, "--tokens", 64, "--out", out)
    assert not out.exists()


def test_other_mistakes_are_refused(model, text, tmp_path, capsys, monkeypatch):
    short, counts, file = tmp_path / "short.txt", tmp_path / "counts.npy", tmp_path / "file"
    short.write_text("too short")
    np.save(counts, np.ones(VOCABULARY + 3, np.int64))
    file.write_text("")
    arguments = ("analyze", model, "--tokens", 64)
    run_out = ("--out", tmp_path / "run")
    assert "no folder" in refusal(capsys, "analyze", tmp_path / "nowhere", *run_out)
    assert "one window" in refusal(capsys, *arguments, "--data", short, *run_out)
    assert str(VOCABULARY) in refusal(capsys, *arguments, "--data", text, "--counts", counts, *run_out)
    assert "file is a file, not a folder" in refusal(capsys, *arguments, "--data", text, "--out", file / "run")
    assert "nothing.txt" in refusal(capsys, *arguments, "--data", tmp_path / "nothing.txt", *run_out)
    assert "--tokens" in refusal(capsys, "analyze", model, "--tokens", 0, "--data", text, *run_out)
    assert "is a folder" in refusal(capsys, "unigram", model, "--data", text, "--out", tmp_path, "--force")
    assert "such as 4GB" in refusal(capsys, *arguments, "--data", text, "--memory", "much", *run_out)
    assert "no neuron 9.0" in refusal(capsys, *arguments, "--data", text, "--set", "9.0", *run_out)
    assert "such as 11.584" in refusal(capsys, *arguments, "--data", text, "--per-token", "nine", *run_out)
    with monkeypatch.context() as patched:  # none of these waits for the text
        patched.setattr("jaxconf.data.windows.windows", None)
        assert "1 layer; give 0, last or all" in refusal(capsys, *arguments, "--data", text, "--layer", 2, *run_out)
        adaptive = "--data", text, "--engine", "adaptive"
        assert f"more than {HEAD} tokens" in refusal(capsys, *arguments, *adaptive, *run_out)
        assert "null-space size" in refusal(capsys, *arguments, "--data", text, "--k", 99, *run_out)
        assert "above 0" in refusal(capsys, *arguments, "--data", text, "--tolerance", 0, *run_out)
        assert "at least 0" in refusal(capsys, *arguments, "--data", text, "--bootstrap-draws", -1, *run_out)
    assert "another --profile" in refusal(capsys, *arguments, "--data", text, "--profile", file, *run_out)
    assert "another --profile" in refusal(capsys, *arguments, "--data", text, "--profile", file / "x", *run_out)
    assert not (tmp_path / "run").exists()
    assert "neurons.parquet" in refusal(capsys, "report", tmp_path)
    assert "held out do not fill" in refusal(
        capsys, "train", "tiny", "--data", short, "--vocab-size", 257, "--out", tmp_path / "trained"
    )


def test_train_and_track(trained, text, tmp_path, capsys):
    assert "Held-out loss" in trained.out
    assert "Measuring took" in trained.out
    out = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    assert "--resume" in refusal(capsys, "train", "tiny", *SMALL, *TRACK, "--data", text, "--out", out)
    for picture in out.glob("emergence_*.png"):
        picture.unlink()
    run("track", out)
    drawn = {file.name for file in out.glob("emergence_*.png")}
    assert drawn == {f"emergence_{name}.png" for name in ("spectrum", "rho", "first", "series", "events")}
    assert (out / "emergence.html").is_file()
    assert "chance" in (said := capsys.readouterr().out)
    run("track", out, "--json")
    answered = json.loads(capsys.readouterr().out)
    assert answered["page"] == str(out / "emergence.html")
    assert all(sentence in said for sentence in answered["verdict"])


@pytest.mark.slow
def test_a_grid_from_the_command_line(text, tmp_path, capsys):
    out = tmp_path / "grid"
    varied = "--vary weight_decay=0,0.5 --vary z-loss=0,0.01 --seeds 2"
    run("train", "tiny", *SMALL, *TRACK, "--data", text, "--out", out, *varied.split())
    table = pd.read_parquet(out / "study.parquet")
    assert len(table) == 8
    assert set(zip(table["weight_decay"], table["z_loss"], strict=True)) == {(0, 0), (0, 0.01), (0.5, 0), (0.5, 0.01)}
    (out / "study.png").unlink()
    capsys.readouterr()
    run("track", out)
    assert (out / "study.png").is_file()
    assert "8 models" in capsys.readouterr().out


def test_an_existing_tokenizer_is_used(model, text, tmp_path, capsys):
    out = tmp_path / "run"
    run("train", "tiny", *SMALL, "--track.points", 0, "--data", text, "--out", out, "--tokenizer", model)
    assert (out / "tokenizer.json").read_text() == (model / "tokenizer.json").read_text()
    small = [*SMALL, "--vocab-size", 270]
    assert "280" in refusal(
        capsys, "train", "tiny", *small, "--data", text, "--out", tmp_path / "other", "--tokenizer", model
    )


def test_mistakes_in_training_and_tracking(model, text, tmp_path, capsys):
    out = ("--data", text, "--out", tmp_path / "run")
    assert "the nearest is 'tiny'" in refusal(capsys, "train", "tinny", *out)
    assert "the nearest is 'weight_decay'" in refusal(capsys, "train", "tiny", *out, "--vary", "weight_decoy=1,2")
    said = refusal(capsys, "train", "tiny", *out, "--width", 96, "--heads", 5)
    assert "96" in said
    assert "5 heads" in said
    assert "seeds is 0" in refusal(capsys, "train", "tiny", *out, "--seeds", 0)
    assert "checkpoint_every is 0" in refusal(capsys, "train", "tiny", *out, "--checkpoint-every", 0)
    assert "k is 96" in refusal(capsys, "train", "tiny", *out, "--track.k", 96)
    assert "track.tokens is 0" in refusal(capsys, "train", "tiny", *out, "--track.tokens", 0)
    assert "holds a tokenizer" in refusal(capsys, "train", "tiny", *out, "--tokenizer", tmp_path / "nowhere")
    assert "axes, which are data and model" in refusal(capsys, "train", "tiny", *out, "--mesh", "rows=2")
    assert "a batch of 6 sequences cannot be split" in refusal(
        capsys, "train", "tiny", *out, "--mesh", "data=4", "--batch", 6
    )
    assert "JAX sees 8" in refusal(capsys, "train", "tiny", *out, "--mesh", "data=16,model=1")
    assert "split evenly over data=4" in refusal(
        capsys, "train", "tiny", *out, "--mesh", "data=4", "--batch", 6, "--vary", "weight_decay=0,1"
    )
    assert not (tmp_path / "run").exists()
    assert "no folder" in refusal(capsys, "track", tmp_path / "nowhere")
    assert "emergence.parquet" in refusal(capsys, "track", model)
    assert "local folder" in refusal(capsys, "track", model, "--revisions", "step0", "--out", tmp_path / "track")
    assert not (tmp_path / "track").exists()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "study.json").write_text("{")
    assert "study.json" in refusal(capsys, "track", unfinished)


def test_a_misspelt_option_names_the_nearest_of_its_command(capsys, tmp_path):
    for arguments, nearest in (
        (["train", "tiny", "--weigth-decay", "0", "--out", tmp_path / "run"], "the nearest is --weight-decay"),
        (
            ["train", "tiny", "--track.tokns=5", "--out", tmp_path / "run"],
            "no option --track.tokns; the nearest is --track.tok",
        ),
        (["analyze", "--token", "5"], "analyze has no option --token; the nearest is --tokens"),
        (["sweep", "x.toml", "--try", "2"], "the nearest is --tries"),
        (["sweep", "report", tmp_path, "--out", "x"], "sweep report has no option --out; jaxconf sweep report --help"),
        (["analyze", "bundled", "extra"], "no use for the argument 'extra'; leave it out, or"),
        (["report", tmp_path, "extra"], "leave it out"),
        (["models", "gpt2", "llama"], "models takes no arguments; leave out 'gpt2 llama'"),
        (["analyse"], "the nearest is 'analyze'"),
        (["sweep-reports"], "the nearest is 'sweep report'"),
        (["-x"], "no option '-x'"),
        ([], "no command is given"),
    ):
        assert nearest in refusal(capsys, *arguments)


def test_wrong_values_and_missing_models_are_explained(capsys):
    for arguments, words in (
        (["analyze", "--layer", "first"], "'first' is no layer; give a whole number counted from 0, last or all"),
        (["compare"], "one or more TUNED models"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == 2
        said = capsys.readouterr().err.replace("│", " ")
        assert words in " ".join(said.split())


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--version")
    assert not stopped.value.code
    assert capsys.readouterr().out == f"jaxconf {version('jaxconf')}\n"


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert not stopped.value.code
    said = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"\n  {name.replace('-', ' ')} " in said
        assert command.__doc__.partition("\n\n")[0].split()[-1] in said


def test_the_command_itself(tmp_path):
    """As a process: exit code, and a mistake answered without a traceback."""
    out = ["--out", str(tmp_path / "runs" / "counts.npy")]
    command = [sys.executable, "-m", "jaxconf", "unigram", str(tmp_path / "nowhere"), "--quiet", *out]
    nowhere = subprocess.run(command, capture_output=True, text=True, check=False)
    assert nowhere.returncode == 2
    assert nowhere.stderr.startswith("jaxconf: no folder")
    assert nowhere.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_written_while_the_command_runs(model, tmp_path):
    """The text is a pipe, which the command waits for."""
    text, log = tmp_path / "text.txt", tmp_path / "log"
    os.mkfifo(text)
    command = [sys.executable, "-m", "jaxconf", "unigram", model, "--data", text, "--out", tmp_path / "counts.npy"]
    with log.open("w") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 120
        while log.read_text() != "token counts\n" and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert log.read_text() == "token counts\n"
        text.write_text("def f(x): return x")
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    assert "ids seen" in log.read_text()
