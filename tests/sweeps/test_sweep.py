"""Sweeps: what their files may say, and that every cell finishes once, whatever becomes of the workers."""

import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import SCRIPTS, refusal, script
from hub_models import TEXT, build
from refusals import check_error
from sweeps import RECORDED, cells, copied, worker, write

from jaxconf.analysis.ablation import Ablation
from jaxconf.cli import main
from jaxconf.measure.run import parse
from jaxconf.models.errors import InputError
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import COUNT_FACTS
from jaxconf.sweeps import queue as module
from jaxconf.sweeps.definition import Sweep, define, defined, options_of, read_sweep
from jaxconf.sweeps.page import doubts, sweep_report
from jaxconf.sweeps.queue import statuses, work
from jaxconf.sweeps.run import sweep_status

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")


def test_cells_are_the_product_of_the_lists(tmp_path: Path) -> None:
    lists = 'models = ["a/b", "c"]\nrevisions = ["step1", "step2"]\nlayers = ["last", 3]\n'
    cells = read_sweep(write(tmp_path, f"{lists}[options]\ntokens = 512\ntolerance = 1\n")).cells
    assert len(cells) == 8
    assert next(iter(cells)) == "0000-b-step1-last"
    assert cells["0007-c-step2-3"] == {"tokens": 512, "tolerance": 1, "model": "c", "revision": "step2", "layer": 3}


def test_local_models_and_texts_are_named_for_any_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("noise", "own", "stdlib", "bundled", "text.txt"):
        (tmp_path / name).mkdir()
    lists = 'models = ["noise", "bundled", "a/b"]\n'
    lists += 'data = ["noise", "own", "stdlib", "text.txt", "noise:seed=1", "text.txt:split=a"]\n'
    cells = read_sweep(write(tmp_path, lists)).cells.values()
    assert {cell["model"] for cell in cells} == {str(tmp_path / "noise"), "bundled", "a/b"}
    texts = {str(tmp_path / "text.txt"), str(tmp_path / "text.txt:split=a")}
    assert {cell["data"] for cell in cells} == {"noise", "own", "stdlib", "noise:seed=1"} | texts


def test_the_value_of_all_ablations_goes_to_those_that_take_one(tmp_path: Path) -> None:
    lists = 'models = ["a"]\nablations = ["mean", "fixed", "zero", "scale"]\n[options]\nablation_value = 2.0\n'
    asked = read_sweep(write(tmp_path, lists)).cells.values()
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


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    one, other = Sweep({"a": {"model": "a"}}), Sweep({"b": {"model": "b"}})
    check_error(lambda: defined(tmp_path), "holds no sweep")
    check_error(lambda: defined(tmp_path / "nowhere"), "there is no folder")
    define(one, tmp_path / "sweep")
    define(one, tmp_path / "sweep")
    check_error(lambda: define(other, tmp_path / "sweep"), "another definition", "--out")
    assert defined(tmp_path / "sweep") == one
    check_error(lambda: read_sweep(tmp_path / "nowhere.toml"), "cannot be read")


def test_failures_are_recorded_and_tried_again(tmp_path: Path) -> None:
    sweep, said, ran = cells(4), [], []
    define(sweep, tmp_path)

    def run(name: str, folder: Path) -> None:
        ran.append(name)
        folder.mkdir()
        if name == "01" and ran.count("01") < 3:
            raise InputError("there is no such model; give another")
        if name == "02":
            raise RuntimeError("out of luck")
        (folder / "run").touch()

    found = work(sweep, tmp_path, run, 3, 10.0, said.append)
    assert [status.state for status in found.values()] == ["finished", "finished", "failed", "finished"]
    assert (found["02"].attempts, found["02"].message) == (3, "RuntimeError: out of luck")
    assert found["01"].attempts == 3
    assert sorted(ran) == ["00", "01", "01", "01", "02", "02", "02", "03"]
    assert sum("there is no such model" in line for line in said) == 2
    assert {path.name for path in (tmp_path / "cells").iterdir()} == {"00", "01", "03"}
    assert not list((tmp_path / "queue").glob("*.work"))
    assert work(sweep, tmp_path, run, 3, 10.0, said.append) == found  # and nothing is done again
    assert len(ran) == 8


def test_the_silent_are_followed_and_lose_what_they_bring_late(tmp_path: Path) -> None:
    """A worker that was thought dead comes back while another has its cell, and after another has finished it."""
    sweep, said = cells(1), []
    define(sweep, tmp_path)

    def late(name: str, folder: Path) -> None:
        """Silent for so long that a second worker does the cell."""
        folder.mkdir()
        (folder / "kept").write_text("first")
        claim = folder.with_name("00.1.claim")
        os.utime(claim, (1, 1))
        found = statuses(sweep, tmp_path, 3, 10.0)
        assert (found["00"].state, found["00"].attempts) == ("waiting", 1)
        work(sweep, tmp_path, second, 3, 10.0, said.append)

    def second(name: str, folder: Path) -> None:
        assert (folder / "kept").read_text() == "first"  # what was there is taken over
        (folder / "run").write_text("second")

    work(sweep, tmp_path, late, 3, 10**6, said.append)
    assert (tmp_path / "cells" / "00" / "run").read_text() == "second"
    assert said[0].startswith("00: finished")
    assert said[1] == "00: another worker has it"
    assert statuses(sweep, tmp_path, 3, 10.0)["00"].state == "finished"


def test_an_interrupted_cell_is_given_back(tmp_path: Path) -> None:
    sweep, ran = cells(1), []
    define(sweep, tmp_path)

    def run(name: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        ran.append(sorted(path.name for path in folder.iterdir()))
        (folder / "part").touch()
        (folder / ".half.tmp").mkdir(exist_ok=True)
        if len(ran) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(sweep, tmp_path, run, 1, 10.0, print)
    assert statuses(sweep, tmp_path, 1, 10.0)["00"].state == "waiting"
    assert work(sweep, tmp_path, run, 1, 10.0, print)["00"].state == "finished"
    assert ran == [[], [".half.tmp", "part"]]
    assert [path.name for path in (tmp_path / "cells" / "00").iterdir()] == ["part"]


def test_what_was_not_tried_comes_before_what_failed(tmp_path: Path) -> None:
    ran = []

    def run(name: str, folder: Path) -> None:
        ran.append(name)
        folder.mkdir()
        if name == "00":
            raise SystemExit(1)

    define(cells(3), tmp_path)
    found = work(cells(3), tmp_path, run, 2, 10.0, print)
    assert ran == ["00", "01", "02", "00"]
    assert found["00"].message == "SystemExit: 1"


def test_a_worker_counts_as_dead_by_its_own_patience(tmp_path: Path) -> None:
    sweep, now = cells(1), time.time()
    define(sweep, tmp_path)
    claim = tmp_path / "queue" / "00.1.claim"
    claim.write_text(json.dumps({"worker": "host:1", "patience": 100, "begun": now - 300}))
    for silent, state in ((50, "running"), (150, "waiting")):
        os.utime(claim, (now - silent, now - silent))
        assert statuses(sweep, tmp_path, 3, 10.0)["00"].state == state


def test_a_cell_that_kills_its_workers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DEATHS", 2)
    sweep = cells(1)
    define(sweep, tmp_path)
    for attempt in range(1, 4):
        assert statuses(sweep, tmp_path, 3, 10.0)["00"].state == "waiting"
        claim = tmp_path / "queue" / f"00.{attempt}.claim"
        claim.write_text("")  # as if its worker had died before it said who it was
        os.utime(claim, (1, 1))
    found = statuses(sweep, tmp_path, 3, 10.0)["00"]
    assert (found.state, found.message) == ("failed", "3 workers died at this cell")


@pytest.mark.command
def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    """24 cells, three workers, ten of which are killed at work, at random moments, and replaced."""
    sweep, rng = cells(24), random.Random(0)
    define(sweep, tmp_path / "sweep")
    output = tmp_path / "said"
    processes = multiprocessing.get_context("forkserver")  # which imports once for all workers
    processes.set_forkserver_preload(["jaxconf.sweeps.queue"])

    def start() -> multiprocessing.process.BaseProcess:
        started = processes.Process(target=worker, args=(tmp_path / "sweep", output))
        started.start()
        return started

    def at_work() -> int:
        for _ in range(6000):
            found = statuses(sweep, tmp_path / "sweep", 3, 1.2).values()
            names = {status.worker.rpartition(":")[2] for status in found if status.state == "running"}
            if able := [at for at, of in enumerate(workers) if str(of.pid) in names]:
                return rng.choice(able)
            time.sleep(0.01)
        raise AssertionError("no worker took a cell in a minute")

    workers = [start() for _ in range(3)]
    for _ in range(10):
        time.sleep(rng.uniform(0, 0.1))
        at = at_work()
        workers[at].kill()
        workers[at].join()
        workers[at] = start()
    for left in workers:
        left.join(60)
    assert [left.exitcode for left in workers] == [0, 0, 0]
    for name, options in sweep.cells.items():
        assert (tmp_path / "sweep" / "cells" / name / "run").read_text() == str(options["number"] ** 2)
    assert {status.state for status in statuses(sweep, tmp_path / "sweep", 3, 1.2).values()} == {"finished"}
    said = output.read_text()
    assert all(said.count(f"{name}: finished") <= 1 for name in sweep.cells)
    # The workers of the other cells died before they could say so.
    assert sum(said.count(f"{name}: finished") for name in sweep.cells) >= 14
    assert len(list((tmp_path / "sweep" / "queue").glob("*.claim"))) > 24  # some were killed at work
    assert not list((tmp_path / "sweep" / "queue").glob("*.failed"))


def test_scripts_say_what_they_would_run(tmp_path: Path) -> None:
    file = write(tmp_path, "models = ['a']")
    said = script("slurm_sweep.sh", file, "shared folder").stdout
    assert shlex.split(said) == ["jaxconf", "sweep", str(file), "--out", "shared folder"]
    lines = [shlex.split(line) for line in script("gpu_node.sh", file, "out", 3).stdout.splitlines()]
    assert lines == [[f"CUDA_VISIBLE_DEVICES={gpu}", "jaxconf", "sweep", str(file), "--out", "out"] for gpu in range(3)]
    for name, arguments, words in (
        ("slurm_sweep.sh", [file], "usage: "),
        ("slurm_sweep.sh", [tmp_path / "nowhere.toml", "out"], "there is no file"),
        ("gpu_node.sh", [file], "usage: "),
        ("gpu_node.sh", [file, "out", "many"], "GPUS is 'many'"),
    ):
        refused = script(name, *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert words in refused.stderr


def test_scripts_are_sound() -> None:
    """By shellcheck, which the test extra brings."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, *SCRIPTS.glob("*.sh")], check=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a text, counts of few tokens, and a sweep's file."""
    folder = tmp_path_factory.mktemp("small")
    build(folder / "model", 0)
    (folder / "text.txt").write_text("".join(TEXT))
    lists = f"models = ['{folder / 'model'}']\ndata = ['{folder / 'text.txt'}']\nablations = ['mean', 'zero']\n"
    np.save(folder / "counts.npy", np.arange(262) % 5)
    counts = f"counts = '{folder / 'counts.npy'}'"
    (folder / "few.toml").write_text(f"{lists}[options]\ntokens = 256\nbootstrap_draws = 20\n{counts}\n")
    return folder


@pytest.mark.command
def test_a_sweep_and_its_report(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    main(["sweep", str(small / "few.toml"), "--out", str(out)])
    assert "2 of 2 cells are finished" in capsys.readouterr().out
    main(["sweep", str(small / "few.toml"), "--out", str(out), "--status"])
    assert "2 finished, 0 running, 0 waiting, 0 failed" in capsys.readouterr().out
    main(["sweep", "report", str(out)])
    said = capsys.readouterr().out
    assert str(out / "sweep.html") in said
    assert "direction is uncertain" in said
    joined = pd.read_parquet(out / "sweep.parquet")
    assert list(joined.groupby(["cell", "ablation"]).size()) == [56, 56]
    for name in defined(out).cells:
        single = pd.read_parquet(out / "cells" / name / "neurons.parquet")
        own = joined[joined["cell"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[list(single)], single.reset_index(drop=True))
        facts = NeuronTable.load(out / "cells" / name).facts
        assert (own[list(COUNT_FACTS)] == [facts[column] for column in COUNT_FACTS]).all(axis=None)
    page = (out / "sweep.html").read_text()
    assert page.count("direction is uncertain") == 1  # both cells have the same counts
    assert page.count(f"<td>{(np.arange(262) % 5).sum():,}</td>") == 2
    assert page.count("<tr id=") == 2
    assert page.count("data:image/png") == 4

    few = (small / "few.toml").read_text()
    for text, arguments, words in (
        (few, ["--out", str(out), "--tries", "0"], "--tries"),
        (few.replace("'zero'", "'median'"), ["--out", str(out)], "another definition"),
        (few + "memory = 'lots'\n", ["--out", str(tmp_path / "other")], "--memory is 'lots'"),
        ("models = ['nowhere']", ["--out", str(tmp_path / "other"), "--tries", "1"], "no folder nowhere"),
        (few, ["--out", str(tmp_path / "third"), "--status"], "no sweep of"),
    ):
        assert words in refusal(capsys, "sweep", write(tmp_path, text), *arguments)


def test_cells_with_an_uncertain_frequency_direction_are_named() -> None:
    columns = {"counts_tokens": [10, 10, 20, 99, None], "counts_cosine": [0.5, 0.5, 0.899, 0.9, None]}
    joined = pd.DataFrame({"cell": list("abcde"), **columns}).loc[[0, 0, 1, 2, 2, 3, 4]]
    first, second = doubts(joined)
    assert first.startswith("a, b: ")
    assert all(part in first for part in ("10 tokens", "0.50"))
    assert second.startswith("c: ")
    assert "20 tokens" in second


def test_a_sweep_of_the_version_before_is_read(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    shutil.copytree(RECORDED, out)
    found = sweep_status(out, tries=2)
    assert [status.state for status in found.values()] == ["finished", "finished", "failed", "failed"]
    assert [status.attempts for status in found.values()] == [1, 1, 2, 2]
    assert [status.message for status in found.values()][2:] == [
        "layer is 3; give a number from 0 to 0, last or all"
    ] * 2
    assert [status.state for status in sweep_status(out).values()][2:] == ["waiting", "waiting"]
    joined = sweep_report(out)
    recorded = pd.read_parquet(RECORDED / "sweep.parquet")
    pd.testing.assert_frame_equal(joined[list(recorded)], recorded)
    assert joined.drop(columns=list(recorded)).isna().all(axis=None)  # what that version did not measure
    assert (out / "sweep.html").read_text().count("<tr id=") == 2


def test_a_sweep_of_the_version_before_goes_on(tmp_path: Path) -> None:
    """With the same definition, and from the cells that are finished."""
    out = tmp_path / "sweep"
    shutil.copytree(RECORDED, out)
    define(defined(RECORDED), out)
    ran = []

    def run(name: str, folder: Path) -> None:
        ran.append(name)
        folder.mkdir()

    work(defined(out), out, run, 3, 10.0, print)
    assert ran == list(defined(RECORDED).cells)[2:]


@pytest.mark.slow
def test_a_disturbed_sweep_is_as_an_undisturbed_one(small: Path, tmp_path: Path) -> None:
    """24 analyses by three workers, ten of which are killed, and the same by one that is left alone."""
    seeds = "".join(f", '{folder}'" for folder in (copied(small / "model", tmp_path / f"copy{i}") for i in range(5)))
    text = (
        (small / "few.toml")
        .read_text()
        .replace("models = [", "layers = ['last', 0]\nmodels = [")
        .replace("']\ndata", f"'{seeds}]\ndata")
    )
    file = write(tmp_path, text)

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxconf", "sweep", str(file), "--out", str(out), "--patience", "6"]
        )

    undisturbed, out = tmp_path / "0" / "sweep", tmp_path / "1" / "sweep"
    assert start(undisturbed).wait(timeout=600) == 0
    rng = random.Random(1)
    workers = [start(out) for _ in range(3)]
    for _ in range(10):
        time.sleep(rng.uniform(5, 12))
        at = rng.randrange(3)
        workers[at].send_signal(signal.SIGKILL)
        workers[at].wait()
        workers[at] = start(out)
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0, 0]
    for folder in (undisturbed, out):
        assert len(list((folder / "cells").iterdir())) == len(json.loads((folder / "sweep.json").read_text())) == 24
        main(["sweep", "report", str(folder)])
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "sweep.parquet") for folder in (undisturbed, out)))
    assert (undisturbed / "sweep.html").read_bytes() == (out / "sweep.html").read_bytes()
