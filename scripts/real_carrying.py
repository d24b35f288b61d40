"""Measures what the entropy neurons of real language models influence and carry, for docs/carrying.md.

    python scripts/real_carrying.py --models FOLDER --texts FOLDER --runs FOLDER
    python scripts/real_carrying.py … --names SmolLM2-135M-Instruct gemma-3-270m

By default SmolLM2 alone is measured; the second line measures Gemma too. The folder of models holds them in Hugging
Face layout; that of texts wikitext2-valid.txt and tinystories.jsonl. The sets are those of finished analyses, whose run
folders `scripts/real_models.py` writes to --runs. Documents are the openings of WikiText's articles, and stories. A
model that has its result in --out already is not measured again. The figures of the first model go to docs/figures,
and the main numbers of all also to docs/real_model.md.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from bench_output import write
from plan_tables import between
from real_models import CARRYING, SMOL, STORIES, WIKITEXT, markdown
from real_models import PAGE as MODELS

import jaxconf
from jaxconf.cli.common import speaking
from jaxconf.report.style import save_figures
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.words import number
from jaxconf.studies.carry.figures import FIGURES
from jaxconf.studies.carry.positions import STREAM
from jaxconf.studies.carry.sentences import sentences
from jaxconf.studies.carry.study import Carry
from jaxconf.studies.carry.verdicts import table_of_verdicts, worst

PAGE = Path(__file__).parents[1] / "docs" / "carrying.md"
FOLDER = PAGE.parent / "figures"
PICTURES = ("carry_side_by_side", "carry_r2", "carry_components")
OPENING = 1200  # characters of an article, about 300 tokens
TITLE = re.compile(r"^ = [^=].*[^=] = $", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Describe:
    """Measure the models, and write the section of docs/carrying.md."""

    models: Path
    """a folder with the folders of the models"""
    texts: Path
    """a folder with the texts"""
    runs: Path
    """a folder with the run folders, each named "MODEL, wikitext2-valid\""""
    names: tuple[str, ...] = (SMOL,)
    """the models"""
    out: Path = Path("runs/carrying")
    """a folder for the results"""
    tokens: int = 12288
    """tokens of each text"""
    effects: int = 2048
    """tokens of each text that the influence is measured on"""


def openings(text: str) -> Iterator[str]:
    """The beginning of each article of a text of WikiText."""
    starts = [found.start() for found in TITLE.finditer(text)]
    for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text[begin : min(end, begin + OPENING)]


def run_of(how: Describe, name: str) -> Path:
    """The run folder that names the sets of a model."""
    return how.runs / f"{name}, {Path(WIKITEXT).stem}"


def measure(how: Describe, name: str) -> Carry:
    """The result for a model, read from its folder if it is there."""
    folder, tables = how.out / name, ("sets", "influence", "carrying", "components")
    if not (folder / "carry.json").is_file():
        articles = how.out / "wikitext openings.jsonl"
        rows = (json.dumps({"text": of}) for of in openings((how.texts / WIKITEXT).read_text("utf-8")))
        how.out.mkdir(parents=True, exist_ok=True)
        write(articles, "\n".join(rows) + "\n")
        with speaking("tokens", False) as (_, progress):
            jaxconf.carry(
                jaxconf.load(how.models / name),
                how.tokens,
                data=[str(articles), str(how.texts / STORIES)],
                effects=how.effects,
                run=run_of(how, name),
                facts={"model": name},
                progress=progress,
            ).save(folder)
    facts = json.loads((folder / "carry.json").read_text("utf-8"))
    del facts["verdict"]  # made again from the tables
    return Carry(facts, **{table: pd.read_parquet(folder / f"carry_{table}.parquet") for table in tables})


def section(name: str, found: Carry, run: Path) -> list[str]:
    facts, named = found.facts, NeuronTable.load(run).facts
    source = f"The sets are from an analysis of {named['tokens']:,} tokens of {Path(named['data']).name}."
    lines = [f"### {name}", "", source, ""]
    for text in found.texts:
        of, own = found.of(text), facts["texts"][text]
        lines += [
            f"{Path(text).stem}: {own['positions']:,} positions of {own['documents']} documents; influence on about "
            f"{facts['effects']:,} tokens.",
            "",
            *table(of),
            "",
            *(f"* {said}" for said in sentences(dataclasses.replace(of, facts={**facts, "texts": {text: own}}))),
            "",
        ]
    return lines


def table(found: Carry) -> list[str]:
    """The verdicts as a table in Markdown."""
    heads = ["set", "neurons", "influence, nats", "R²", "random sets", "gap", "share of decodable", "verdict"]
    rows = [
        [
            row["set"],
            str(row["size"]),
            *(interval(row, name) for name in ("influence", "R²")),
            number(row["random"]),
            interval(row, "gap"),
            number(row["of decodable"]),
            row["verdict"],
        ]
        for row in table_of_verdicts(found).to_dict("records")
    ]
    return markdown(heads, [[cell.replace("|", "\\|") for cell in row] for row in rows])


def interval(row: Mapping[str, Any] | pd.Series, name: str) -> str:
    return f"{number(row[name])} ({number(row[f'{name}_lo'])} to {number(row[f'{name}_hi'])})"


def main_numbers(measured: Mapping[str, Carry]) -> list[str]:
    """A row of Markdown for each model, by its name, and each text: the main set alone."""
    heads = ["model", "text", "neurons", "influence, nats", "R²", "gap to random sets", "decodable, R²", "verdict"]
    rows = []
    for name, found in measured.items():
        for text in found.texts:
            of = found.of(text)
            own = table_of_verdicts(of).iloc[0]
            neurons = ", ".join(of.sets.loc[of.sets["set"] == own["set"], "neuron"])
            numbers = (interval(own, "influence"), interval(own, "R²"), interval(own, "gap"))
            decodable = interval(worst(of, STREAM, by="r2"), "r2")
            rows.append([name, Path(text).stem, neurons, *numbers, decodable, own["verdict"]])
    return markdown(heads, rows)


if __name__ == "__main__":
    how = tyro.cli(Describe)
    measured = {name: measure(how, name) for name in how.names}
    inside = "\n".join(line for name, found in measured.items() for line in section(name, found, run_of(how, name)))
    write(PAGE, between(PAGE.read_text("utf-8"), CARRYING, inside.strip()))
    write(MODELS, between(MODELS.read_text("utf-8"), CARRYING, "\n".join(main_numbers(measured))))
    pictures = {draw.removeprefix("carry_"): FIGURES[draw] for draw in PICTURES}
    save_figures({f"carrying_{name}": draw for name, draw in pictures.items()}, measured[how.names[0]], FOLDER)
