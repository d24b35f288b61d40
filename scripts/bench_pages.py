"""Times analyses with the pages of their neurons beside those without, and writes a table of docs/browse.md.

    python scripts/bench_pages.py bundled FOLDER

Each model reads its own text (`--data own`). The two analyses are run in turn, so that a change of the machine's speed
affects both alike; a first round, in which programs are compiled, does not count.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import tyro
from bench_effects import device
from bench_output import write
from plan_tables import between, markdown

from jaxconf.cli.common import speaking
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.measure.run import run
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import paged
from jaxconf.results.run_folder import SITE

PAGE, MARK = Path(__file__).parents[1] / "docs" / "browse.md", "bench_pages"
HEADS = ("model", "neurons", "vocabulary", "tokens", "pages", "seconds without them", "with them", "more time", "site")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure what the pages of neurons cost, and write a table of docs/browse.md."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """names or folders of models"""
    tokens: int = 2048
    rounds: int = 3


def timed(bench: Bench, model: str, browse: bool, out: Path) -> tuple[float, NeuronTable]:
    options = AnalyzeOptions(model, tokens=bench.tokens, out=out, browse=browse, force=True)
    with speaking("tokens", False) as (_, progress):
        start = time.monotonic()
        table = run(options, progress)
        return time.monotonic() - start, table


def row(bench: Bench, model: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        plain, browsed = Path(folder, "plain"), Path(folder, "browsed")
        rounds = [
            (timed(bench, model, False, plain)[0], *timed(bench, model, True, browsed)) for _ in range(bench.rounds + 1)
        ]
        size = sum(file.stat().st_size for file in (browsed / SITE).rglob("*") if file.is_file())
    without, with_them, (*_, table) = zip(*rounds[1:], strict=True)
    seconds = statistics.median(without), statistics.median(with_them)
    more = statistics.median(one / other - 1 for one, other in zip(with_them, without, strict=True))
    facts = table.facts
    return [
        *(Path(model).name, f"{len(table.neurons):,}", f"{facts['vocab_size']:,}", f"{facts['tokens']:,}"),
        *(f"{len(paged(table)):,}", *(f"{each:.1f}" for each in seconds), f"{100 * more:.0f}%"),
        f"{size / 1e6:.1f} MB",
    ]


def main(bench: Bench) -> str:
    rows = [row(bench, model) for model in bench.models]
    below = f"Written by `scripts/bench_pages.py`: medians of {bench.rounds} rounds on {device()}."
    return f"{markdown([HEADS, *rows])}\n\n{below}"


if __name__ == "__main__":
    write(PAGE, between(PAGE.read_text("utf-8"), MARK, main(tyro.cli(Bench))))
