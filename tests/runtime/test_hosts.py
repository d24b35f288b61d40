"""Several processes that find each other on this machine and do one job.

They give the same tables as one process, and end when one of them is lost.
"""

import contextlib
import functools
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from hub import hub
from hub_models import HF, NAME, build
from meshes import agree as of_study
from meshes import same
from processes import ended, free_port, launch, runs_agree
from random_models import random_model
from refusals import check_error
from tiny_knowledge import RECORDED
from training_runs import assert_same

import jaxconf
from jaxconf.data.questions import questions_of_statements, write_questions
from jaxconf.data.statements import read_statements
from jaxconf.models.checkpoint import save_params
from jaxconf.runtime import hosts
from jaxconf.runtime.hosts import Hosts
from jaxconf.training import checkpoints
from jaxconf.training.emergence import Emergence

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TEXT = "\n".join(f"def value_{i % 7}(x):\n    return x[{i % 5}] + {i % 3}" for i in range(400))
PICKED = ["--set", "1.3,0.4", "--controls", "1", "--per-token", "1.3"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return str(file)


def confident_model(folder: Path) -> Path:
    """One with sharp predictions, so that ablations change them by far more than rounding does."""
    hf = HF | {"hidden_size": 32, "num_attention_heads": 4}
    model, lm = build(folder, 0, hf), random_model("", hf=hf)
    save_params(lm.config, lm.params, model / "model.safetensors")
    return model


@pytest.mark.slow
def test_a_lost_host_ends_the_others_and_a_restart_gives_the_tables_of_one(text: str, tmp_path: Path) -> None:
    model = confident_model(tmp_path / "model")
    how = ["analyze", str(model), "--data", text, "--tokens", "2400", "--bootstrap-draws", "0"]
    alone = launch(1, [*how, "--out", str(tmp_path / "alone")])
    split = [*how, "--out", str(tmp_path / "run"), "--mesh", "data=1,model=2", "--memory", "200KB"]
    several = launch(2, split)
    while not (parts := set((tmp_path / "run").glob(".partial/*/*.npz"))) and several[0].poll() is None:
        time.sleep(0.02)
    several[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    said = several[0].communicate(timeout=60)[1]
    assert time.monotonic() - begun < 60
    assert several[0].returncode not in (0, None)
    assert hosts.LOST in said
    assert hosts.LOST in several[1].communicate()[1]
    assert parts
    assert not (tmp_path / "run" / "neurons.parquet").exists()

    before = {part: part.stat().st_mtime_ns for part in parts}
    again = launch(2, split)
    while again[0].poll() is None:
        with contextlib.suppress(FileNotFoundError):
            assert all(part.stat().st_mtime_ns == made for part, made in before.items())
        time.sleep(0.1)
    ended(again, 0)
    ended(alone, 0)
    runs_agree(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "mesh"), [(2, 2, "data=4,model=1"), (4, 2, "data=2,model=4"), (4, 1, "data=2,model=2")]
)
def test_the_tables_of_several_are_those_of_one(count: int, devices: int, mesh: str, text: str, tmp_path: Path) -> None:
    model = confident_model(tmp_path / "model")
    how = ["analyze", str(model), "--data", text, "--tokens", "520", "--layer", "all", *PICKED]
    several = launch(count, [*how, "--out", str(tmp_path / "several"), "--mesh", mesh], devices)
    ended(several, 0)
    ended(launch(1, [*how, "--out", str(tmp_path / "alone")]), 0)
    runs_agree(tmp_path / "several", tmp_path / "alone")


@pytest.fixture(scope="module")
def studied(compiled_quickly: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each study of small models is called with."""
    model, altered = RECORDED / "model", tmp_path_factory.mktemp("altered") / "model"
    shutil.copytree(model, altered)
    lm, rng = jaxconf.load(model), np.random.default_rng(0)
    params = jax.tree.map(
        lambda w: np.array(w) + 0.1 * np.std(w) * rng.standard_normal(w.shape).astype(np.float32), lm.params
    )
    save_params(lm.config, params, altered / "model.safetensors")
    text = ["--data", str(RECORDED / "text.jsonl")]
    questions = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    write_questions(questions_of_statements(read_statements(RECORDED / "statements.csv"), 0), questions)
    return {
        "induction": [
            str(model),
            *text,
            "--natural",
            *"--sequences 3 --length 12 --controls 1 --tokens 512 --bootstrap-draws 20".split(),
        ],
        "compare": [str(model), str(altered), *text, *"--tokens 640 --bootstrap-draws 20".split()],
        "copying": [
            str(model),
            "--data",
            str(RECORDED / "statements.csv"),
            "--text",
            *text[1:],
            *"--tokens 640 --controls 3".split(),
        ],
        "tasks": [
            str(model),
            "--data",
            str(questions),
            "--text",
            *text[1:],
            "--reasoning",
            *text[1:],
            *"--tokens 640 --reasoning-tokens 640 --controls 3 --bootstrap-draws 20".split(),
        ],
        "universal": [str(model), str(altered), *text, *"--tokens 640 --effects 320".split()],
        "carry": [
            str(model),
            *text,
            *"--set 0.3,0.5 --tokens 960 --effects 320 --controls 2 --bootstrap-draws 20".split(),
        ],
    }


@pytest.fixture(scope="module")
def of_one(studied: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a study by one process with one device."""

    @functools.cache
    def made(command: str) -> Path:
        out = tmp_path_factory.mktemp("alone")
        ended(launch(1, [command, *studied[command], "--out", str(out)]), 0)
        return out

    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "mesh"), [(2, 1, "data=1,model=2"), (2, 2, "data=4,model=1"), (1, 8, "data=2,model=4")]
)
@pytest.mark.parametrize("command", ["induction", "compare", "copying", "universal", "carry", "tasks"])
def test_studies(
    command: str,
    count: int,
    devices: int,
    mesh: str,
    studied: dict[str, list[str]],
    of_one: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    ended(launch(count, [command, *studied[command], "--out", str(tmp_path / "out"), "--mesh", mesh], devices), 0)
    files = sorted(of_one(command).glob("*.parquet"))
    assert len(files) >= 4
    for file in files:
        of_study(pd.read_parquet(tmp_path / "out" / file.name), pd.read_parquet(file))


TRAINING = [
    *"--vocab-size 270 --layers 2 --width 32 --heads 2 --context 32 --batch 4".split(),
    *"--track.points 3 --track.tokens 128".split(),
]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=2,model=1", "data=1,model=2"])
def test_two_hosts_train_are_stopped_and_go_on(mesh: str, text: str, tmp_path: Path) -> None:
    how = ["train", "tiny", "--data", text, *TRAINING, "--steps", "300", "--checkpoint-every", "50", "--mesh", mesh]
    ended(launch(1, [*how, "--out", str(tmp_path / "alone")], devices=2), 0)
    out = tmp_path / "several"
    several = launch(2, [*how, "--out", str(out)])
    while not checkpoints.steps(out / "checkpoints") and several[0].poll() is None:
        time.sleep(0.02)
    several[1].send_signal(signal.SIGTERM)  # one host is asked, and all stop
    said = ended(several, 128 + signal.SIGTERM)
    step = checkpoints.steps(out / "checkpoints")[-1]
    assert all(f"after step {step}" in of_host and hosts.LOST not in of_host for of_host in said)
    assert step < 300
    ended(launch(2, [*how, "--out", str(out), "--resume"]), 0)
    assert_same(out, tmp_path / "alone")


@pytest.mark.slow
def test_a_study_of_two_hosts(text: str, tmp_path: Path) -> None:
    how = ["train", "tiny", "--data", text, *TRAINING, "--steps", "20", "--vary", "weight_decay=0,0.3"]
    ended(launch(2, [*how, "--out", str(tmp_path / "several")]), 0)
    ended(launch(1, [*how, "--out", str(tmp_path / "alone")], devices=2), 0)
    ours, alone = (pd.read_parquet(tmp_path / name / "study.parquet") for name in ("several", "alone"))
    pd.testing.assert_frame_equal(ours, alone)
    for name in alone["model"]:
        assert_same(tmp_path / "several" / "models" / name, tmp_path / "alone" / "models" / name)


@pytest.mark.slow
@pytest.mark.parametrize("effects", [[], ["--effects"]])
def test_two_hosts_track_revisions(effects: list[str], text: str, tmp_path: Path) -> None:
    revisions = {f"step{step}": build(tmp_path / str(step), step) for step in (0, 20, 100)}
    with hub({f"models/{NAME}": revisions}, tmp_path / "cache"):
        how = ["track", NAME, "--data", text, "--tokens", "200", *effects]
        ended(launch(1, [*how, "--revisions", "step0,step20", "--out", str(tmp_path / "alone")]), 0)
        split = [*how, "--mesh", "data=1,model=2", "--out", str(tmp_path / "several")]
        ended(launch(2, [*split, "--revisions", "step0"]), 0)
        ended(launch(2, [*split, "--revisions", "step0,step20"]), 0)  # goes on
        said = ended(launch(2, [*split, "--revisions", "step0,step20,step100", "--delete"]), 2)
    assert all("--delete" in of_host for of_host in said)
    ours, alone = (Emergence.load(tmp_path / name) for name in ("several", "alone"))
    of_study(ours.steps, alone.steps)
    same(ours.neurons, alone.neurons)
    np.testing.assert_allclose(ours.singular_values, alone.singular_values, rtol=1e-6)


@pytest.mark.command
def test_what_the_first_host_refuses_all_refuse(text: str, tmp_path: Path) -> None:
    (tmp_path / "neurons.parquet").touch()
    for said in ended(launch(2, ["analyze", "--data", text, "--out", str(tmp_path)]), 2):
        assert f"{tmp_path / 'neurons.parquet'} exists already" in said
        assert hosts.LOST not in said


@pytest.mark.command
def test_a_coordinator_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "TIMEOUT", 1)
    address = f"localhost:{free_port()}"
    check_error(lambda: hosts.join(Hosts(address, 2, 1)), address, "1 seconds", "refused")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Hosts(None, 2, 0), "--coordinator HOST:PORT"),
        (Hosts("auto", None, 0), "--coordinator HOST:PORT"),
        (Hosts("here:1234"), "--hosts"),
        (Hosts("here:1234", 2, 2), "from 0"),
        (Hosts("here:1234", 1, 1), "give 0 as --host"),
        (Hosts("here", 2, 0), "HOST:PORT"),
        (Hosts("here"), "HOST:PORT"),
        (Hosts("here:port", 2, 0), "HOST:PORT"),
    ],
)
def test_hosts_that_do_not_fit_together(asked: Hosts, said: str) -> None:
    check_error(lambda: hosts.join(asked), said)


@pytest.mark.parametrize(
    ("name", "value", "several"),
    [
        ("SLURM_STEP_NUM_TASKS", "4", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("OMPI_COMM_WORLD_SIZE", "2", True),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_WORKER_HOSTNAMES", "a", False),
    ],
)
def test_tasks_of_one_job_are_seen(name: str, value: str, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert hosts._several() is several
