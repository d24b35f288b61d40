"""Are the neurons that the paper names in a public model found again?

    python scripts/reproduce_paper.py gpt2-small --data hf://datasets/OWNER/NAME --out runs/gpt2-small

The model is gpt2-small, pythia-410m, llama-2-7b or stanford-gpt2-small-a. It is measured by `jaxconf analyze`, with the
paper's size of the unembedding's effective null space if the paper gives it; the run folder is --out. A named neuron
agrees if it meets the rule for its kind, which is printed with the result (docs/measures.md defines the metrics). If
the paper says which neuron lowers the entropy of repeated text most, `jaxconf induction` is run too, and its ten
candidates are compared (docs/induction.md). The exit code is 0 if all neurons agree, 1 if any differs, and 2 for an
error that the user can correct.

Source of the names: Stolfo et al. 2024 (arXiv 2406.16254) and its released data. The paper takes the token frequencies
of OpenWebText for GPT-2 and of the Pile for Pythia; here they are those of --counts, or else of --data. Weights are
held in float32, as `jaxconf analyze` holds them.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxconf import cli
from jaxconf.models.errors import InputError, nearest
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import find, read_config
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.results.words import number


@dataclasses.dataclass(frozen=True)
class Named:
    """The neurons that the paper names in one model, all of its last layer."""

    model: str  # the hub's id
    layer: int
    entropy: tuple[int, ...]
    frequency: tuple[int, ...] = ()
    k: int | None = None  # size of the effective null space; None: the default
    induction: int | None = None  # the neuron whose clip mean-ablation lowers the entropy of repeated text most

    def names(self, kind: Kind) -> list[str]:
        """The neurons' names, "layer.index"."""
        return [f"{self.layer}.{neuron}" for neuron in (self.entropy if kind == "entropy" else self.frequency)]


PAPER = {
    # The paper's k of 12 includes the all-ones direction, which a LayerNorm ignores and jaxconf leaves out.
    "gpt2-small": Named("openai-community/gpt2", 11, (584, 2378, 2870, 2123, 1611, 2910), k=11, induction=2378),
    "pythia-410m": Named(
        "EleutherAI/pythia-410m", 23, (1829, 1332, 2455, 3562, 2756, 2362), (87, 417, 730, 2017, 3412)
    ),
    "llama-2-7b": Named("meta-llama/Llama-2-7b-hf", 31, (3228,), k=40),
    "stanford-gpt2-small-a": Named("stanford-crfm/alias-gpt2-small-x21", 11, (3030, 2859, 995, 2546, 823, 2748)),
}
TOP_RHO = 10  # how many neurons the paper takes as candidates by rho
RANKED: dict[Kind, str] = {"entropy": "rho", "frequency": "kl_freq_abs_delta"}
KINDS: tuple[Kind, Kind] = ("entropy", "frequency")


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Measure a public model and compare it with the neurons that the paper names in it."""

    name: Annotated[str, tyro.conf.Positional]
    """gpt2-small, pythia-410m, llama-2-7b or stanford-gpt2-small-a"""
    data: str
    """text, as for `jaxconf analyze`"""
    out: Path
    """the run folder"""
    counts: Path | None = None
    """token counts, as for `jaxconf analyze`"""
    model: str | None = None
    """a folder in Hugging Face layout, or a hub id, with this model's weights; by default the one that the paper
    measured
    """
    revision: str | None = None
    """the hub's branch, tag or commit"""
    force: bool = False
    """replace the run that the folder holds"""


def checked(command: Reproduce) -> tuple[Named, str]:
    """The neurons that the paper names, and the name of the model to load; checked before the weights are fetched.

    Raises InputError if the paper does not name neurons in the model, if the model cannot be found, or if it does not
    have these neurons.
    """
    if command.name not in PAPER:
        raise InputError(
            f"the paper names no neurons in {command.name!r}; the nearest is {nearest(command.name, PAPER)!r}, "
            f"and all are {', '.join(PAPER)}"
        )
    named = PAPER[command.name]
    source = command.model or named.model
    folder, _ = find(source, command.revision, weights=False)
    config = config_from_hf(read_config(folder))
    neurons = named.entropy + named.frequency
    if config.n_layers != named.layer + 1 or config.d_mlp <= max(neurons):
        raise InputError(
            f"{source} has the last layer {config.n_layers - 1}, with {config.d_mlp} neurons, but in {command.name} "
            f"the paper names neuron {named.layer}.{max(neurons)} of the last layer; give another --model"
        )
    return named, source


def compared(table: NeuronTable, named: Named) -> pd.DataFrame:
    """The rows of the named neurons, indexed by name, with the columns `kind`, `rank` and `agrees` added.

    `rank` is the neuron's rank in the layer by the column RANKED; the largest has 1.
    """
    frame = table.to_pandas()
    found = []
    for kind in KINDS:
        rank = frame[RANKED[kind]].rank(ascending=False, method="min", na_option="bottom").astype(int)
        found.append(frame.assign(kind=kind, rank=rank, agrees=frame[f"is_{kind}_neuron"]).loc[named.names(kind)])
    return pd.concat(found)


def cells(kind: Kind, row: pd.Series) -> dict[str, str]:
    """Head of a column → what it shows of a named neuron."""
    if kind == "frequency":
        return {
            "|Δ KL|": number(row["kl_freq_abs_delta"]),
            "rank by it": f"{row['rank']:,}",
            "freq_mediated": number(row["freq_mediated"]),
        }
    above = "yes" if row["rho"] > row["rho_chance"] else "no"
    shown = {
        "rho": number(row["rho"]),
        "rank by it": f"{row['rank']:,}",
        "chance": number(row["rho_chance"]),
        "above chance": above,
    }
    return {**shown, "ln_mediated": number(row["ln_mediated"])}


def show(rows: pd.DataFrame, rules: dict[Kind, str], console: Console) -> None:
    """Prints a line with a verdict for each named neuron, and the rules."""
    for kind in KINDS:
        some = rows[rows["kind"] == kind]
        if some.empty:
            continue
        table = Table(
            title=f"{kind.capitalize()} neurons that the paper names",
            title_justify="left",
            title_style="bold",
            box=None,
        )
        table.add_column("neuron")
        for head in cells(kind, some.iloc[0]):
            table.add_column(head, justify="right")
        table.add_column("verdict")
        for name, row in some.iterrows():
            table.add_row(
                str(name),
                *cells(kind, row).values(),
                Text("agrees", "green") if row["agrees"] else Text("differs", "red"),
            )
        console.print()
        console.print(table)
        console.print(f"A neuron agrees if it meets the rule. {rules[kind]}", highlight=False)
        if kind == "entropy":
            top = (some["rank"] <= TOP_RHO).sum()
            console.print(
                f"Not part of the verdict: {top} of {len(some)} are among the layer's {TOP_RHO} largest rho.",
                highlight=False,
            )


def repeats(folder: Path, named: Named, console: Console) -> bool:
    """Prints whether clip ablation of `named.induction` lowers the entropy of the repeat most, and returns that.

    It is compared with the other candidates of `jaxconf induction`, whose results are in `folder`.
    """
    sets = pd.read_parquet(folder / "induction_sets.parquet")
    entropy = sets[sets["kind"] == "neuron"].set_index("set")["entropy"].sort_values()
    agrees = entropy.index[0] == f"{named.layer}.{named.induction}" and entropy.iloc[0] < 0
    most = ", ".join(f"{name} by {number(change)}" for name, change in entropy.head(3).items())
    console.print()
    console.print(
        f"The paper says that {named.layer}.{named.induction} lowers the entropy most when text repeats:",
        style="bold",
        highlight=False,
    )
    console.print(Text("agrees", "green") if agrees else Text("differs", "red"), end=" ")
    console.print(
        f"Clipped to their means, the candidates change the entropy of the repeat, in nats: {most}.", highlight=False
    )
    return bool(agrees)


def total(rows: pd.DataFrame, console: Console) -> None:
    """Prints how many of the named neurons agree, and which do not."""
    agreeing = f"{rows['agrees'].sum()} of {len(rows)} neurons that the paper names agree"
    differing = ", ".join(rows.index[~rows["agrees"]])
    console.print()
    console.print(Text(f"{agreeing}; these differ: {differing}." if differing else f"{agreeing}.", "bold"))


def main(command: Reproduce) -> None:
    try:
        named, source = checked(command)
    except InputError as error:
        print(f"reproduce_paper: {error}", file=sys.stderr)
        sys.exit(2)
    options = {"--data": command.data, "--out": command.out, "--k": named.k, "--revision": command.revision}
    given = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    counts = ["--counts", str(command.counts)] if command.counts else []
    cli.main(["analyze", source, *given, *counts, *["--force"] * command.force])
    table, console = NeuronTable.load(command.out), Console()
    rows = compared(table, named)
    entropy_rule, frequency_rule, *_ = table.rules.describe()
    show(rows, {"entropy": entropy_rule, "frequency": frequency_rule}, console)
    all_agree = bool(rows["agrees"].all())
    if named.induction is not None:
        cli.main(["induction", source, *given, *["--force"] * command.force])
        all_agree &= repeats(command.out, named, console)
    total(rows, console)
    sys.exit(0 if all_agree else 1)


if __name__ == "__main__":
    main(tyro.cli(Reproduce))
