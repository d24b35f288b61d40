"""The study in docs/emergence.md: what makes confidence neurons emerge in a world whose best predictions are known.

python scripts/emergence_study.py [--out runs/emergence_study] [--seeds 8] [--only norm,tied]

Trains the recipe of `jaxconf train` and, one factor at a time, what differs from it, and writes
docs/emergence_study.md and the table in docs/emergence.md. scripts/emergence_questions.py holds every hypothesis with
the direction that was expected. If it is stopped, the same command goes on where it was.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from emergence_questions import QUESTIONS, SAID, Cell
from emergence_unnormed import HEADING, unnormed_lines
from PIL import Image
from scipy import stats

from jaxconf.data.worlds import World, world_of
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.report.style import save_figures
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, SURPASSED, UNABLATED, WORDS, moved_away
from jaxconf.training.config import PRESET_DATA, PRESETS, TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import WORDS as WORDS_OF_EVENTS
from jaxconf.training.events import events
from jaxconf.training.events_figure import emergence_events
from jaxconf.training.grid import grid
from jaxconf.training.grid_table import MODELS
from jaxconf.training.optimum_figures import emergence_optimum, emergence_optimum_sets
from jaxconf.training.run import RECORD, train
from jaxconf.training.summary import summary_lines
from jaxconf.training.tracker import effect_steps

BASE = PRESETS["noise"]
TRACK = TrackConfig(points=24, effects_every=1)
HOLD_FROM = 200
HELD = "## Winners held at zero"
PAGE = Path(__file__).parents[1] / "docs" / "emergence_study.md"
SUMMARY = PAGE.with_name("emergence.md"), "<!-- written by scripts/emergence_study.py -->", "<!-- until here -->"


def settings(cell: Cell) -> tuple[TrainConfig, World]:
    """The recipe and the world of a cell, with a vocabulary of the world's size."""
    base = world_of(PRESET_DATA["noise"])
    assert base
    world = dataclasses.replace(base, **cell.world)
    return dataclasses.replace(BASE, **{"vocab_size": len(world.tokens), **cell.config}), world


def outcomes(folder: Path) -> pd.DataFrame:
    """A row for each model of a grid: its outcomes at the last step, NaN where it has none."""
    return pd.DataFrame([outcomes_of(model) for model in sorted(folder.glob(f"{MODELS}/*"))])


def outcomes_of(model: Path) -> dict[str, Any]:
    """The outcomes of a model at its last step; without effects if it has diverged."""
    if "diverged_at" in json.loads((model / RECORD).read_text("utf-8"))["result"]:
        return {"entropy": np.nan}
    e = Emergence.load(model)
    last = e.neurons[e.neurons["step"] == e.steps["step"].iloc[-1]]
    whole = e.optimum[(e.optimum["step"] == e.steps["step"].iloc[-1]) & (e.optimum["level"] < 0)]
    [own] = whole[whole["how"] == UNABLATED].to_dict("records")
    return {
        "entropy": int(last["is_entropy_neuron"].sum()),
        "frequency": int(last["is_frequency_neuron"].sum()),
        "above_chance": int((last["rho"] > e.steps["rho_chance"].iloc[-1]).sum()),
        "excess_loss": own["excess_loss"],
        "through_norm": through_norm(e),
        "first_step": e.neurons.loc[e.neurons["is_entropy_neuron"], "step"].min(),
        "named": last.loc[last["is_entropy_neuron"], "neuron"].tolist(),
    }


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


def some_of(found: pd.DataFrame) -> str:
    """How many of the seeds have entropy neurons, with the exact binomial interval."""
    some, seeds = int((found["entropy"] > 0).sum()), len(found)
    interval = stats.binomtest(some, seeds).proportion_ci(method="exact")
    return f"{some} of {seeds} ({interval.low:.2f}–{interval.high:.2f})"


def line(cell: Cell, found: pd.DataFrame, base: pd.DataFrame) -> str:
    """A row of the table of outcomes."""

    def each(name: str, digits: str = ".2f") -> str:
        return ", ".join("–" if pd.isna(value) else f"{value:{digits}}" for value in found[name])

    cells = [
        cell.label,
        some_of(found),
        each("entropy", ".0f"),
        each("frequency", ".0f"),
        each("first_step", ".0f"),
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
    "measured step at which each seed first has an entropy neuron",
    "neurons with rho above chance, median",
    "share of the set's effect on entropy that passes the norm",
    "loss above the optimum, nats, median",
    "expected, and whether it is so",
)


def page(found: dict[str, dict[str, pd.DataFrame]], seeds: int) -> list[str]:
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
        f"at the last step, and at {len(effect_steps(config.steps, TRACK)) - 1} steps up to it, evenly spaced on a "
        "log scale. Comparisons with the base are Mann–Whitney tests of the seeds' numbers of entropy neurons, "
        "one-sided but for “as many”, without a correction for their number. A dash (–) means that a seed has no "
        "value. Rows with a single dash for the first step were measured in an earlier run, which measured the last "
        "step alone.",
    ]
    base, kept = found["base"]["base"], rows_of(PAGE.read_text("utf-8"))
    for question in QUESTIONS:
        rows = [
            line(cell, found[question.name][cell.label], base)
            if cell.label in found.get(question.name, {})
            else kept.get((question.name, cell.label), "")
            for cell in question.cells
        ]
        if not any(rows):
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
        lines += filter(None, rows)
    return lines


def rows_of(text: str) -> dict[tuple[str, str], str]:
    """The rows of a page's tables, by the heading above and the first cell; of settings not run anew, they are kept."""
    rows, heading = {}, ""
    for row in text.splitlines():
        if row.startswith("## "):
            heading = row.removeprefix("## ")
        elif row.startswith("| "):
            rows[heading, row.split(" | ")[0].removeprefix("| ")] = row
    return rows


def kept_section(text: str, heading: str) -> list[str]:
    """The lines of a page's section, for one that was not measured anew; none if the page has no such section."""
    _, found, after = text.partition(f"\n{heading}\n")
    return ["", heading, *after.partition("\n## ")[0].splitlines()] if found else []


def summary(found: dict[str, dict[str, pd.DataFrame]], earlier: str) -> list[str]:
    """A table with a short row for each setting; settings that were not run have that of the `earlier` page."""
    lines = ["| setting | seeds with entropy neurons (95% interval) | expected |", "|---|---|---|"]
    kept = rows_of(earlier)
    for question in QUESTIONS:
        for cell in question.cells:
            name = cell.label if cell.label == question.name else f"{question.name}: {cell.label}"
            if cell.label not in found.get(question.name, {}):
                lines += [row for (_, setting), row in kept.items() if setting == name]
            else:
                of_seeds = found[question.name][cell.label]
                said = f"{SAID[cell.expected]}: {held(cell, of_seeds, found['base']['base'])}"
                lines.append(f"| {name} | {some_of(of_seeds)} | {said} |")
    return lines


def rewritten(text: str, begin: str, end: str, lines: list[str]) -> str:
    """The text with `lines` in place of what stands between the lines `begin` and `end`."""
    before, _, rest = text.partition(f"{begin}\n")
    _, found, after = rest.partition(end)
    assert found, f"the text has no lines {begin} and {end}"
    return "".join([before, begin, "\n\n", *(f"{line}\n" for line in lines), "\n", end, after])


def job_lines(folder: Path) -> list[str]:
    """A table: how far ablating the entropy set of each model moves the entropy from the best one, by level."""
    frames = []
    for model in sorted(folder.glob(f"{MODELS}/*")):
        e = Emergence.load(model)
        frames.append(moved_away(e.optimum[e.optimum["step"] == e.steps["step"].iloc[-1]]))
    rows = pd.concat(frames, ignore_index=True)
    rows = rows[(rows["set"] == "entropy") & (rows["level"] >= 0)]
    lines = [
        "",
        "## What the entropy sets of the base do",
        "",
        "The entropy neurons of each seed are ablated together. The change of the mean |model's entropy − best "
        "entropy| at each level (nats; positive: further from the best), the median over seeds; and in how many seeds "
        "it is "
        f"above {SURPASSED:.0%} of 20 random sets of as many neurons.",
        "",
        "| ε | " + " | ".join(f"{WORDS[how]} | seeds above" for how in WORDS) + " |",
        "|---" * (1 + 2 * len(WORDS)) + "|",
    ]
    for noise, of_level in rows.groupby("noise"):
        cells = []
        for how in WORDS:
            part = of_level[of_level["how"] == how]
            cells += [
                f"{part['error_change'].median():+.4f}",
                f"{(part['above_random'] > SURPASSED).sum()} of {len(part)}",
            ]
        lines.append(f"| {noise:.2f} | " + " | ".join(cells) + " |")
    return lines


def order_lines(folder: Path) -> list[str]:
    """A table: when each event of a track happened in each model of a grid."""
    found = {model.name: events(Emergence.load(model))["step"] for model in sorted(folder.glob(f"{MODELS}/*"))}
    steps = pd.DataFrame(found).astype(float).fillna(np.inf)
    middle = steps.median(axis=1).sort_values(kind="stable")
    lines = [
        "",
        "## The order of events in the base",
        "",
        "The measured step at which each event first holds in each seed, and the median over seeds. Measured steps are "
        "a third apart. `DEFINITIONS` in `jaxconf/training/events.py` says what each event asks for. A dash (–) means "
        "that it never happened.",
        "",
        "| event | step in each seed | median |",
        "|---|---|---|",
    ]
    for name in middle.index:
        *each, median = ("–" if np.isinf(step) else f"{step:.0f}" for step in (*steps.loc[name], middle[name]))
        lines.append(f"| {WORDS_OF_EVENTS[name]} | {', '.join(each)} | {median} |")
    return lines


def report(step: int, measured: dict[str, float]) -> None:
    if step % 200 == 0:
        print(
            f"  step {step}: {measured['loss']:.3f} nats per token, {measured['tokens_per_second']:,.0f} tokens/s",
            flush=True,
        )


def followed(out: Path) -> None:
    """Train the base densely tracked, and draw the order of events into docs/figures."""
    config, world = settings(Cell("base", "some"))
    train(config, world.source, out, track=TrackConfig(points=60, effects_every=1), resume=True, report=report)
    e = Emergence.load(out)
    figures = {"events": emergence_events, "optimum": emergence_optimum, "optimum_sets": emergence_optimum_sets}
    for path in save_figures({f"emergence_{name}": draw for name, draw in figures.items()}, e, PAGE.parent / "figures"):
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)  # a third of the bytes
    print("\n".join(summary_lines(e)))


def held_winners(base: Path, out: Path, seeds: int) -> list[str]:
    """A table: what emerges if the neurons that were entropy neurons at the end are held at zero from HOLD_FROM on."""
    config, world = settings(Cell("base", "some"))
    rows = []
    for seed in range(seeds):
        e = Emergence.load(base / MODELS / f"seed={seed}")
        last = e.neurons[e.neurons["step"] == e.steps["step"].iloc[-1]].set_index("neuron")
        winners = [f"{config.layers - 1}.{n}" for n in last.index[last["is_entropy_neuron"]]]
        if not winners:
            continue
        of_seed = dataclasses.replace(config, seed=seed, hold=",".join(winners), hold_from=HOLD_FROM)
        train(of_seed, world.source, out / f"seed={seed}", track=TRACK, resume=True)
        again = outcomes_of(out / f"seed={seed}")
        ranks = (
            e.neurons[e.neurons["step"] == e.steps["step"].iloc[-1]]
            .set_index("neuron")["ln_mediated"]
            .rank(ascending=False)
        )
        names = [int(name) for name in again["named"]]
        rows.append(
            f"| {seed} | {', '.join(winners)} | {', '.join(f'{config.layers - 1}.{n}' for n in names) or '–'} | "
            f"{', '.join(f'{ranks[n]:.0f}' for n in names) or '–'} | {again['excess_loss']:.3f} |"
        )
        print(rows[-1], flush=True)
    return [
        "",
        HELD,
        "",
        f"The base again, with the neurons that were entropy neurons at its end held at zero from step {HOLD_FROM} on "
        "(`--hold … --from …`). Which neurons are entropy neurons instead, and what place they had in the base by "
        "ln_mediated.",
        "",
        "| seed | held | entropy neurons instead | their places in the base | loss above the optimum, nats |",
        "|---|---|---|---|---|",
        *rows,
    ]


def main(out: Path = Path("runs/emergence_study"), seeds: int = 8, only: str = "") -> None:
    names = [question.name for question in QUESTIONS]
    known = [*names, "hold", "events"]
    wanted = set(only.split(",")) if only else set(known)
    if unknown := wanted - set(known):
        raise InputError(f"there is no question {unknown.pop()!r}; give some of {', '.join(known)}")
    found: dict[str, dict[str, pd.DataFrame]] = {}
    earlier = PAGE.read_text("utf-8")

    def write(more: list[str]) -> None:
        if "base" in found:
            whole, begin, end = SUMMARY
            texts = {
                PAGE: "\n".join([*page(found, seeds), *more, ""]),
                whole: rewritten(whole.read_text("utf-8"), begin, end, summary(found, whole.read_text("utf-8"))),
            }
            for file, text in texts.items():
                with replacing(file) as path:
                    path.write_text(text, "utf-8")

    for question in QUESTIONS:
        for number, cell in enumerate(question.cells):
            folder = out / question.name / str(number)
            config, world = settings(cell)
            if question.name in wanted:
                print(f"{question.name}: {cell.label}", flush=True)
                grid(config, {}, seeds, world.source, folder, track=TRACK, resume=True, report=report)
            if (folder / "study.parquet").is_file():
                found.setdefault(question.name, {})[cell.label] = outcomes(folder)
                write([])
    base = out / "base" / "0"
    more = job_lines(base) + order_lines(base)
    norms = {
        label: out / "norm" / str(number) for number, label in enumerate(("LayerNorm (opt)", "no final norm (opt)"))
    }
    ready = all((folder / "study.parquet").is_file() for folder in norms.values())
    more += unnormed_lines(norms) if ready else kept_section(earlier, HEADING)
    if "hold" in wanted or (out / "hold").is_dir():
        more += held_winners(base, out / "hold", seeds)
    else:
        more += kept_section(earlier, HELD)
    write(more)
    if "events" in wanted:
        followed(out / "events")


if __name__ == "__main__":
    tyro.cli(main)
