"""Training runs in folders: what is recorded, tracked, gone on with and left behind.

A model's folder holds it in Hugging Face layout (config.json, model.safetensors, the tokenizer's files), `losses.npy` (float32 [steps],
nats per token), `emergence.parquet` (what was tracked) and `train.json` (the recipe and, once it is trained, the result).
"""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxconf.analysis.weights import null_space_size
from jaxconf.data.corpus import Corpus, read_corpus, write_tokenizer
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing
from jaxconf.results.run_folder import writable
from jaxconf.runtime.hosts import told_json
from jaxconf.runtime.placement import training_placement
from jaxconf.runtime.progress import Progress
from jaxconf.training import emergence
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.tracker import Tracker, tracked_steps
from jaxconf.training.trainer import hf_config, train_models

RECORD = "train.json"
CHECKPOINTS = "checkpoints"

Report = Callable[[int, dict[str, float]], None]


def train(
    config: TrainConfig,
    documents: Callable[[], Iterator[str]],
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    track: TrackConfig | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    force: bool = False,
    mesh: tuple[int, int] | None = None,
    progress: Progress = lambda what, done, total: None,
    report: Report = lambda step, figures: None,
) -> dict[str, Any]:
    """Train one model on the documents, measure it on the way, and leave it in `out` in Hugging Face layout.

    `documents` is called once for each pass over the text; `tokenizer`: a folder or hub id, else a byte-level BPE is trained. `track`:
    what is measured and when. With `resume` an interrupted run goes on from its newest good checkpoint, with the same losses to the bit
    as if it had never stopped (on the same kind of device; a run that is finished is left as it is, and where there is none one begins);
    `force` replaces a run. `mesh`: the sizes of its axes `data` and `model` (by default as `jaxconf.runtime.placement.training_placement` says).
    `report(step, figures)` gets the training loss (nats per token) and the throughput (tokens/s) every 50 steps.
    The same config, text and device give the same weights to the bit.

    Returns `loss` (mean of the last 50 steps), `held_out_loss` (nats per token) and `tracking_share` (of the time taken, 0 to 1). Raises
    InputError for shapes or a text that do not fit, for a folder that holds another run or cannot be written, and where the loss is no
    longer finite; Stopped when SIGTERM or SIGINT ended the training, after a checkpoint.
    """
    out, track = Path(out), track or TrackConfig()
    check(config, track, checkpoint_every)
    placed_on = placed([config], mesh)
    record = {"config": dataclasses.asdict(config), "track": dataclasses.asdict(track), "tokenizer": tokenizer and str(tokenizer)}

    def begun() -> dict[str, Any] | None:
        saved = check_record(out, RECORD, record, resume, force)
        if not (saved or force) and (out / CHECKPOINTS).exists():
            raise InputError(f"{out} holds checkpoints of something else; give another --out, or --force to replace them")
        return saved

    with writable(out):
        saved = told_json(begun)
        if saved and "result" in saved:
            return saved["result"]
        corpus = read_corpus(config.vocab_size, config.context, documents, tokenizer, progress)
        record["text_sha256"] = corpus.digest()
        if saved and saved["text_sha256"] != record["text_sha256"]:
            raise InputError(f"{out} holds a run on other text; give the same --data, or another --out")
        with full_disk(out):
            if not saved:
                shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
                for name in (emergence.FILE, "losses.npy", "config.json", "model.safetensors", RECORD):
                    (out / name).unlink(missing_ok=True)
            write_record(out, RECORD, record)
            [result] = train_group([config], [out], track, corpus, out / CHECKPOINTS, checkpoint_every, placed_on, progress, report)
            if "diverged_at" in result:
                raise InputError(
                    f"the loss is not a finite number at step {result['diverged_at']}; lower learning_rate, now {config.learning_rate:g}, and "
                    "start again with --force"
                )
            write_record(out, RECORD, {**record, "result": result})
    return result


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turns a write that fails during training into an InputError; what was written before, and each file's last version, stay."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}); make room there and go on with --resume") from error


def train_group(
    configs: Sequence[TrainConfig],
    folders: Sequence[Path],
    track: TrackConfig,
    corpus: Corpus,
    checkpoint_folder: Path,
    checkpoint_every: int,
    mesh: Mesh,
    progress: Progress,
    report: Report,
) -> list[dict[str, Any]]:
    """Train and track models of one shape side by side, each in its folder; `jaxconf.training.trainer.train_models` says what is returned and
    raised, to which `tracking_share` is added."""
    begun = time.perf_counter()
    if mesh.size > 1:
        progress(f"training on a mesh of data={mesh.shape['data']}, model={mesh.shape['model']}", 0, 0)
    trackers = [
        Tracker(folder, hf_config(config, corpus.begin, corpus.end), config, track, corpus)
        for config, folder in zip(configs, folders, strict=True)
    ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(corpus, folder)
    results = train_models(
        configs,
        corpus,
        folders,
        checkpoint_folder,
        checkpoint_every,
        lambda model, step, params, loss: trackers[model](step, params, loss),
        frozenset(tracked_steps(configs[0].steps, track)),
        report,
        mesh,
    )
    share = sum(tracker.seconds for tracker in trackers) / (time.perf_counter() - begun)
    return [{**result, "tracking_share": share} for result in results]


def placed(configs: Sequence[TrainConfig], sizes: tuple[int, int] | None) -> Mesh:
    """The mesh of models that are trained side by side. Raises InputError as `jaxconf.runtime.placement.training_placement` does."""
    return training_placement(config_from_hf(hf_config(configs[0])), len(configs), configs[0].batch, sizes)


def check(config: TrainConfig, track: TrackConfig, checkpoint_every: int) -> None:
    """Raises InputError for a recipe that no model can be trained by, before any work is done."""
    config.check()
    track.check()
    if checkpoint_every < 1:
        raise InputError(f"checkpoint_every is {checkpoint_every}; give at least 1")
    null_space_size(config_from_hf(hf_config(config)).d_model, track.k)


def check_record(folder: Path, name: str, record: dict[str, Any], resume: bool, force: bool) -> dict[str, Any] | None:
    """The record of the run that the folder holds, if it is to be gone on with.

    Raises InputError if there is a run and neither `resume` nor `force` is given, or if it is not the run that `record` describes.
    """
    if force:
        return None
    path = folder / name
    if not path.is_file():
        if (folder / "config.json").exists():
            raise InputError(f"{folder} holds a model already; give another --out, or --force to replace it")
        return None
    if not resume:
        raise InputError(f"{folder} holds a run already; --resume goes on with it, --force replaces it")
    try:
        saved = json.loads(path.read_text("utf-8"))
        unlike = [line for part in record for line in _differences(part, saved[part], json.loads(json.dumps(record[part])))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged, so the run cannot be gone on with; --force replaces it") from error
    if unlike:
        raise InputError(f"{folder} holds another run: {unlike[0]}; give the same options, or another --out")
    return saved


def _differences(part: str, saved: Any, given: Any) -> list[str]:
    """What differs in a part of two records, a phrase for each name: "steps is 10 there and 20 here"."""
    if not isinstance(given, dict):
        saved, given = {part: saved}, {part: given}
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    return [f"{name} is {saved.get(name)!r} there and {given.get(name)!r} here" for name in names]


def write_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
