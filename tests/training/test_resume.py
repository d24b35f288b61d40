"""An interrupted training run: killed, stopped, damaged, out of space, diverged. Whole processes where it is processes that die."""

import dataclasses
import json
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
from training_runs import assert_same

from jaxconf.cli import main
from jaxconf.data.corpus import read_corpus
from jaxconf.models.errors import InputError
from jaxconf.training import checkpoints
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.run import train
from jaxconf.training.trainer import Stopped, train_models

pytestmark = pytest.mark.usefixtures("compiled_quickly")

STEPS = 60
OPTIONS = "--layers 1 --width 16 --heads 2 --neurons 24 --vocab-size 264 --context 24 --batch 4 --dropout 0.1 --checkpoint-every 7".split()
TRACKED = "--track.points 6 --track.effects-every 7 --track.tokens 120".split()
TEXT = [f"value_{i % 3} = {i % 5} + {i % 3}\n" * 20 for i in range(60)]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "code.jsonl"
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXT))
    return file


def command(text: Path, out: Path, *more: str) -> list[str]:
    options = [*OPTIONS, *TRACKED, "--steps", str(STEPS), "--data", str(text), "--out", str(out)]
    return [sys.executable, "-m", "jaxconf", "train", *options, *more]


def run(text: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(text, out, *more), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = run(text, out)
    assert done.returncode == 0, done.stderr
    return out


def interrupt(text: Path, out: Path, number: signal.Signals) -> subprocess.Popen:
    """Send a signal once the run has a checkpoint, and wait for its end."""
    process = subprocess.Popen(command(text, out), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 300
    while not checkpoints.steps(out / "checkpoints"):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(120)
    return process


def limited(text: Path, out: Path, limit: int) -> subprocess.CompletedProcess:
    """Resume with no file able to grow beyond a limit, which to a program looks like a disk that is full."""
    code = (
        "import resource, sys; from jaxconf.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); main(sys.argv[1:])"
    )
    arguments = command(text, out, "--resume")[3:]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_killed_and_resumed_is_the_same_to_the_bit(text, whole, tmp_path, capsys):
    out = tmp_path / "run"
    assert interrupt(text, out, signal.SIGKILL).returncode == -signal.SIGKILL
    with pytest.raises(SystemExit) as refused:
        main(command(text, out)[3:])
    assert refused.value.code == 2
    assert "--resume" in capsys.readouterr().err
    assert not (out / "config.json").exists()
    resumed = run(text, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(out, whole)


def test_sigterm_saves_and_says_so_and_a_full_disk_leaves_the_last_good_checkpoint(text, whole, tmp_path):
    out = tmp_path / "run"
    stopped = interrupt(text, out, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM
    said = stopped.stderr.read()
    assert "--resume" in said
    assert "Traceback" not in said
    before = checkpoints.steps(out / "checkpoints")
    assert f"after step {before[-1]}" in said
    full = limited(text, out, 20_000)
    assert full.returncode == 2, full.stderr
    [said] = [line for line in full.stderr.splitlines() if line.startswith("jaxconf: ")]  # tensorstore's threads may add lines of their own
    assert "--resume" in said
    assert "ERROR" not in full.stderr
    assert checkpoints.steps(out / "checkpoints") == before
    assert run(text, out, "--resume").returncode == 0
    assert_same(out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_measured_waits_for_the_next_step(number, tmp_path):
    """A step is measured after it is settled whether it is saved: what is said to be saved is."""
    corpus = read_corpus(TINY.vocab_size, TINY.context, lambda: iter(TEXT))

    def track(model: int, step: int, params: dict, train_loss: float) -> None:
        signal.raise_signal(number)

    with pytest.raises(Stopped) as caught:
        train_models([TINY], corpus, [tmp_path / "run"], tmp_path / "checkpoints", 100, track, frozenset({3}))
    assert (caught.value.step, caught.value.signum) == (4, number)
    assert checkpoints.steps(tmp_path / "checkpoints") == [4]


TINY = TrainConfig(layers=1, width=16, heads=2, neurons=32, vocab_size=264, context=24, steps=30, batch=7, learning_rate=1e-2)


class Halt(Exception):
    pass


def halted(out: Path, after: int, config: TrainConfig = TINY) -> None:
    """A run that dies at a step that is tracked."""
    calls = []

    def report(step: int, figures: dict[str, float]) -> None:
        calls.append(step)
        if step >= after:
            raise Halt

    with pytest.raises(Halt):
        train(config, lambda: iter(TEXT), out, track=TrackConfig(points=0), checkpoint_every=5, report=report)


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
    with pytest.raises(InputError, match=r"step 10 cannot be written.*last good one is of step 5"):
        checkpoints.save(tmp_path, 10, {"w": jnp.ones(3)})
    assert checkpoints.steps(tmp_path) == [5]


def test_a_disk_with_too_little_room_is_not_begun_to_be_written(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 5, {"w": jnp.ones(3)})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4003))
    with pytest.raises(InputError, match=r"4,003 bytes are free and 4,004 needed.*last good one is of step 5; make room"):
        checkpoints.save(tmp_path, 10, {"w": jnp.ones(1000), "n": jnp.array(1)})
    assert checkpoints.steps(tmp_path) == [5]
    assert len(list(tmp_path.iterdir())) == 1
    checkpoints.save(tmp_path, 10, {"w": jnp.ones(1000)})


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path):
    out = tmp_path / "run"
    wild = dataclasses.replace(TINY, steps=40, learning_rate=1e35, warmup=0.1)
    with pytest.raises(InputError) as caught:
        train(wild, lambda: iter(TEXT), out, track=TrackConfig(points=0), checkpoint_every=1)
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert 1 < step <= 6
    assert not (out / "config.json").exists()
    assert checkpoints.steps(out / "checkpoints")[-1] == step - 1


def test_only_the_same_run_is_gone_on_with(tmp_path):
    out = tmp_path / "run"
    long = dataclasses.replace(TINY, steps=50)
    halted(out, 50, long)
    again = {"track": TrackConfig(points=0), "resume": True}
    with pytest.raises(InputError, match=r"another run: width is 16 there and 32 here"):
        train(dataclasses.replace(long, width=32), lambda: iter(TEXT), out, **again)
    with pytest.raises(InputError, match="other text"):
        train(long, lambda: iter(TEXT[1:]), out, **again)
    with pytest.raises(InputError, match="points is 0 there and 3 here"):
        train(long, lambda: iter(TEXT), out, track=TrackConfig(points=3), resume=True)
    with pytest.raises(InputError, match="--resume goes on with it, --force replaces it"):
        train(long, lambda: iter(TEXT), out)
    found = train(long, lambda: iter(TEXT), out, **again)
    assert train(long, lambda: iter(TEXT), out, **again) == found  # finished: nothing more to do
    replaced = train(dataclasses.replace(TINY, steps=2), lambda: iter(TEXT), out, track=TrackConfig(points=0), force=True)
    assert replaced["held_out_loss"] > found["held_out_loss"]
    (out / "train.json").unlink()
    with pytest.raises(InputError, match="holds a model already"):
        train(TINY, lambda: iter(TEXT), out)
