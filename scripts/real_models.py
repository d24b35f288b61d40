"""Measures two real language models, and writes docs/real_model.md: which rule names which neuron, and how surely.

    python scripts/real_models.py --models FOLDER --texts FOLDER

The folder of models holds SmolLM2-135M-Instruct and gemma-3-270m in Hugging Face layout; that of texts
wikitext2-valid.txt and tinystories.jsonl. Each analysis has its run folder in `--out`. One that is there already is not
made again, so that an interrupted call goes on where it stopped. The halves of a text are analysed too, and the cost of
the nulls is measured.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
from bench_effects import device
from plan_tables import between, within

import jaxconf
from jaxconf.analysis.nulls import LEAST
from jaxconf.cli.common import speaking
from jaxconf.data.windows import Windows
from jaxconf.measure.inputs import counts_of
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.models.errors import listed
from jaxconf.models.files import replacing
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.published_rules import entropy_rules
from jaxconf.results.words import number, sign

PAGE = Path(__file__).parents[1] / "docs" / "real_model.md"
SMOL, GEMMA = "SmolLM2-135M-Instruct", "gemma-3-270m"
WIKITEXT, STORIES = "wikitext2-valid.txt", "tinystories.jsonl"
COSTS = "costs.json"
CARRYING = "real_carrying"  # the section that scripts/real_carrying.py writes
MOST = 12  # neurons of a table


class Run(NamedTuple):
    """An analysis of the page."""

    model: str
    text: str
    tokens: int

    @property
    def folder(self) -> str:
        return f"{self.model}, {Path(self.text).stem}"


RUNS = (Run(SMOL, WIKITEXT, 8192), Run(SMOL, STORIES, 8192), Run(GEMMA, WIKITEXT, 2048))
HALVED = RUNS[0]


@dataclasses.dataclass(frozen=True)
class Describe:
    """Measure the models, and write docs/real_model.md."""

    models: Path
    """a folder with the folders of the models"""
    texts: Path
    """a folder with the texts"""
    out: Path = Path("runs/real")
    """a folder for the run folders"""
    cost_tokens: int = 1024
    """tokens of the analyses by which the cost of the nulls is measured"""
    rounds: int = 3
    """how often these analyses are timed"""


def measure(how: Describe) -> None:
    with speaking("tokens", False) as (_, progress):
        for run in RUNS:
            folder = how.out / run.folder
            if not (folder / "neurons.parquet").is_file():
                options = AnalyzeOptions(str(how.models / run.model), data=str(how.texts / run.text), out=folder)
                jaxconf.run(dataclasses.replace(options, tokens=run.tokens), progress)
        missing = [half for half in range(2) if not (how.out / f"half {half}" / "neurons.parquet").is_file()]
        if not missing and (how.out / COSTS).is_file():
            return
        lm, data = jaxconf.load(how.models / HALVED.model), str(how.texts / HALVED.text)
        counts, _ = counts_of(lm, data, None, progress)
        whole = jaxconf.windows(jaxconf.documents(data), lm.tokenizer, HALVED.tokens)
        for half in missing:
            rows = np.array_split(np.arange(len(whole.tokens)), 2)[half]
            part = Windows(whole.tokens[rows], whole.documents[rows])
            jaxconf.analyze(lm, part, counts=counts, progress=progress).save(how.out / f"half {half}")
        (how.out / COSTS).write_text(json.dumps(costs(lm, data, counts, how)))


def costs(lm: LanguageModel, data: str, counts: np.ndarray, how: Describe) -> dict[str, Any]:
    """Seconds of an analysis without nulls and with them, in turn; the first of each compiles and does not count."""
    some = jaxconf.windows(jaxconf.documents(data), lm.tokenizer, how.cost_tokens)
    seconds: dict[int, list[float]] = {0: [], LEAST: []}
    for turn in range(how.rounds + 1):
        for nulls, of in seconds.items():
            begin = time.perf_counter()
            jaxconf.analyze(lm, some, counts=counts, nulls=nulls)
            if turn:
                of.append(time.perf_counter() - begin)
    return {"without": seconds[0], "with": seconds[LEAST], "tokens": how.cost_tokens, "device": device()}


def by_rule(table: NeuronTable) -> list[str]:
    rules = [rule.name for rule in entropy_rules(table.rules, table.frame)]
    rows = table.by_rule().head(MOST).join(table.to_pandas()[["ln_mediated_lo", "ln_mediated_hi"]])
    if rows.empty:
        return ["No rule names an entropy neuron."]
    heads = ["neuron", *rules, "entropy", "rho", "ln_mediated", "q", "mean change of entropy, nats", "LogitVar", "norm"]
    lines = [
        [
            name,
            *("✓" if row[rule] else "" for rule in rules),
            sign(row["confidence_sign"]),
            number(row["rho"]),
            f"{number(row['ln_mediated'])} ({number(row['ln_mediated_lo'])} to {number(row['ln_mediated_hi'])})",
            number(row["ln_mediated_q"]),
            *(number(row[column]) for column in ("entropy_abs_delta", "logit_var", "w_norm")),
        ]
        for name, row in rows.to_dict("index").items()
    ]
    return markdown(heads, lines)


def frequency(table: NeuronTable) -> list[str]:
    found = table.members("frequency")
    rows = (found if len(found) else table.nearest("frequency")).head(MOST)
    heads = [
        "neuron",
        "by the rule",
        "freq_mediated",
        "reached by 1% of nulls",
        "q",
        "mean change of KL, nats",
        "cosine",
    ]
    lines = [
        [
            name,
            "✓" if row["is_frequency_neuron"] else "",
            f"{number(row['freq_mediated'])} ({number(row['freq_mediated_lo'])} to {number(row['freq_mediated_hi'])})",
            *(number(row[of]) for of in ("freq_mediated_chance", "freq_mediated_q", "kl_freq_abs_delta", "cos_freq")),
        ]
        for name, row in rows.to_dict("index").items()
    ]
    return markdown(heads, lines)


def markdown(heads: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines)]


def halves(first: NeuronTable, second: NeuronTable) -> list[str]:
    """Which neurons each rule names in each half."""
    lines = []
    for one, other in zip(named(first), named(second), strict=True):
        (rule, of_first), (_, of_second) = one, other
        both = [name for name in of_first if name in of_second]
        apart = ([name for name in of if name not in both] for of in (of_first, of_second))
        lines.append([rule, *(listed(names, MOST) if names else "none" for names in (both, *apart))])
    apart = [line[0] for line in lines if line[2:] != ["none", "none"]]
    said = f"Not the same in both halves: {', '.join(apart)}." if apart else "Every rule names the same in both halves."
    return [said, "", *markdown(["rule", "in both halves", "only in the first", "only in the second"], lines)]


def named(table: NeuronTable) -> list[tuple[str, list[str]]]:
    index = pd.Index(table.names)
    rules = [(rule.name, list(index[rule.named.to_numpy()])) for rule in entropy_rules(table.rules, table.frame)]
    return [*rules, ("default, frequency neurons", list(table.members("frequency").index))]


def section(run: Run, table: NeuronTable) -> list[str]:
    facts, frame = table.facts, table.frame
    above = int((frame["rho"] > frame["rho_chance"]).sum())
    return [
        f"## {run.model} on {run.text}",
        "",
        f"{facts['tokens']:,} tokens, {facts['positions']:,} kept positions; loss {facts['loss']:.3f} and entropy "
        f"{facts['entropy']:.3f} nats; {facts['nulls']} nulls. At k = {facts['k']}, {above:,} of "
        f"{len(frame):,} neurons lie above the chance level of rho ({number(frame['rho_chance'].iloc[0])}). The knee "
        f"of the spectrum is at k = {facts['knee']['k']}: there the singular values fall by a factor of "
        f"{number(facts['knee']['ratio'])}.",
        "",
        *(f"* {sentence}" for sentence in table.verdict()),
        "",
        "Entropy neurons by rule, with 95% intervals:",
        "",
        *by_rule(table),
        "",
        "Frequency neurons, or the nearest to the rule:",
        "",
        *frequency(table),
        "",
    ]


def page(tables: list[NeuronTable], parts: list[NeuronTable], cost: dict[str, Any]) -> str:
    without, beside = (statistics.median(cost[name]) for name in ("without", "with"))
    ratios = sorted(more / less for more, less in zip(cost["with"], cost["without"], strict=True))
    rules = entropy_rules(tables[0].rules, tables[0].frame)
    sections = [line for run, table in zip(RUNS, tables, strict=True) for line in section(run, table)]
    return "\n".join(
        [
            "# Two real models",
            "",
            "Written by `scripts/real_models.py` from runs of `jaxconf analyze` with its default options.",
            "",
            *(f"* **{rule.name}**: {rule.text}" for rule in rules),
            f"* **default**, for frequency neurons: {tables[0].rules.describe()[1]}",
            "",
            *sections,
            "## Halves of the text",
            "",
            f"{HALVED.model} on the first and on the second half of the windows of {HALVED.text}. The intervals of a "
            "half are wider, so fewer neurons can meet a rule that asks for one.",
            *halves(*parts),
            "",
            "## What the nulls cost",
            "",
            f"An analysis of {cost['tokens']:,} tokens of {HALVED.text} in {HALVED.model}, whose last layer has "
            f"{len(tables[0].frame):,} neurons, took {without:.1f} s without nulls and {beside:.1f} s with "
            f"{LEAST} of them: {statistics.median(ratios):.2f} times as long (median of {len(ratios)} pairs run in "
            f"turn, {ratios[0]:.2f} to {ratios[-1]:.2f}; {cost['device']}).",
            "",
            "## Influence, carrying, decodability",
            "",
            "Written by `scripts/real_carrying.py` from `jaxconf carry`: the neurons that the rule `default` names, in "
            "the worst of three splits, with 95% intervals. The other sets and the meaning of the columns are in "
            "[carrying.md](carrying.md#real-models).",
            "",
            f"<!-- {CARRYING} -->",
            f"<!-- end of {CARRYING} -->",
            "",
        ]
    )


def main() -> None:
    how = tyro.cli(Describe)
    measure(how)
    tables = [NeuronTable.load(how.out / run.folder) for run in RUNS]
    parts = [NeuronTable.load(how.out / f"half {half}") for half in range(2)]
    made = page(tables, parts, json.loads((how.out / COSTS).read_text()))
    with replacing(PAGE) as path:
        path.write_text(between(made, CARRYING, within(PAGE.read_text("utf-8"), CARRYING)), encoding="utf-8")


if __name__ == "__main__":
    main()
