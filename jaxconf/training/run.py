"""Training runs in folders: training, tracking, recording and resuming.

A run's folder holds the model in Hugging Face layout (config.json, model.safetensors, the tokenizer's files),
`losses.npy` (float32 [steps], nats per token), `emergence.parquet` (the track) and `train.json` (the recipe and, once
the model is trained, the result).
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxconf.analysis.weights import null_space_size
from jaxconf.data.corpus import Corpus, Documents, read_corpus, write_tokenizer
from jaxconf.measure.inputs import given_counts
from jaxconf.models.errors import InputError, first_line
from jaxconf.results.run_folder import OPTIMUM, writable
from jaxconf.runtime.hosts import only_first_writes, told_json
from jaxconf.runtime.placement import training_placement
from jaxconf.runtime.progress import Progress
from jaxconf.training import emergence
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.hold import held_neurons
from jaxconf.training.measurements import check_others
from jaxconf.training.model_config import decoder_config, hf_config
from jaxconf.training.records import record_to_resume, write_record
from jaxconf.training.tracker import Tracker, tracked_steps
from jaxconf.training.trainer import Report, train_models

RECORD = "train.json"
CHECKPOINTS = "checkpoints"


def train(
    config: TrainConfig,
    data: str | Documents,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    track: TrackConfig | None = None,
    counts: np.ndarray | str | Path | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    force: bool = False,
    mesh: tuple[int, int] | None = None,
    progress: Progress = lambda what, done, total: None,
    report: Report = lambda step, measured: None,
) -> dict[str, Any]:
    """Train one model, track it meanwhile, and save it in the folder `out` in Hugging Face layout.

    `data`: the text, as a source that `jaxconf.documents` takes, or as a function that returns the documents; it is
    called once for each pass over the text. `tokenizer`: a folder or hub id; by default a byte-level BPE is trained on
    the text. `track`: what is measured and when. `counts`: the token counts behind the token-frequency direction, int
    [v] or a file of them; by default those of the training part of the text. `checkpoint_every`: steps between
    checkpoints.

    `resume`: continue an interrupted run from its newest good checkpoint. On the same kind of device its losses are
    then the same to the bit as those of a run that was never interrupted. A finished run stays as it is. If `out` holds
    no run, a new one begins. `force`: replace the run that `out` holds. `mesh`: the sizes of the axes `data` and
    `model`, by default those of `jaxconf.runtime.placement.training_placement`. `report(step, measured)` is called
    every 50 steps and at the end, with the training `loss` (nats per token) and `tokens_per_second`. The same config,
    text and device give the same weights to the bit.

    Returns `loss` (mean of the last 50 steps) and `held_out_loss`, both in nats per token, `tracking_share`, the share
    (0 to 1) of the time that tracking took, and the `facts` of `jaxconf.documents`. Raises InputError for shapes or a
    text that do not fit, for a folder that holds another run or cannot be written, and if the loss is no longer finite.
    Raises `jaxconf.training.trainer.Stopped` if SIGTERM or SIGINT stopped the training; a checkpoint is then saved.
    """
    track = track or TrackConfig()
    check(config, track, checkpoint_every)
    placed_on = mesh_for([config], mesh)
    record = {
        "config": dataclasses.asdict(config),
        "track": dataclasses.asdict(track),
        "tokenizer": tokenizer and str(tokenizer),
    }
    of_counts = counts_digest(counts, config)
    with only_first_writes(Path(out)) as out, writable(out):
        saved = told_json(lambda: _saved_run(out, record, resume, force))
        record["counts_sha256"] = of_counts
        if saved and saved.get("counts_sha256") != record["counts_sha256"]:
            raise InputError(f"{out} holds a run with other token counts; give the same --counts, or another --out")
        if saved and "result" in saved:
            return saved["result"]
        corpus = read_corpus(config.vocab_size, config.context, data, tokenizer, progress)
        record["text_sha256"] = corpus.digest()
        if saved and saved["text_sha256"] != record["text_sha256"]:
            raise InputError(f"{out} holds a run on other text; give the same --data, or another --out")
        with full_disk(out):
            if not saved:
                _clear(out)
            write_record(out / RECORD, record)
            checkpoints = out / CHECKPOINTS
            [result] = train_group(
                {out: config}, corpus, track, counts, checkpoints, checkpoint_every, placed_on, progress, report
            )
            if "diverged_at" in result:
                raise InputError(
                    f"the loss is not a finite number at step {result['diverged_at']}; lower learning_rate, now "
                    f"{config.learning_rate:g}, and start again with --force"
                )
            write_record(out / RECORD, {**record, "result": result})
    return result


def _saved_run(out: Path, record: dict[str, Any], resume: bool, force: bool) -> dict[str, Any] | None:
    """The record of the run in `out` if it is to be resumed, else None."""
    saved = record_to_resume(out / RECORD, record, resume, force)
    if not (saved or force) and (out / CHECKPOINTS).exists():
        raise InputError(
            f"{out} holds checkpoints but no {RECORD}; give another --out, or --force to replace the checkpoints"
        )
    return saved


def _clear(out: Path) -> None:
    """Delete the files of an earlier run."""
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    for name in (emergence.FILE, OPTIMUM, "losses.npy", "config.json", "model.safetensors", RECORD):
        (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turns the OSError of a write that fails during training into an InputError.

    Each file keeps its last version, because files are only replaced as a whole.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({first_line(error)}); make room there and go on with --resume"
        ) from error


def train_group(
    models: Mapping[Path, TrainConfig],
    corpus: Corpus,
    track: TrackConfig,
    counts: np.ndarray | str | Path | None,
    checkpoint_folder: Path,
    checkpoint_every: int,
    mesh: Mesh,
    progress: Progress,
    report: Report,
) -> list[dict[str, Any]]:
    """Train and track models of one shape side by side. `models`: the folder of each model → its config.

    Returns and raises what `jaxconf.training.trainer.train_models` does. Each result also has `tracking_share`, the
    share (0 to 1) of the time that tracking all models took, and the facts of reading the text.
    """
    begun = time.perf_counter()
    if mesh.size > 1:
        progress(f"training on a mesh of data={mesh.shape['data']}, model={mesh.shape['model']}", 0, 0)
    trackers = [
        Tracker(folder, hf_config(config, corpus.begin, corpus.end), config, track, corpus, counts)
        for folder, config in models.items()
    ]
    for folder in models:
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(corpus, folder)
    configs = list(models.values())
    steps = configs[0].steps

    def reported(step: int, measured: dict[str, float]) -> None:
        progress("training", step, steps)
        report(step, measured)

    progress("training", 0, steps)
    results = train_models(
        configs,
        corpus,
        list(models),
        checkpoint_folder,
        checkpoint_every=checkpoint_every,
        track=lambda model, step, params, loss: trackers[model](step, params, loss),
        tracked=frozenset(tracked_steps(steps, track)),
        report=reported,
        mesh=mesh,
    )
    share = sum(tracker.seconds for tracker in trackers) / (time.perf_counter() - begun)
    return [{**result, "tracking_share": share, **corpus.facts} for result in results]


def mesh_for(configs: Sequence[TrainConfig], sizes: tuple[int, int] | None) -> Mesh:
    """The mesh for models that are trained side by side; see `jaxconf.runtime.placement.training_placement`."""
    return training_placement(decoder_config(configs[0]), len(configs), configs[0].batch, sizes)


def counts_digest(counts: np.ndarray | str | Path | None, config: TrainConfig) -> str | None:
    """The SHA-256 of the token counts that `jaxconf.train` is given, in hexadecimal digits; None if it is given none.

    Raises InputError for counts that do not fit the vocabulary.
    """
    return None if counts is None else given_counts(counts, config.vocab_size)[1]["counts_sha256"]


def check(config: TrainConfig, track: TrackConfig, checkpoint_every: int) -> None:
    """Raises InputError if no model can be trained with these settings. It is called before any work is done."""
    config.check()
    track.check()
    if checkpoint_every < 1:
        raise InputError(f"checkpoint_every is {checkpoint_every}; give at least 1")
    decoder = decoder_config(config)
    null_space_size(decoder, track.k)
    if track.components:
        check_others(decoder, track.components)
    held_neurons(config, decoder)
