"""Studies: many small models that differ in a few settings, trained side by side, and one table and one picture that compare them."""

import dataclasses
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy.special
from matplotlib.figure import Figure

from jaxconf.data.corpus import Corpus, read_corpus
from jaxconf.models.errors import InputError, nearest
from jaxconf.models.files import replacing
from jaxconf.report.style import ENTROPY, NORMAL, STYLE
from jaxconf.results.run_folder import writable
from jaxconf.runtime.hosts import told, told_json
from jaxconf.runtime.progress import Progress
from jaxconf.training.config import ARRAYS, TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.run import CHECKPOINTS, RECORD, Report, check, check_record, full_disk, placed, train_group, write_record

STUDY = "study.json"
TABLE = "study.parquet"
MODELS = "models"

# What may be varied, and what kind of value it has.
VARIED: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(TrainConfig) if field.name not in ("seed", "attributes")}

OUTCOMES: dict[str, str] = {
    "held_out_loss": "held-out loss, nats per token",
    "entropy": "mean entropy of the predictions, nats",
    "ece": "expected calibration error, 0 to 1",
    "above_chance": "neurons with rho above chance",
    "first_above_chance": "first step with such a neuron",
    "max_ln_mediated": "largest ln_mediated of those neurons",
    "entropy_neurons": "entropy neurons by the rule",
    "frequency_neurons": "frequency neurons by the rule",
    "bottom_singular_value": "smallest singular value / median",
}


def study(
    base: TrainConfig,
    vary: Mapping[str, Sequence[Any]],
    seeds: int,
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
) -> pd.DataFrame:
    """Train a model for each combination of the values in `vary` (name of TrainConfig → values) and each of `seeds` seeds, and compare them.

    Models of one shape are trained side by side in one program, the shapes in turn; each model has a folder in `out`/models, as `train`
    leaves it. Returns the table that is written to `out`/study.parquet, a row per model: what was varied, the seed, and OUTCOMES at the
    last tracked step (NaN where a model has diverged, at the step in `diverged_at`). `out`/study.png shows it. A study that was stopped
    goes on with `resume`. Raises as `train` does.
    """
    out, track = Path(out), track or TrackConfig()
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; give at least 1")
    if not (track.points and track.effects_every):
        raise InputError("a study compares what is tracked; give track.points and track.effects_every of at least 1")
    for name in vary:
        _check_varied(name)
    members = _members(base, vary, seeds)
    for config in members.values():
        check(config, track, checkpoint_every)
    for names in _groups(members):
        placed([members[name] for name in names], mesh)
    record = {
        "config": dataclasses.asdict(base),
        "track": dataclasses.asdict(track),
        "tokenizer": tokenizer and str(tokenizer),
        "vary": {name: list(values) for name, values in vary.items()},
        "seeds": seeds,
    }

    def begun() -> tuple[dict[str, Any] | None, list[str]]:
        """The record of the study that the folder holds, and which of its models are finished."""
        saved = check_record(out, STUDY, record, resume, force)
        old = [] if saved else [folder for folder in folders_of_models if folder.exists()]
        if old and not (out / STUDY).is_file():
            raise InputError(f"{old[0]} exists already and is not of a study; give another --out")
        return saved, [folder.name for folder in (out / MODELS).glob("*") if saved and _finished(folder)]

    def compared() -> bytes:
        compare(out)
        return (out / TABLE).read_bytes()

    folders_of_models = out / MODELS, out / CHECKPOINTS
    with writable(out):
        saved, finished = told_json(begun)
        if saved:  # names and checkpoints go by the order in which the study was begun
            record["vary"] = saved["vary"]
            members = _members(base, saved["vary"], seeds)
        groups = list(enumerate(_groups(members)))
        left = [(index, names) for index, names in groups if not set(names) <= set(finished)]
        corpora: dict[str, Corpus] = {}
        for _, names in left:
            first = members[names[0]]
            if _kind(first) not in corpora:
                corpora[_kind(first)] = read_corpus(first.vocab_size, first.context, documents, tokenizer, progress)
        texts = {kind: corpus.digest() for kind, corpus in corpora.items()}
        if saved and any(saved["text_sha256"].get(kind) != text for kind, text in texts.items()):
            raise InputError(f"{out} holds a study of other text; give the same --data, or another --out")
        with full_disk(out):
            if not saved:
                for folder in filter(Path.exists, folders_of_models):
                    shutil.rmtree(folder)
                write_record(out, STUDY, {**record, "text_sha256": texts})
            for index, names in left:
                folders, configs = [out / MODELS / name for name in names], [members[name] for name in names]
                progress(f"models {len(names)} at once, {index + 1} of {len(groups)} shapes", 0, 0)
                checkpoints, corpus = out / CHECKPOINTS / str(index), corpora[_kind(configs[0])]
                placed_on = placed(configs, mesh)
                results = train_group(configs, folders, track, corpus, checkpoints, checkpoint_every, placed_on, progress, report)
                for folder, config, result in zip(folders, configs, results, strict=True):
                    write_record(folder, RECORD, {"config": dataclasses.asdict(config), "result": result})
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        return pd.read_parquet(io.BytesIO(told(compared)))


def parse_vary(given: Sequence[str]) -> dict[str, list[Any]]:
    """What `--vary NAME=VALUE,VALUE…` means, given once for each name.

    Raises InputError for a name that TrainConfig does not have (naming the nearest), and for a value of the wrong kind.
    """
    vary: dict[str, list[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.replace("-", "_")
        if not equals or not values:
            raise InputError(f"--vary {text!r} names no values; give NAME=VALUE,VALUE")
        _check_varied(name)
        if name in vary:
            raise InputError(f"{name} is varied twice; give all its values at once")
        vary[name] = [_parse(name, VARIED[name], value) for value in values.split(",")]
        if len(set(vary[name])) < len(vary[name]):
            raise InputError(f"--vary {text} has a value twice; give each once")
    return vary


def _check_varied(name: str) -> None:
    if name == "seed":
        raise InputError("the seed is varied by --seeds; give how many")
    if name not in VARIED:
        raise InputError(f"there is no {name!r} to vary; the nearest is {nearest(name, VARIED)!r}")


def _parse(name: str, kind: Any, text: str) -> Any:
    options = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
    for option in options:
        if str(option).lower() == text.lower():
            return option
    number = int if kind in (int, int | None) else float
    try:
        if not options:
            return number(text)
    except ValueError:
        pass
    expected = "one of " + ", ".join(str(option) for option in options) if options else "a whole number" if number is int else "a number"
    raise InputError(f"{name} is varied to {text!r}, which is not {expected}")


def _members(base: TrainConfig, vary: Mapping[str, Sequence[Any]], seeds: int) -> dict[str, TrainConfig]:
    """Name → config of each model of the study."""
    members = {}
    for values in itertools.product(*vary.values()):
        setting = dict(zip(vary, values, strict=True))
        for seed in range(base.seed, base.seed + seeds):
            members[_name({**setting, "seed": seed})] = dataclasses.replace(base, **setting, seed=seed)
    return members


def _name(setting: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in setting.items())


def _groups(members: Mapping[str, TrainConfig]) -> list[list[str]]:
    """The models that one program can train: those that differ in nothing but ARRAYS."""
    groups: dict[TrainConfig, list[str]] = {}
    fixed = {name: getattr(TrainConfig(), name) for name in ARRAYS}
    for name, config in members.items():
        groups.setdefault(dataclasses.replace(config, **fixed), []).append(name)
    return list(groups.values())


def _kind(config: TrainConfig) -> str:
    """What the text of models has in common that are trained on the same tokens."""
    return f"vocab_size {config.vocab_size}, context {config.context}"


def _finished(folder: Path) -> bool:
    path = folder / RECORD
    return path.is_file() and "result" in json.loads(path.read_text("utf-8"))


def compare(out: Path) -> pd.DataFrame:
    """Write study.parquet and study.png of a finished study; the table. Raises InputError if a model is still to be trained."""
    record = read_study(out)
    vary, base = record["vary"], TrainConfig(**{**record["config"], "attributes": tuple(record["config"]["attributes"])})
    rows = []
    for name, config in _members(base, vary, record["seeds"]).items():
        folder = out / MODELS / name
        if not _finished(folder):
            raise InputError(f"{out} is not finished: {name} is still to be trained; go on with --resume")
        result = json.loads((folder / RECORD).read_text("utf-8"))["result"]
        found = result if "diverged_at" in result else outcome(Emergence.load(folder), result)
        rows.append({"model": name, **{key: getattr(config, key) for key in vary}, "seed": config.seed, **found})
    table = pd.DataFrame(rows).reindex(columns=["model", *vary, "seed", *OUTCOMES, "diverged_at"])
    with replacing(out / TABLE) as path:
        table.to_parquet(path)
    with replacing(out / "study.png") as path:
        picture(table, list(vary)).savefig(path, dpi=150, format="png")
    return table


def read_study(out: Path) -> dict[str, Any]:
    """The record of the study in a folder. Raises InputError if there is none."""
    path = out / STUDY
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; give the folder of a study made with `jaxconf train --vary`") from error


def outcome(e: Emergence, result: Mapping[str, Any]) -> dict[str, float]:
    """OUTCOMES of one model, from what was tracked and the result of its training."""
    chance = e.neurons["step"].map(e.steps.set_index("step")["rho_chance"])
    above = e.neurons[e.neurons["rho"] > chance]
    last = e.steps.iloc[-1]
    above_last, neurons = above[above["step"] == last["step"]], e.neurons[e.neurons["step"] == last["step"]]
    values = e.singular_values[-1]
    return {
        "held_out_loss": result["held_out_loss"],
        "entropy": last["entropy"],
        "ece": last["ece"],
        "above_chance": len(above_last),
        "first_above_chance": above["step"].min(),
        "max_ln_mediated": above_last["ln_mediated"].max(),
        "entropy_neurons": int(neurons["is_entropy_neuron"].sum()),
        "frequency_neurons": int(neurons["is_frequency_neuron"].sum()),
        "bottom_singular_value": values[-1] / np.median(values),
    }


@mpl.rc_context(STYLE)
def picture(table: pd.DataFrame, vary: list[str]) -> Figure:
    """A panel for each outcome: every model a point, the mean over seeds and its 95% interval (Student's t) beside it."""
    settings = table[vary].astype(str).agg("\n".join, axis=1) if vary else pd.Series("", index=table.index)
    labels = list(dict.fromkeys(settings))
    columns = 3
    rows = -(-len(OUTCOMES) // columns)
    figure = Figure(figsize=(max(9.0, 1.0 + 0.55 * len(labels) * columns), 2.6 * rows), layout="constrained")
    title = ", ".join(vary) or "seeds"
    figure.suptitle(f"{len(table)} models by {title}; bars: 95% interval of the mean over seeds", fontsize="medium")
    for axes, (name, meaning) in zip(figure.subplots(rows, columns, squeeze=False).flat, OUTCOMES.items(), strict=False):
        for place, label in enumerate(labels):
            values = table.loc[settings == label, name].dropna().to_numpy(float)
            axes.plot(np.full(len(values), place - 0.12), values, "o", color=NORMAL, markersize=3.5, alpha=0.7)
            if len(values):
                axes.errorbar(place + 0.12, values.mean(), half_interval(values), fmt="s", color=ENTROPY, markersize=4, capsize=3)
        if table[name].isna().all():
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center")
        axes.set_title(meaning, fontsize="small", loc="left")
        axes.set_xticks(range(len(labels)), labels, fontsize="x-small")
        axes.set_xlim(-0.6, len(labels) - 0.4)
    return figure


def half_interval(values: np.ndarray) -> float:
    """Half the width of the 95% interval of the mean of independent values, by Student's t; 0 for a single one, which has none."""
    if len(values) < 2:
        return 0.0
    return float(scipy.special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5)
