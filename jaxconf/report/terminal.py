"""The result of one analysis as text in a terminal of 80 columns."""

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxconf.results.columns import NAMED_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.published_rules import entropy_rules
from jaxconf.results.rules import KINDS, Kind
from jaxconf.results.words import counted, facts_in_words, number, sets_in_words, sign

MOST_ROWS = 10
SHOWN_FACTS = ("Model", "Shape", "Data", "Kept positions", "Baseline", "Ablation", "Null space", "Token counts", "Time")
HEADS = {
    "rho": "rho",
    "ln_mediated": "ln_mediated",
    "w_norm": "norm",
    "logit_var": "LogitVar",
    "freq_mediated": "freq_mediated",
    "kl_freq_abs_delta": "|Δ KL|",
    "cos_freq": "cos_freq",
    "loss_abs_delta": "|Δ loss|",
    "entropy_delta": "Δ entropy",
    "top1_change": "top-1",
}
"""The columns of NAMED_COLUMNS that fit into 80 characters, each with its head."""


def print_summary(table: NeuronTable, console: Console) -> None:
    """Prints the facts, the verdict, the named neurons or those nearest to each rule, and the chance levels."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in facts_in_words(table.facts):
        if name in SHOWN_FACTS:
            facts.add_row(Text(name, style="dim"), Text(value))
    console.print(facts)
    console.print()
    for sentence in table.verdict():
        console.print(Text(sentence, style="bold"))
    for kind in KINDS:
        _print_neurons(table, kind, console)
    _print_rules(table, console)
    frame = table.frame
    console.print()
    kinds = ["layer", *(["component"] if "component" in frame else [])]
    for (layer, *component), rows in frame.groupby(kinds, sort=False):
        above = int((rows["rho"] > rows["rho_chance"]).sum())
        chance = f"Chance level of rho in layer {layer}: {number(rows['rho_chance'].iloc[0])}"
        told = f"{len(rows):,} ({component[0]})" if component else counted(len(rows), "neuron")
        console.print(f"{chance}, exceeded by {above:,} of {told}.", highlight=False)
    if len(table.positions):
        r = f"Correlation of entropy with D_KL(P_freq || P_model): {number(table.correlation())}"
        console.print(f"{r}, over {counted(len(table.positions), 'position')}.", highlight=False)


def _print_neurons(table: NeuronTable, kind: Kind, console: Console) -> None:
    found = table.members(kind)
    rows: pd.DataFrame = found if len(found) else table.nearest(kind)
    if rows.empty:
        return
    colour = {"entropy": "red", "frequency": "green"}[kind]
    heading = f"{kind.capitalize()} {table.noun}s" if len(found) else f"Nearest to the {kind} rule"
    grid = _grid(heading)
    grid.add_column(table.noun, style=colour if len(found) else "")
    columns = [column for column in NAMED_COLUMNS[kind] if column in HEADS]
    for column in columns:
        grid.add_column(HEADS[column], justify="right")
    for name, row in rows.head(MOST_ROWS).iterrows():
        grid.add_row(str(name), *(number(row[column]) for column in columns))
    console.print()
    console.print(grid)
    _print_more(rows, console)


def _print_rules(table: NeuronTable, console: Console) -> None:
    if not table.has_rules:
        return
    rows, every = table.by_rule(), entropy_rules(table.rules, table.neurons)
    rules = [rule.name for rule in every]
    console.print()
    if rows.empty:
        console.print(f"No neuron is an entropy neuron by any of the rules {', '.join(rules)}.", highlight=False)
        return
    grid = _grid("Entropy neurons by rule")
    grid.add_column("neuron", style="red")
    for name in rules:
        grid.add_column(name, justify="center")
    for name in ("entropy", "rho", "ln_mediated"):
        grid.add_column(name, justify="right")
    for neuron, row in rows.head(MOST_ROWS).iterrows():
        marks = ("✓" if row[name] else "" for name in rules)
        values = sign(row["confidence_sign"]), number(row["rho"]), number(row["ln_mediated"])
        grid.add_row(str(neuron), *marks, *values)
    console.print(grid)
    _print_more(rows, console)
    for rule in every[1:]:
        console.print(Text(f"{rule.name}: {rule.text}", style="dim"))


def _grid(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 2, 0, 0), header_style="dim")


def _print_more(rows: pd.DataFrame, console: Console) -> None:
    if len(rows) > MOST_ROWS:
        console.print(f"and {len(rows) - MOST_ROWS:,} more", highlight=False)


def print_sets(effects: pd.DataFrame, console: Console) -> None:
    """Prints the table of `jaxconf.ablate_sets`: each set beside its random sets."""
    for heading, (names, *rows) in sets_in_words(effects):
        console.print()
        console.print(Text(heading, style="bold"))
        table = Table(box=None, padding=(0, 1))
        for name in names:
            table.add_column(name, justify="right" if name else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
