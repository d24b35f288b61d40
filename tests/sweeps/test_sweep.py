"""Sweeps: what their files may say, what the commands do, and that a disturbed sweep is as an undisturbed one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import SCRIPTS, refusal
from hub_models import TEXT, build
from refusals import check_error
from sweeps import RECORDED, copied, write

from jaxconf.analysis.ablation import Ablation
from jaxconf.cli import main
from jaxconf.measure.run import parse
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import COUNT_FACTS
from jaxconf.runtime.lock import locked
from jaxconf.sweeps.cells import LOCK, statuses
from jaxconf.sweeps.definition import options_of, read_sweep
from jaxconf.sweeps.report import doubts, sweep_report

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")
ABLATIONS = ("mean", "median", "mode", "min", "mean+3std", "mean-3std", "zero", "clip")


def test_cells_are_the_product_of_the_lists(tmp_path: Path) -> None:
    lists = 'models = ["a/b", "c"]\nrevisions = ["step1", "step2"]\nlayers = ["last", 3]\n'
    cells = read_sweep(write(tmp_path, f"{lists}[options]\ntokens = 512\ntolerance = 1\n"))
    assert len(cells) == 8
    assert next(iter(cells)) == "0000-b-step1-last"
    assert cells["0007-c-step2-3"] == {"tokens": 512, "tolerance": 1, "model": "c", "revision": "step2", "layer": 3}


def test_local_models_and_texts_are_named_for_any_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("noise", "own", "stdlib", "bundled", "text.txt"):
        (tmp_path / name).mkdir()
    lists = 'models = ["noise", "bundled", "a/b"]\n'
    lists += 'data = ["noise", "own", "stdlib", "text.txt", "noise:seed=1", "text.txt:split=a"]\n'
    cells = read_sweep(write(tmp_path, lists)).values()
    assert {cell["model"] for cell in cells} == {str(tmp_path / "noise"), "bundled", "a/b"}
    texts = {str(tmp_path / "text.txt"), str(tmp_path / "text.txt:split=a")}
    assert {cell["data"] for cell in cells} == {"noise", "own", "stdlib", "noise:seed=1"} | texts


def test_the_value_of_all_ablations_goes_to_those_that_take_one(tmp_path: Path) -> None:
    lists = 'models = ["a"]\nablations = ["mean", "fixed", "zero", "scale"]\n[options]\nablation_value = 2.0\n'
    asked = read_sweep(write(tmp_path, lists)).values()
    ablations = [parse(options_of(cell, tmp_path)).ablation for cell in asked]
    assert ablations == [Ablation(), Ablation("fixed", 2.0), Ablation("zero"), Ablation("scale", 2.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models = [", "not valid TOML"),
        ("model = ['a']", "'models'"),
        ("layers = [1]", "names no models"),
        ("models = []", "give a list"),
        ("models = ['a', 'a']", "each value once"),
        ("models = 'a'", "give a list, such as models = ['a']"),
        ("models = [1]", "the model 1"),
        ("models = ['a']\ndata = ['noise:wrods=3']", "the nearest is 'words'"),
        ("models = ['a']\nablations = ['medium']", "'medium'"),
        ("models = ['a']\nlayers = [true]", "the layer True"),
        ("models = ['a']\nlayers = ['first']", "'first'; give a whole number or 'last' or 'all'"),
        ("models = ['a']\n[options]\ntoken = 3", "'tokens'"),
        ("models = ['a']\n[options]\nlayer = 3", "'layer'"),
        ("models = ['a']\n[options]\ntokens = 'many'", "'many'; give a whole number"),
        ("models = ['a']\n[options]\nengine = 'fast'", "'fast'"),
        ("models = ['a']\n[options]\nset = '11.584'", "'11.584'; give a list in which each entry is a string"),
        ("models = ['a']\n[options]\nseed = true", "seed of"),
        ("models = ['a']\noptions = 3", "[options]"),
        ("models = ['a']\n[options]\nablation_value = 2.0", "ablation_value, which only fixed, scale, clip take"),
        ("models = ['a']\nablations = ['zero']\n[options]\nablation_value = 2.0", "leave the value out"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    check_error(lambda: read_sweep(write(tmp_path, text)), words)


def test_scripts_are_sound() -> None:
    """By shellcheck, which the test extra brings."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, *SCRIPTS.glob("*.sh")], check=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a text, and a sweep's file with two cells."""
    folder = tmp_path_factory.mktemp("small")
    build(folder / "model", 0)
    (folder / "text.txt").write_text("".join(TEXT))
    lists = f"models = ['{folder / 'model'}']\ndata = ['{folder / 'text.txt'}']\nablations = ['mean', 'zero']\n"
    (folder / "few.toml").write_text(f"{lists}[options]\ntokens = 256\nbootstrap_draws = 20\nnulls = 0\n")
    return folder


@pytest.mark.command
def test_a_sweep_and_its_report(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, few = tmp_path / "out", (small / "few.toml").read_text()
    nowhere = tmp_path / "nowhere"
    missing = few.replace("models = [", f"models = ['{nowhere}', ")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(write(tmp_path, missing)), "--out", str(out), "--tries", "2"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "2 of 4 cells are finished" in said.out
    assert said.out.count(f"nowhere-text.txt-mean: failed, no folder {nowhere}") == 2
    assert f"jaxconf: 2 of 4 cells failed:\n  0000-nowhere-text.txt-mean: no folder {nowhere}" in said.err
    assert f"\n  0001-nowhere-text.txt-zero: no folder {nowhere}" in said.err
    main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(out), "--status", "--tries", "2"])
    assert "2 finished, 0 running, 0 waiting, 2 failed" in capsys.readouterr().out
    assert len(list((out / "counts").glob("*.npz"))) == 1  # the tokens are counted once
    main(["sweep", "report", str(out)])
    said = capsys.readouterr()
    assert "2 of 4 cells are not finished" in said.out
    assert str(out / "sweep.html") in said.out

    joined = pd.read_parquet(out / "sweep.parquet")
    assert list(joined.groupby(["cell", "ablation"]).size()) == [56, 56]
    (file,) = (out / "sweep.parquet").glob("model=*/*.parquet")
    written = pq.ParquetFile(file)
    facts = json.loads(written.schema_arrow.metadata[b"jaxconf"])
    assert written.num_row_groups == 2
    for group, name in enumerate(sorted(joined["cell"].unique())):
        single = NeuronTable.load(out / "cells" / name)
        own = joined[joined["cell"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[list(single.frame)], single.frame.reset_index(drop=True))
        assert (own[list(COUNT_FACTS)] == [single.facts[column] for column in COUNT_FACTS]).all(axis=None)
        assert facts[group] == {"cell": name, **single.facts}
        assert set(written.read_row_group(group)["cell"].to_pylist()) == {name}
    page = (out / "sweep.html").read_text()
    assert page.count("<tr id=") == 2
    for name in joined["cell"].unique():
        assert f'href="cells/{name}/report.html"' in page

    for text, arguments, words in (
        (missing, ["--tries", "0"], "--tries"),
        (missing.replace("'zero'", "'median'"), [], "another definition"),
        (few + "memory = 'lots'\n", ["--out", str(tmp_path / "other")], "--memory is 'lots'"),
        (few, ["--out", str(tmp_path / "third"), "--status"], "no sweep of"),
        (missing, ["--workers", "2", "--slurm", "gpus=1"], "--workers and --slurm name different workers"),
        (missing, ["--workers", "0"], "give at least 1"),
    ):
        assert words in refusal(capsys, "sweep", write(tmp_path, text), "--out", str(out), *arguments)
    with locked(out / LOCK):
        assert "another jaxconf sweep" in refusal(capsys, "sweep", write(tmp_path, missing), "--out", str(out))


def test_cells_with_an_uncertain_frequency_direction_are_named() -> None:
    columns = {"counts_tokens": [10, 10, 20, 99, None], "counts_cosine": [0.5, 0.5, 0.899, 0.9, None]}
    joined = pd.DataFrame({"cell": list("abcde"), **columns}).loc[[0, 0, 1, 2, 2, 3, 4]]
    first, second = doubts(joined)
    assert first.startswith("a, b: ")
    assert all(part in first for part in ("10 tokens", "0.50"))
    assert second.startswith("c: ")
    assert "20 tokens" in second


def test_a_sweep_of_the_version_before_is_joined(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    shutil.copytree(RECORDED, out)
    joined = sweep_report(out)
    recorded = pd.read_parquet(RECORDED / "sweep.parquet")
    pd.testing.assert_frame_equal(joined[list(recorded)], recorded)
    assert joined.drop(columns=list(recorded)).isna().all(axis=None)  # what that version did not measure
    assert (out / "sweep.html").read_text().count("<tr id=") == 2
    again = pd.read_parquet(out / "sweep.parquet")  # a folder, where that version wrote a file
    assert sorted(again["cell"].unique()) == sorted(recorded["cell"].unique())


@pytest.mark.slow
def test_a_disturbed_sweep_is_as_an_undisturbed_one(small: Path, tmp_path: Path) -> None:
    """24 analyses by three workers, ten of which are killed, as is the command; and the same by three left alone."""
    models = [small / "model", *(copied(small / "model", tmp_path / f"copy{i}") for i in range(2))]
    lists = f"models = {[str(model) for model in models]}\nablations = {list(ABLATIONS)}\n"
    options = "[options]\ntokens = 256\nbootstrap_draws = 20\nnulls = 0\n"
    file = write(tmp_path, f"{lists}data = ['{small / 'text.txt'}']\n{options}")
    names, undisturbed, out = list(read_sweep(file)), tmp_path / "0" / "sweep", tmp_path / "1" / "sweep"
    assert len(names) == 24
    support = Path(__file__).parents[1] / "support"
    environment = {
        **os.environ,
        "DASK_DISTRIBUTED__WORKER__PRELOAD": "blank_figures",
        "PYTHONPATH": os.pathsep.join([str(support), *sys.path]),
    }

    def start(out: Path = out) -> subprocess.Popen[str]:
        how = ["sweep", str(file), "--out", str(out), "--workers", "3", "--tries", "5"]
        command = [sys.executable, "-m", "jaxconf", *how]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def at_work() -> list[int]:
        found = statuses(names, out, 5).values() if out.is_dir() else ()
        return [int(status.worker.rpartition(":")[2]) for status in found if status.worker]

    command, rng, killed = start(), random.Random(1), list[int]()
    while len(killed) < 10:
        time.sleep(rng.uniform(1, 5))
        assert command.poll() is None, command.communicate()
        if pids := [pid for pid in at_work() if pid not in killed]:
            killed.append(rng.choice(pids))
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed[-1], signal.SIGKILL)
            if len(killed) == 5:
                command.kill()
                command.communicate()
                command = start()
    said = command.communicate(timeout=900)
    assert command.returncode == 0, said
    assert start(undisturbed).wait(timeout=900) == 0
    for folder in (undisturbed, out):
        assert sorted(path.name for path in (folder / "cells").iterdir()) == names
        assert not list((folder / "attempts").glob(".*"))
        main(["sweep", "report", str(folder)])
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "sweep.parquet") for folder in (undisturbed, out)))
    assert (undisturbed / "sweep.html").read_bytes() == (out / "sweep.html").read_bytes()
