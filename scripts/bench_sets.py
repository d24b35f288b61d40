"""Times neuron sets of the last layer by its algebra against multiplying each set's ablated stream by W_U.

    python scripts/bench_sets.py FOLDER --data TEXT --json sets.json
    python scripts/bench_sets.py --page docs/benchmarks.md sets.json

FOLDER is a model. The sets are random, and their activations are set to their means. Two results are timed: loss and
entropy, also with the norm frozen (`losses`, for studies of these), and all metrics of the three effects (`changes`).
The other side forms a set's whole logits, one set after the other, and measures them. It multiplies the stream by W_U
once for all effects of a set. What sets share is not timed on either side. The sides are timed in turn, so that a
change of the machine's speed affects both alike; a first round, in which programs are compiled, does not count. A run
fails if a loss or an entropy differs by more than 1e-4 nats at any position.
"""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import effects_page
import jax
import numpy as np
import tyro
from bench_effects import device, seconds
from bench_output import report, write
from plan_tables import between

from jaxconf.analysis import rerun
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.mean_ablation import set_to
from jaxconf.analysis.rerun import Ablated
from jaxconf.data.documents import documents
from jaxconf.data.windows import windows
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.runtime.memory import MEMORY

AGREE = 1e-4  # nats


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time sets by algebra against products with W_U."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """the model's folder; with --page: the files that --json wrote"""
    data: Path = Path("text.txt")
    """the text"""
    windows: int = 4
    length: int = 128
    """tokens of a window"""
    sets: int = 8
    size: int = 10
    """neurons of a set"""
    rounds: int = 3
    json: Path | None = None
    """the file to write the results to"""
    page: Path | None = None
    """write the section of the documentation, and time nothing"""


@functools.partial(jax.jit, static_argnames="config")
def loss_and_entropy(*how: Any, config: Any) -> tuple[list[jax.Array], list[jax.Array]]:
    """Losses and entropies from whole logits, of the total effect and with the norm frozen, [c s q]."""
    found: Ablated = rerun.predictions(config, *how)
    both = found.total, found.norm_frozen
    return [x.loss for x in both], [x.entropy for x in both]


def timed(lm: LanguageModel, bench: Bench, tokens: np.ndarray) -> tuple[dict[str, Callable[[], Any]], Any]:
    """What computes each result on each side, and the unablated predictions."""
    config, last = lm.config, lm.config.n_layers - 1
    freq = frequency(np.arange(config.vocab_size))
    rng = np.random.default_rng(0)
    masks = rng.permuted(np.arange(config.d_mlp) < bench.size * np.ones((bench.sets, 1)), axis=1)
    runs = SetRuns(lm, {last: masks}, freq, MEMORY)
    entry, before = runs.entry(tokens, np.arange(tokens.shape[1]))
    base = rerun.unablated_sums(config, runs.readout, freq, entry)
    some = runs.some(np.arange(bench.sets), {last: set_to(entry.h[last].mean((0, 1)))})
    how = lm.params, runs.readout, freq, entry
    return {
        "losses": lambda: rerun.compiled_losses(config, lm.params, runs.readout, entry, some),
        "losses_whole": lambda: loss_and_entropy(*how, some, config=config),
        "changes": lambda: rerun.compiled_changes(config, *how, before, base, some),
        "changes_whole": lambda: rerun.compiled_predictions(config, *how, some),
    }, before


def main(bench: Bench, folder: Path) -> dict[str, Any]:
    lm = load(folder)
    tokens = windows(documents(str(bench.data)), lm.tokenizer, bench.windows * bench.length, bench.length).tokens
    sides, before = timed(lm, bench, tokens)
    total, frozen = sides["losses"]()
    loss, entropy = sides["losses_whole"]()
    changes = sides["changes"]()
    pairs = [
        *zip((total.loss, frozen.loss, total.entropy, frozen.entropy), (*loss, *entropy), strict=True),
        (changes.loss, loss[0] - before.loss),
        (changes.entropy_ln_frozen, entropy[1] - before.entropy),
    ]
    error = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    if error > AGREE:
        raise SystemExit(f"the sides differ by {error:.2g} nats, more than {AGREE}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(bench.rounds + 1):
        for name, compute in sides.items():
            took = seconds(compute)
            if turn:
                times[name].append(took / bench.sets)
    found = {f"seconds_{name}": statistics.median(of) for name, of in times.items()}
    ratios = {
        f"ratio_{name}": found[f"seconds_{name}_whole"] / found[f"seconds_{name}"] for name in ("losses", "changes")
    }
    return {
        "model": folder.name,
        "width": lm.config.d_model,
        "vocabulary": lm.config.vocab_size,
        "set_positions": tokens.size,
        "sets": bench.sets,
        "size": bench.size,
        "rounds": bench.rounds,
        "error": error,
        "device": device(),
        "jax": jax.__version__,
        **found,
        **ratios,
    }


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    if bench.page:
        inside = effects_page.sets([json.loads(file.read_text()) for file in bench.files])
        write(bench.page, between(bench.page.read_text(), effects_page.SETS, inside))
    else:
        report(main(bench, bench.files[0]), bench.json)
