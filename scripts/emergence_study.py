"""The study in docs/emergence.md: what makes confidence neurons emerge in a world whose best predictions are known.

python scripts/emergence_study.py [--out runs/emergence_study] [--seeds 8] [--only norm,tied]

Trains the recipe of `jaxconf train` and, one factor at a time, what differs from it, and writes
docs/emergence_study.md. QUESTIONS holds every hypothesis with the direction that was expected, as it was written before
the study was run. If it is stopped, the same command goes on where it was.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from jaxconf.data.worlds import World, world_of
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, UNABLATED, moved_away
from jaxconf.training.config import PRESET_DATA, PRESETS, TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.grid import grid
from jaxconf.training.grid_table import MODELS
from jaxconf.training.run import RECORD

BASE = PRESETS["noise"]
TRACK = TrackConfig(points=2, effects_every=2)  # the effects at the last step, and at step 0 for comparison
PAGE = Path(__file__).parents[1] / "docs" / "emergence_study.md"
Expected = Literal["some", "none", "more", "fewer", "same"]
SAID: dict[Expected, str] = {
    "some": "at least half of the seeds have entropy neurons",
    "none": "no seed has an entropy neuron",
    "more": "more entropy neurons than the base",
    "fewer": "fewer entropy neurons than the base",
    "same": "as many entropy neurons as the base",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting: what differs from the base, and what was expected of it."""

    label: str
    expected: Expected
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    world: dict[str, Any] = dataclasses.field(default_factory=dict)


class Question(NamedTuple):
    """A factor, why it might matter, and its cells beside the base."""

    name: str
    why: str
    cells: list[Cell]


def _attribute(text: str) -> dict[str, Any]:
    return {"model_type": "opt", "attributes": (text,)}


QUESTIONS = [
    Question("base", "The world and recipe of `jaxconf train`.", [Cell("base", "some")]),
    Question(
        "range",
        "What these neurons are for is uncertainty that varies and can be told. With one ε for all there is nothing to "
        "do.",
        [
            Cell("one chain that never ends, one ε", "none", {}, {"levels": 1, "restart": False}),
            Cell("one ε", "none", {}, {"levels": 1}),
            Cell("ε from 0.35 to 0.65", "fewer", {}, {"least": 0.35, "most": 0.65}),
        ],
    ),
    Question(
        "signal",
        "ε must be told by the text: by a marker, or from the stretch so far. If nothing tells it, one confidence is "
        "best.",
        [Cell("inferred", "some", {}, {"signal": "inferred"}), Cell("none", "none", {}, {"signal": "none"})],
    ),
    Question(
        "background",
        "With Zipf's background the best guess at high ε is the unigram distribution, so that frequency neurons share "
        "the work.",
        [Cell("Zipf", "fewer", {}, {"zipf": 1.0})],
    ),
    Question(
        "norm",
        "An entropy neuron acts through the final norm's scale; without that norm there can be none.",
        [
            Cell("LayerNorm (opt)", "some", {"model_type": "opt"}),
            Cell("no final norm (opt)", "none", _attribute("_remove_final_layer_norm=true")),
            Cell("RMSNorm, gated (llama)", "some", {"model_type": "llama"}),
            Cell("LayerNorm, gated (stablelm)", "some", {"model_type": "stablelm"}),
        ],
    ),
    Question(
        "tied", "An unembedding of its own can leave a null space free.", [Cell("untied", "more", {"tied": False})]
    ),
    Question(
        "weight_decay",
        "Weight decay shrinks the directions of the unembedding that no word needs.",
        [Cell("0", "fewer", {"weight_decay": 0.0}), Cell("1", "more", {"weight_decay": 1.0})],
    ),
    Question(
        "dropout", "Paper: GPT-2 has dropout, Pythia none, and both have them.", [Cell("0.1", "same", {"dropout": 0.1})]
    ),
    Question(
        "z_loss",
        "z-loss holds the logits' size, which is what the scale sets.",
        [Cell("1e-3", "fewer", {"z_loss": 1e-3})],
    ),
    Question(
        "words",
        "A null direction needs room: the stream against the vocabulary (d/V).",
        [
            Cell(f"{words} words", expected, {}, {"words": words})
            for words, expected in ((64, "more"), (256, "fewer"), (32, "more"), (512, "fewer"))
        ],
    ),
    Question(
        "layers",
        "The last MLP suffices once attention has fetched the marker.",
        [Cell(str(n), "same", {"layers": n}) for n in (1, 3, 4)],
    ),
    Question(
        "neurons",
        "Many neurons can share the work, so that none does 0.01 nats of it.",
        [Cell(str(n), expected, {"neurons": n}) for n, expected in ((32, "fewer"), (384, "fewer"))],
    ),
    Question(
        "heads",
        "Attention fetches the marker; one head is enough for that.",
        [Cell("1", "same", {"heads": 1}), Cell("4", "same", {"heads": 4})],
    ),
    Question(
        "pairs",
        "Two factors together: the controls with Zipf's background, where confidence is the unigram's share.",
        [
            Cell("Zipf, one ε", "none", {}, {"zipf": 1.0, "levels": 1}),
            Cell("Zipf, inferred", "fewer", {}, {"zipf": 1.0, "signal": "inferred"}),
        ],
    ),
]


def settings(cell: Cell) -> tuple[TrainConfig, World]:
    """The recipe and the world of a cell, with a vocabulary of the world's size."""
    base = world_of(PRESET_DATA["noise"])
    assert base
    world = dataclasses.replace(base, **cell.world)
    return dataclasses.replace(BASE, **{"vocab_size": len(world.tokens), **cell.config}), world


def outcomes(folder: Path) -> pd.DataFrame:
    """A row for each model of a grid: its outcomes at the last step, NaN where it has none."""
    rows = []
    for model in sorted(folder.glob(f"{MODELS}/*")):
        result = json.loads((model / RECORD).read_text("utf-8"))["result"]
        if "diverged_at" in result:
            rows.append({"entropy": np.nan})
            continue
        e = Emergence.load(model)
        last = e.neurons[e.neurons["step"] == e.steps["step"].iloc[-1]]
        whole = e.optimum[(e.optimum["step"] == e.steps["step"].iloc[-1]) & (e.optimum["level"] < 0)]
        [own] = whole[whole["how"] == UNABLATED].to_dict("records")
        rows.append(
            {
                "entropy": int(last["is_entropy_neuron"].sum()),
                "frequency": int(last["is_frequency_neuron"].sum()),
                "above_chance": int((last["rho"] > e.steps["rho_chance"].iloc[-1]).sum()),
                "largest_rho": last["rho"].max(),
                "largest_mediated": last["ln_mediated"].max(),
                "excess_loss": own["excess_loss"],
                "entropy_error": own["entropy_error"],
                "through_norm": through_norm(e),
            }
        )
    return pd.DataFrame(rows)


def through_norm(e: Emergence) -> float:
    """The share of what the entropy set does to the entropies of the levels that passes the norm; NaN without a set.

    It is 1 − the sum over levels of |change with the norm frozen| over that of |change|, at the last step.
    """
    last = e.optimum[(e.optimum["step"] == e.steps["step"].iloc[-1]) & (e.optimum["level"] >= 0)]
    own = last[(last["set"] == "entropy") & (last["kind"] == "set")]
    if own.empty:
        return float("nan")
    before = last[last["how"] == UNABLATED].set_index("level")["entropy"]
    change = {how: (rows.set_index("level")["entropy"] - before).abs().sum() for how, rows in own.groupby("how")}
    return 1 - change[ABLATED_FROZEN] / change[ABLATED]


def held(cell: Cell, found: pd.DataFrame, base: pd.DataFrame) -> str:
    """Whether what was expected is so: yes, no, or that the seeds do not tell."""
    with_some, seeds = int((found["entropy"] > 0).sum()), len(found)
    if cell.expected in ("some", "none"):
        return "yes" if (with_some == 0 if cell.expected == "none" else 2 * with_some >= seeds) else "no"
    side = {"more": "greater", "fewer": "less", "same": "two-sided"}[cell.expected]
    p = stats.mannwhitneyu(found["entropy"], base["entropy"], alternative=side).pvalue
    opposite = stats.mannwhitneyu(base["entropy"], found["entropy"], alternative=side).pvalue
    if cell.expected == "same":
        return f"{'no' if p < 0.05 else 'not contradicted'} (p = {p:.2g})"
    return f"{'yes' if p < 0.05 else 'no, the opposite' if opposite < 0.05 else 'not shown'} (p = {p:.2g})"


def line(cell: Cell, found: pd.DataFrame, base: pd.DataFrame) -> str:
    """A row of the table of outcomes."""
    some, seeds = int((found["entropy"] > 0).sum()), len(found)
    interval = stats.binomtest(some, seeds).proportion_ci(method="exact")

    def each(name: str, digits: str = ".2f") -> str:
        return ", ".join("–" if pd.isna(value) else f"{value:{digits}}" for value in found[name])

    cells = [
        cell.label,
        f"{some} of {seeds} ({interval.low:.2f}–{interval.high:.2f})",
        each("entropy", ".0f"),
        each("frequency", ".0f"),
        f"{found['above_chance'].median():.0f}",
        each("through_norm"),
        f"{found['excess_loss'].median():.3f}",
        f"{SAID[cell.expected]}: **{held(cell, found, base)}**",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "setting",
    "seeds with entropy neurons (95% interval)",
    "entropy neurons of each seed",
    "frequency neurons of each seed",
    "neurons with rho above chance, median",
    "share of the set's effect on entropy that passes the norm",
    "loss above the optimum, nats, median",
    "expected, and whether it is so",
)


def page(found: dict[str, dict[str, pd.DataFrame]], seeds: int) -> str:
    config, world = settings(Cell("base", "some"))
    shown = ("model_type", "layers", "width", "heads", "neurons", "vocab_size", "context", "tied", "steps", "batch",
             "learning_rate", "weight_decay")  # fmt: skip
    recipe = ", ".join(f"{name} {getattr(config, name)}" for name in shown)
    lines = [
        "# What makes confidence neurons emerge: every setting and seed",
        "",
        "Written by `scripts/emergence_study.py`. [emergence.md](emergence.md) says what the numbers mean.",
        "",
        f"The base is `--data {world.source}` with {recipe}. Each other setting differs from it as its row says; "
        f"{seeds} seeds each, listed in their order. Neurons are named by the rule `default` on 4,096 held-out tokens "
        "at the last step. Comparisons with the base are Mann–Whitney tests of the seeds' numbers of entropy neurons, "
        "one-sided but for “as many”, without a correction for their number. A dash (–) means that a seed has no "
        "value.",
    ]
    base = found["base"]["base"]
    for question in QUESTIONS:
        if question.name not in found:
            continue
        lines += [
            "",
            f"## {question.name}",
            "",
            question.why,
            "",
            "| " + " | ".join(HEAD) + " |",
            "|---" * len(HEAD) + "|",
        ]
        lines += [
            line(cell, found[question.name][cell.label], base)
            for cell in question.cells
            if cell.label in found[question.name]
        ]
    return "\n".join([*lines, ""])


def job(folder: Path) -> pd.DataFrame:
    """How far the entropy set of each model of a grid moves the entropy from the best one, beside random sets."""
    frames = []
    for model in sorted(folder.glob(f"{MODELS}/*")):
        e = Emergence.load(model)
        frames.append(moved_away(e.optimum[e.optimum["step"] == e.steps["step"].iloc[-1]]).assign(model=model.name))
    return pd.concat(frames, ignore_index=True)


def report(step: int, measured: dict[str, float]) -> None:
    if step % 200 == 0:
        print(
            f"  step {step}: {measured['loss']:.3f} nats per token, {measured['tokens_per_second']:,.0f} tokens/s",
            flush=True,
        )


def main(out: Path = Path("runs/emergence_study"), seeds: int = 8, only: str = "") -> None:
    names = [question.name for question in QUESTIONS]
    wanted = set(only.split(",")) if only else set(names)
    if unknown := wanted - set(names):
        raise InputError(f"there is no question {unknown.pop()!r}; give some of {', '.join(names)}")
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for question in QUESTIONS:
        for number, cell in enumerate(question.cells):
            folder = out / question.name / str(number)
            config, world = settings(cell)
            if question.name in wanted:
                print(f"{question.name}: {cell.label}", flush=True)
                grid(config, {}, seeds, world.source, folder, track=TRACK, resume=True, report=report)
            if (folder / "study.parquet").is_file():
                found.setdefault(question.name, {})[cell.label] = outcomes(folder)
                if "base" in found:
                    with replacing(PAGE) as path:
                        path.write_text(page(found, seeds))
    moved = job(out / "base" / "0")
    print(
        json.dumps(
            moved.groupby(["set", "how", "level"])[["error_change", "above_random"]]
            .mean()
            .round(4)
            .reset_index()
            .to_dict("records")
        )
    )


if __name__ == "__main__":
    tyro.cli(main)
