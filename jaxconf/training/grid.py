"""Training grids: many small models that differ in a few settings, trained side by side and compared.

The folder of a grid holds `study.json` (the settings of the grid), a folder for each model in `models`, as
`jaxconf.train` writes it, and at the end `study.parquet` and `study.png`, the table and the figure that compare the
models.
"""

import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.data.corpus import Corpus, Documents, read_corpus
from jaxconf.models.errors import InputError
from jaxconf.results.run_folder import writable
from jaxconf.runtime.hosts import only_first_writes, told, told_json
from jaxconf.runtime.progress import Progress
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.grid_table import GRID, MODELS, TABLE, finished, tabulate
from jaxconf.training.records import record_to_resume, write_record
from jaxconf.training.run import CHECKPOINTS, RECORD, check, counts_digest, full_disk, mesh_for, train_group
from jaxconf.training.trainer import Report
from jaxconf.training.vary import check_varied, groups_of_one_shape, models_of_grid


def grid(
    base: TrainConfig,
    vary: Mapping[str, Sequence[Any]],
    seeds: int,
    data: str | Documents,
    out: str | Path,
    *,
    track: TrackConfig | None = None,
    counts: np.ndarray | str | Path | None = None,
    tokenizer: str | Path | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    force: bool = False,
    mesh: tuple[int, int] | None = None,
    progress: Progress = lambda what, done, total: None,
    report: Report = lambda step, measured: None,
) -> pd.DataFrame:
    """Train a model for each combination of the values in `vary` and each of `seeds` seeds, and compare the models.

    `vary`: name of a field of TrainConfig → its values. Models of one shape are trained side by side in one program.
    The shapes are trained one after the other. The other options are those of `jaxconf.train`; with `resume` a grid
    that was stopped continues.

    Returns the table that is written to `out`/study.parquet. It has a row for each model, with the values that were
    varied, the seed, the columns of `jaxconf.training.grid_table.OUTCOMES` at the last tracked step, and how many
    tokens were counted for the token-frequency direction, how many types occurred, and its split-half cosine. If a
    model has diverged, these columns are NaN and `diverged_at` is the step. `out`/study.png shows the table. Raises
    what `jaxconf.train` raises, except that a model that diverges does not stop the grid.
    """
    track = track or TrackConfig()
    _check(base, vary, seeds, track, checkpoint_every, mesh)
    digests = {_text_of(config): counts_digest(counts, config) for config in models_of_grid(base, vary, seeds).values()}
    record: dict[str, Any] = {
        "config": dataclasses.asdict(base),
        "track": dataclasses.asdict(track),
        "tokenizer": tokenizer and str(tokenizer),
        "vary": {name: list(values) for name, values in vary.items()},
        "seeds": seeds,
    }
    with only_first_writes(Path(out)) as out, writable(out):
        saved, trained = told_json(lambda: _saved_grid(out, record, resume, force))
        if saved and saved.get("counts_sha256", dict.fromkeys(digests)) != digests:
            raise InputError(f"{out} holds a grid with other token counts; give the same --counts, or another --out")
        # The models' names and the checkpoints' folders depend on the order of `vary` when the grid was begun.
        models = models_of_grid(base, (saved or record)["vary"], seeds)
        groups = groups_of_one_shape(models)
        left = [index for index, names in enumerate(groups) if not set(names) <= set(trained)]
        first = [models[groups[index][0]] for index in left]
        corpora = _read_corpora(first, data, tokenizer, progress)
        texts = {text: corpus.digest() for text, corpus in corpora.items()}
        if saved and any(saved["text_sha256"].get(text) != digest for text, digest in texts.items()):
            raise InputError(f"{out} holds a grid on other text; give the same --data, or another --out")
        with full_disk(out):
            if not saved:
                _clear(out)
                write_record(out / GRID, {**record, "text_sha256": texts, "counts_sha256": digests})
            for index in left:
                of_group = {out / MODELS / name: models[name] for name in groups[index]}
                configs = list(of_group.values())
                progress(f"training {len(configs)} models at once, shape {index + 1} of {len(groups)}", 0, 0)
                corpus, checkpoints = corpora[_text_of(configs[0])], out / CHECKPOINTS / str(index)
                placed_on = mesh_for(configs, mesh)
                results = train_group(
                    of_group, corpus, track, counts, checkpoints, checkpoint_every, placed_on, progress, report
                )
                for (folder, config), result in zip(of_group.items(), results, strict=True):
                    write_record(folder / RECORD, {"config": dataclasses.asdict(config), "result": result})
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        return pd.read_parquet(io.BytesIO(told(lambda: _tabulated(out))))


def _check(
    base: TrainConfig,
    vary: Mapping[str, Sequence[Any]],
    seeds: int,
    track: TrackConfig,
    checkpoint_every: int,
    mesh: tuple[int, int] | None,
) -> None:
    """Raises InputError if a model of the grid cannot be trained. It is called before any work is done."""
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; give at least 1")
    if not (track.points and track.effects_every):
        raise InputError("a grid compares what is tracked; give track.points and track.effects_every of at least 1")
    for name in vary:
        check_varied(name)
    models = models_of_grid(base, vary, seeds)
    for config in models.values():
        check(config, track, checkpoint_every)
    for names in groups_of_one_shape(models):
        mesh_for([models[name] for name in names], mesh)


def _saved_grid(
    out: Path, record: dict[str, Any], resume: bool, force: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """The record of the grid in `out` if it is to be resumed, else None; and the names of its finished models."""
    saved = record_to_resume(out / GRID, record, resume, force)
    there = [folder for folder in (out / MODELS, out / CHECKPOINTS) if folder.exists()]
    if there and not (saved or (out / GRID).is_file()):
        raise InputError(f"{there[0]} exists already but is not of a grid; give another --out")
    return saved, [folder.name for folder in (out / MODELS).glob("*") if saved and finished(folder)]


def _clear(out: Path) -> None:
    """Delete the models and checkpoints of an earlier grid."""
    for folder in filter(Path.exists, (out / MODELS, out / CHECKPOINTS)):
        shutil.rmtree(folder)


def _read_corpora(
    configs: Sequence[TrainConfig], data: str | Documents, tokenizer: str | Path | None, progress: Progress
) -> dict[str, Corpus]:
    """`_text_of` a config → the corpus that models with such a config are trained on."""
    corpora: dict[str, Corpus] = {}
    for config in configs:
        if (kind := _text_of(config)) not in corpora:
            corpora[kind] = read_corpus(config.vocab_size, config.context, data, tokenizer, progress)
    return corpora


def _text_of(config: TrainConfig) -> str:
    """A key that is the same for models that are trained on the same tokens."""
    return f"vocab_size {config.vocab_size}, context {config.context}"


def _tabulated(out: Path) -> bytes:
    tabulate(out)
    return (out / TABLE).read_bytes()
