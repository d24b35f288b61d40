"""Train small decoders from scratch, several side by side in one program.

Letters: m model, b sequence, t position. The models of one program share their shape; the settings of
`jaxconf.training.config.PER_MODEL` may differ. A step depends only on the state before it and on its number, so a
resumed run gives the same losses to the bit as a run that was never interrupted.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxconf.data.corpus import Corpus
from jaxconf.models.checkpoint import save_params
from jaxconf.models.decoder import Params
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing
from jaxconf.models.mesh import fetched, placed, wait_on_cpus
from jaxconf.runtime.hosts import largest
from jaxconf.runtime.placement import training_placement
from jaxconf.runtime.signals import signals
from jaxconf.training import checkpoints
from jaxconf.training.config import TrainConfig
from jaxconf.training.hold import held_neurons, without_output
from jaxconf.training.measurements import predictions_of
from jaxconf.training.model_config import decoder_config, hf_config
from jaxconf.training.side_by_side import params_of_one, splits, start_all, training_program
from jaxconf.training.step import hyperparameters

REPORT_STEPS = 50  # losses are fetched and checked every so many steps

Report = Callable[[int, dict[str, float]], None]
"""Called as report(step, {"loss": nats per token, "tokens_per_second": of all models together})."""

Track = Callable[[int, int, Params, float], None]
"""Called as track(model's index, step, its parameters, its mean training loss since the previous tracked step)."""


class Stopped(Exception):
    """A signal stopped the training after `step`, whose checkpoint is saved."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped after step {step}")
        self.step, self.signum = step, signum


class Training:
    """Models of one shape while they are trained.

    `step`: the number of steps they have taken. `losses`: float32 [m, steps] in nats per token, NaN for steps whose
    losses have not been read from the devices.
    """

    def __init__(self, configs: Sequence[TrainConfig], corpus: Corpus, mesh: Mesh):
        m, first = len(configs), configs[0]
        self.step = 0
        self.losses = np.full((m, first.steps), np.nan, np.float32)
        self._configs, self._corpus, self._mesh = configs, corpus, mesh
        self._files = [hf_config(config, corpus.begin, corpus.end) for config in configs]
        self._decoder = config_from_hf(self._files[0])
        models, tokens = (NamedSharding(mesh, split) for split in splits(mesh, m))
        self._tokens_place = tokens
        self._hyper = jax.tree.map(lambda x: placed(x, models), hyperparameters(configs))
        self._hold = held_neurons(first, self._decoder)
        self._program, self._held_program = (
            training_program(configs, self._decoder, mesh, held) for held in (False, True)
        )
        self._state = start_all(self._decoder, mesh, self._hyper)
        self._unread: list[jax.Array] = []

    def restore(self, folder: Path) -> None:
        """Continue from the newest good checkpoint in the folder, if there is one."""
        if found := checkpoints.restore(folder, {"state": self._state, "losses": self.losses}):
            self.step, saved = found
            self._state, self.losses = saved["state"], np.array(saved["losses"])

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the last step, whose losses must have been read."""
        checkpoints.save(folder, self.step, {"state": self._state, "losses": self.losses})

    def take_step(self) -> None:
        """Train all models for one step. Their losses stay on the devices until `read_losses`."""
        self.step += 1
        batches = [self._corpus.batch(c.seed, self.step, c.batch, c.context) for c in self._configs]
        tokens = placed(np.stack(batches), self._tokens_place)
        program = self._held_program if self._held() else self._program
        self._state, loss = program(self._state, self._hyper, tokens, self.step)
        self._unread.append(loss)
        wait_on_cpus(self._mesh, loss)

    def read_losses(self) -> int:
        """Copy the losses of the steps since the last call into `losses`. Returns how many tokens these steps had."""
        steps, self._unread = fetched(self._unread), []
        self.losses[:, self.step - len(steps) : self.step] = np.stack(steps, 1)
        return len(steps) * len(self._configs) * self._configs[0].batch * self._configs[0].context

    def recent_loss(self) -> float:
        """The mean loss (nats per token) of all models in the last REPORT_STEPS steps."""
        return float(self.losses[:, max(0, self.step - REPORT_STEPS) : self.step].mean())

    def diverged_at(self, index: int) -> int | None:
        """The first step, counted from 1, at which a model's loss was not finite; None if there is none."""
        wrong = np.flatnonzero(~np.isfinite(self.losses[index, : self.step]))
        return int(wrong[0]) + 1 if len(wrong) else None

    def params(self, index: int) -> Params:
        """A model's parameters, placed as an analysis takes them.

        The output weights of neurons that the last step held at zero are zero, so that the model computes what was
        trained.
        """
        params = params_of_one(self._decoder, self._mesh, self._state.params, index)
        return without_output(params, self._held()) if self._held() else params

    def _held(self) -> list[tuple[int, int]]:
        """The layer and index of each neuron that the last step held at zero."""
        return self._hold if self.step >= self._configs[0].hold_from else []

    def finish(self, index: int, folder: Path) -> dict[str, Any]:
        """Write a model and its losses to its folder, unless it has diverged. Returns the result."""
        params, losses = self.params(index), self.losses[index]
        windows = self._corpus.held_out_windows(len(self._corpus.held_out), self._configs[index].context)
        held_out = float(predictions_of(self._decoder, params, windows).loss.mean(dtype=np.float64))
        if self.diverged_at(index) or not math.isfinite(held_out):
            return {"diverged_at": self.diverged_at(index) or self.step}
        folder.mkdir(parents=True, exist_ok=True)
        save_params(self._decoder, params, folder / "model.safetensors")
        with replacing(folder / "losses.npy") as path, path.open("wb") as file:
            np.save(file, losses)
        with replacing(folder / "config.json") as path:  # last, because a folder with config.json counts as a model
            path.write_text(json.dumps(self._files[index], indent=1) + "\n")
        return {"loss": float(losses[-REPORT_STEPS:].mean()), "held_out_loss": held_out}


def train_models(
    configs: Sequence[TrainConfig],
    corpus: Corpus,
    folders: Sequence[Path],
    checkpoint_folder: Path,
    *,
    checkpoint_every: int = 250,
    track: Track = lambda model, step, params, train_loss: None,
    tracked: frozenset[int] = frozenset(),
    report: Report = lambda step, measured: None,
    mesh: Mesh | None = None,
) -> list[dict[str, Any]]:
    """Train models of one shape, and write config.json, model.safetensors and losses.npy of each to its folder.

    Training continues from the newest good checkpoint in `checkpoint_folder`, if there is one. The losses are then the
    same to the bit as those of a run that was never interrupted. A checkpoint is written there every `checkpoint_every`
    steps. On SIGTERM or SIGINT a checkpoint is written too, and Stopped is raised. With several hosts, a signal to one
    stops all when they next check their losses. The checkpoints are deleted once the models are written.

    `track` is called at the `tracked` steps; 0 is before the first. A resumed run may call it again for steps after the
    checkpoint. `report` is called every 50 steps and when training ends. `mesh`: by default that of
    `jaxconf.runtime.placement.training_placement`.

    Returns for each model `loss` (mean of the last 50 steps) and `held_out_loss`, in nats per token. For a model that
    has diverged nothing is written, and its result is only `diverged_at`: the first step whose loss is not finite, or
    the last step if only the held-out loss is not. If all models have diverged, training ends when the losses are next
    checked. Raises InputError if a checkpoint cannot be written, and OSError for other files; earlier checkpoints stay.
    """
    steps, models = configs[0].steps, range(len(configs))
    mesh = mesh or training_placement(decoder_config(configs[0]), len(configs), configs[0].batch)
    training = Training(configs, corpus, mesh)
    training.restore(checkpoint_folder)

    def measure() -> None:
        before = max((step for step in tracked if step < training.step), default=0)
        for i in models:
            if not training.diverged_at(i):
                recent = training.losses[i, before : training.step]
                track(i, training.step, training.params(i), float(recent.mean()) if len(recent) else math.nan)

    if training.step == 0 and 0 in tracked:
        measure()
    begun = time.perf_counter()
    with signals() as caught:
        while training.step < steps:
            training.take_step()
            step, end = training.step, training.step == steps
            due = step % checkpoint_every == 0
            look = end or due or step in tracked or step % REPORT_STEPS == 0
            # The signal is read only once in a step, so that Stopped is raised only if this step is saved. With several
            # hosts `largest` needs all of them, so it is called only at steps at which all of them look.
            asked = largest(caught[0] if caught else 0) if look or jax.process_count() == 1 else 0
            if not (look or asked):
                continue
            rate = training.read_losses() / (time.perf_counter() - begun)
            if end or asked or step % REPORT_STEPS == 0:
                report(step, {"loss": training.recent_loss(), "tokens_per_second": rate})
            if all(map(training.diverged_at, models)):
                return [{"diverged_at": training.diverged_at(i)} for i in models]
            if step in tracked:
                measure()
            if (due or asked) and not end:
                training.save(checkpoint_folder)
            if asked and not end:
                raise Stopped(step, asked)
            begun = time.perf_counter()
    results = [training.finish(i, folder) for i, folder in enumerate(folders)]
    shutil.rmtree(checkpoint_folder, ignore_errors=True)
    return results
