"""An interrupted training run: killed, stopped, damaged, out of space, diverged. What is killed is a process."""

import dataclasses
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from refusals import check_error
from tiny_training import NO_TRACK, TEXT, TINY, Trained, corpus_of_text, options, text, text_file
from training_runs import assert_same

from jaxconf.cli import main
from jaxconf.models.errors import InputError
from jaxconf.training import checkpoints
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.run import train
from jaxconf.training.trainer import Stopped, train_models

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return text_file(tmp_path_factory.mktemp("text"))


def command(file: Path, out: Path, *more: str) -> list[str]:
    return ["train", "tiny", *options(), "--checkpoint-every", "7", "--data", str(file), "--out", str(out), *more]


def interrupt(file: Path, out: Path, number: signal.Signals) -> subprocess.Popen:
    """Send a signal once the run has a checkpoint, and wait for its end."""
    arguments = [sys.executable, "-m", "jaxconf", *command(file, out)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 300
    while not checkpoints.steps(out / "checkpoints"):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(120)
    return process


def limited(file: Path, out: Path, limit: int) -> subprocess.CompletedProcess:
    """Resume with no file able to grow beyond a limit, which to a program looks like a disk that is full."""
    code = (
        "import resource, sys; from jaxconf.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); main(sys.argv[1:])"
    )
    arguments = [sys.executable, "-c", code, *command(file, out, "--resume")]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.command
def test_killed_and_resumed_is_the_same_to_the_bit(file: Path, trained: Trained, tmp_path: Path, capsys):
    out = tmp_path / "run"
    assert interrupt(file, out, signal.SIGKILL).returncode == -signal.SIGKILL
    with pytest.raises(SystemExit) as refused:
        main(command(file, out))
    assert refused.value.code == 2
    assert "--resume" in capsys.readouterr().err
    assert not (out / "config.json").exists()
    main(command(file, out, "--resume"))
    assert_same(out, trained.folder)


@pytest.mark.slow
def test_sigterm_saves_and_says_so_and_a_full_disk_leaves_the_last_good_checkpoint(
    file: Path, trained: Trained, tmp_path: Path
):
    out = tmp_path / "run"
    stopped = interrupt(file, out, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM
    said = stopped.stderr.read()
    assert "--resume" in said
    assert "Traceback" not in said
    before = checkpoints.steps(out / "checkpoints")
    assert f"after step {before[-1]}" in said
    full = limited(file, out, 20_000)
    assert full.returncode == 2, full.stderr
    # tensorstore's threads may add lines of their own
    [said] = [line for line in full.stderr.splitlines() if line.startswith("jaxconf: ")]
    assert "--resume" in said
    assert "ERROR" not in full.stderr
    assert checkpoints.steps(out / "checkpoints") == before
    main(command(file, out, "--resume"))
    assert_same(out, trained.folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_measured_waits_for_the_next_step(number, tmp_path):
    """A step is measured after it is settled whether it is saved: what is said to be saved is."""

    def track(model: int, step: int, params: dict, train_loss: float) -> None:
        signal.raise_signal(number)

    with pytest.raises(Stopped) as caught:
        train_models(
            [TINY], corpus_of_text(), [tmp_path / "run"], tmp_path / "checkpoints", track=track, tracked=frozenset({3})
        )
    assert (caught.value.step, caught.value.signum) == (4, number)
    assert checkpoints.steps(tmp_path / "checkpoints") == [4]


class Halt(Exception):
    pass


def halted(config: TrainConfig, out: Path) -> None:
    """A run that dies at step 50."""

    def report(step: int, measured: dict[str, float]) -> None:
        raise Halt

    with pytest.raises(Halt):
        train(config, text, out, track=NO_TRACK, checkpoint_every=25, report=report)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    state = {"w": jnp.arange(1000.0), "n": jnp.array(3)}
    for step in (5, 10, 15):
        checkpoints.save(tmp_path, step, {"w": state["w"] + step, "n": state["n"]})
    assert checkpoints.steps(tmp_path) == [10, 15]
    assert checkpoints.restore(tmp_path, state)[0] == 15
    largest = max((tmp_path / "15" / "state").rglob("*"), key=lambda f: f.stat().st_size if f.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        step, found = checkpoints.restore(tmp_path, state)
    assert step == 10
    np.testing.assert_array_equal(found["w"], np.arange(1000.0) + 10)
    assert "15 is damaged" in caplog.text
    shutil.rmtree(tmp_path / "10" / "state")
    assert checkpoints.restore(tmp_path, state) is None
    assert checkpoints.restore(tmp_path / "nothing", state) is None


def test_a_write_that_fails_leaves_the_checkpoints_before_it(tmp_path):
    checkpoints.save(tmp_path, 5, {"w": jnp.ones(3)})
    (tmp_path / ".10.tmp").write_text("in the way")
    with pytest.raises(InputError, match=r"step 10 cannot be written.*last good one is that of step 5"):
        checkpoints.save(tmp_path, 10, {"w": jnp.ones(3)})
    assert checkpoints.steps(tmp_path) == [5]


def test_a_disk_with_too_little_room_is_not_begun_to_be_written(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 5, {"w": jnp.ones(3)})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4003))
    with pytest.raises(
        InputError, match=r"4,003 bytes are free and 4,004 are needed.*last good one is that of step 5; make room"
    ):
        checkpoints.save(tmp_path, 10, {"w": jnp.ones(1000), "n": jnp.array(1)})
    assert checkpoints.steps(tmp_path) == [5]
    assert len(list(tmp_path.iterdir())) == 1
    checkpoints.save(tmp_path, 10, {"w": jnp.ones(1000)})


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path):
    out = tmp_path / "run"
    wild = dataclasses.replace(TINY, learning_rate=1e35)
    with pytest.raises(InputError) as caught:
        train(wild, text, out, track=NO_TRACK, checkpoint_every=1)
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert 1 < step <= 6
    assert not (out / "config.json").exists()
    assert checkpoints.steps(out / "checkpoints")[-1] == step - 1


def test_only_the_same_run_is_resumed(tmp_path):
    out, again = tmp_path / "run", {"track": NO_TRACK, "resume": True}
    halted(TINY, out)
    wide = dataclasses.replace(TINY, width=32)
    check_error(lambda: train(wide, text, out, **again), "another run: width is 16 there and 32 here")
    check_error(lambda: train(TINY, lambda: iter(TEXT[1:]), out, **again), "other text")
    three = TrackConfig(points=3)
    check_error(lambda: train(TINY, text, out, track=three, resume=True), "points is 0 there and 3 here")
    ones = np.ones(TINY.vocab_size, int)
    check_error(lambda: train(TINY, text, out, counts=ones, **again), "other token counts", "--counts")
    check_error(lambda: train(TINY, text, tmp_path / "new", counts=ones[1:]), "give one count for each")
    assert not (tmp_path / "new").exists()
    check_error(lambda: train(TINY, text, out), "--resume to go on with it", "--force to replace it")
    found = train(TINY, text, out, **again)
    assert train(TINY, text, out, **again) == found  # finished: nothing more to do
    replaced = train(dataclasses.replace(TINY, learning_rate=1e-5), text, out, track=NO_TRACK, force=True)
    assert replaced["held_out_loss"] > found["held_out_loss"]
    (out / "train.json").unlink()
    check_error(lambda: train(TINY, text, out), "holds a model already")
