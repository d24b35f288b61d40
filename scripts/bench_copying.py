"""Times `jaxconf.measure.answers` with one set of neurons ablated and with a hundred sets, on the same prompts.

    python scripts/knowledge_model.py
    taskset -c 0,1 python scripts/bench_copying.py

The result is a line in docs/companions.md. In each prompt, a statement is contradicted by a random object of its
relation. The sets are random, and their activations are set to their means over the prompts. One set and all sets are
timed in turn, so that a change of the machine's speed affects both alike; a first round, in which everything is
compiled, does not count. Times are in seconds, by the clock and of all cores together (CPU). The line also says how
many different continuations a prompt has. Each of them is run once for all sets that have it, so their number limits
how long a hundred sets can take.
"""

import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import tyro
from bench_effects import device
from plan_tables import between

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.ablation import Ablation, Kind
from jaxconf.data.statements import objects_of, read_statements
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.answers import ablated_answers
from jaxconf.measure.prompts import encoded, encoded_answers
from jaxconf.models.files import replacing
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.runtime.memory import MEMORY
from jaxconf.studies.copying.prompts import NEW_TOKENS

SIZE = 10  # neurons of a set
PAGE = Path(__file__).parents[1] / "docs" / "companions.md"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time the answers with one set of neurons and with many."""

    model: Path = Path("runs/knowledge/model")
    """the model that `scripts/knowledge_model.py` makes by default, or another"""
    data: Path = Path("runs/knowledge/statements.csv")
    """statements, as for `jaxconf copying`"""
    prompts: int = 64
    sets: int = 100
    rounds: int = 5
    ablation: Kind = "mean"
    seed: int = 0


def drawn_prompts(lm: LanguageModel, bench: Bench) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The token ids of the prompts, and of the two answers to each."""
    rng = np.random.default_rng(bench.seed)
    statements = read_statements(bench.data)
    pool = objects_of(statements)
    rows = statements[statements["relation"].map(pool.map(len)) >= 2].sample(
        bench.prompts, replace=True, random_state=rng
    )
    others = [str(rng.choice([o for o in pool[row.relation] if o != row.object])) for row in rows.itertuples()]
    prompts = [f"{query} {other}. {query}" for query, other in zip(rows["query"], others, strict=True)]
    return encoded(lm.tokenizer, prompts), encoded_answers(lm.tokenizer, prompts, np.array([others, rows["object"]]).T)


def drawn_sets(lm: LanguageModel, prompts: list[np.ndarray], bench: Bench) -> Ablations:
    rng, last = np.random.default_rng(bench.seed), lm.config.n_layers - 1
    members = np.array([np.sort(rng.choice(lm.config.d_mlp, SIZE, replace=False)) for _ in range(bench.sets)])
    shortest = min(map(len, prompts))
    ablation = Ablation(bench.ablation)
    text = np.stack([row[:shortest] for row in prompts])
    activity = LayerActivations(lm, text, last, MEMORY)
    to = ablation.level(activation_statistics(activity, quiet, ordered=ablation.ordered))[members]
    return Ablations(members, to.astype(np.float32), np.ones(members.shape, bool))


def quiet(what: str, done: int, total: int) -> None:
    pass


def main(bench: Bench) -> None:
    lm = load(bench.model)
    prompts, answers = drawn_prompts(lm, bench)
    every = drawn_sets(lm, prompts, bench)
    seconds: dict[str, list[tuple[float, float]]] = {"one": [], "all": []}
    for turn in range(bench.rounds + 1):
        for name, some in (("one", Ablations(*(x[:1] for x in every))), ("all", every)):
            wall, cpu = time.perf_counter(), time.process_time()
            found = ablated_answers(lm, prompts, answers, some, NEW_TOKENS, MEMORY, quiet, "")
            if turn:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    texts = np.mean([len(np.unique(found.tokens[:, p], axis=0)) for p in range(len(prompts))])
    one, many = (np.median(seconds[name], 0) for name in ("one", "all"))
    ratios = [
        statistics.median(a[i] / b[i] for a, b in zip(seconds["all"], seconds["one"], strict=True)) for i in (0, 1)
    ]
    lengths = list(map(len, prompts))
    line = (
        f"{device()}; `{bench.model}` of `scripts/knowledge_model.py`, {len(prompts)} prompts of {min(lengths)} to "
        f"{max(lengths)} tokens, sets of {SIZE} "
        f"neurons: one set {one[0]:.2f} s (CPU {one[1]:.2f} s), {bench.sets} sets {many[0]:.2f} s "
        f"({many[1]:.2f} s), which is {ratios[0]:.1f} "
        f"({ratios[1]:.1f}) times as much, for {texts:.1f} different texts of each prompt."
    )
    print(line)
    with replacing(PAGE) as path:
        path.write_text(between(PAGE.read_text(), "bench_copying", line))


if __name__ == "__main__":
    main(tyro.cli(Bench))
