"""Times the pass of `jaxconf carry` over a text for many neuron sets beside that for one set.

    python scripts/bench_carry.py [FOLDER] --data TEXT --json carry.json
    python scripts/bench_carry.py --page docs/carrying.md carry.json

FOLDER is a model, by default the bundled one, whose passes are so short that what sets add counts most. The sets are
random. Timed is everything that carrying needs: running the model over the text, the sums, all fits in three splits,
the errors on held-out documents and the intervals. The two sides are timed in turn; a first round, in which programs
are compiled, does not count.
"""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from bench_effects import device, seconds
from bench_output import report, write
from plan_tables import between

from jaxconf.data.own_text import OWN
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.models.language_model import BUNDLED, load
from jaxconf.runtime.memory import MEMORY
from jaxconf.studies.carry.carried import tables_of_carrying
from jaxconf.studies.carry.positions import held, positions
from jaxconf.studies.carry.setting import read_text
from jaxconf.studies.carry.study import predictors_of

MARK = "bench_carry"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time one pass for many sets beside one pass for one set."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """the model's folder; with --page: the file that --json wrote"""
    data: str = OWN
    """the text"""
    tokens: int = 32768
    sets: int = 100
    size: int = 6
    """neurons of a set"""
    rounds: int = 5
    json: Path | None = None
    """the file to write the results to"""
    page: Path | None = None
    """write the section of the documentation, and time nothing"""


def main(bench: Bench) -> dict[str, Any]:
    lm = load(bench.files[0] if bench.files else BUNDLED)
    text = read_text(lm, bench.tokens, bench.data, 0)
    rng = np.random.default_rng(0)
    drawn = [rng.choice(lm.config.d_mlp, bench.size, replace=False).tolist() for _ in range(bench.sets)]
    of, last = Population.of_neurons(lm.config), lm.config.n_layers - 1

    def one_pass(count: int) -> None:
        named = [
            NamedSet(f"set {i}", "given", [(last, n) for n in members], of, f"set {i}")
            for i, members in enumerate(drawn[:count])
        ]
        neurons = {of: np.unique(drawn[:count])}

        def read() -> Any:
            return positions(lm, text, np.arange(len(text.tokens)), neurons, MEMORY, lambda *_: None)

        kept = held(read, int(text.kept.sum()), len(neurons[of]) + 2 * lm.config.d_model + 1, MEMORY)
        tables_of_carrying(kept, predictors_of(lm.config.d_model, named, neurons, named[0]), text.part, 1000, 0)

    times: dict[int, list[float]] = {1: [], bench.sets: []}
    for turn in range(bench.rounds + 1):
        for count, took in times.items():
            spent = seconds(lambda count=count: one_pass(count))
            if turn:
                took.append(spent)
    one, many = (statistics.median(took) for took in times.values())
    return {
        "model": lm.name,
        "positions": int(text.kept.sum()),
        "sets": bench.sets,
        "size": bench.size,
        "rounds": bench.rounds,
        "device": device(),
        "jax": jax.__version__,
        "seconds_one": one,
        "seconds_many": many,
        "ratio": many / one,
    }


def in_words(found: dict[str, Any]) -> str:
    return (
        f"{found['device']}; the model {Path(found['model']).name}, {found['positions']:,} positions, sets of "
        f"{found['size']} neurons, median of {found['rounds']} rounds: one set {found['seconds_one']:.2f} s, "
        f"{found['sets']} sets {found['seconds_many']:.2f} s, {found['ratio']:.2f} times as long."
    )


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    if bench.page:
        inside = "\n\n".join(in_words(json.loads(file.read_text())) for file in bench.files)
        write(bench.page, between(bench.page.read_text("utf-8"), MARK, inside))
    else:
        report(main(bench), bench.json)
