"""The neuron sets of the study: those of each rule, those that a user names, controls, and random ones.

Letters: n neuron.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.analysis.neuron_sets import random_sets
from jaxconf.measure.neuron_sets import check_last_layer, check_set
from jaxconf.measure.selections import table_of_run
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.published_rules import entropy_rules

CORRELATED = "|corr|"


@dataclasses.dataclass(frozen=True)
class Named:
    """A neuron set of the last layer."""

    name: str
    kind: str  # "rule", "given", "correlation" or "random"
    neurons: tuple[int, ...]  # indices in the layer
    beside: str  # the set whose random sets it is compared with; of a random set, the one that it is drawn for


def ruled_table(lm: LanguageModel, run: str | Path) -> NeuronTable:
    """As `table_of_run`. Raises InputError also for a table that lacks what the rules ask for."""
    table = table_of_run(lm, run)
    if not table.has_rules:
        raise InputError(f"the run {run} is of an older version, which lacks what the rules ask for; analyse again")
    return table


def sets_by_rule(config: DecoderConfig, table: NeuronTable, controls: int) -> list[Named]:
    """The entropy neurons of the last layer by each rule that names some; `default` is the first one.

    Raises InputError for a rule that names so many that too few others are left for random sets.
    """
    last = config.n_layers - 1
    frame = table.frame[table.frame["layer"] == last].reset_index(drop=True)
    found = []
    for rule in entropy_rules(table.rules, frame):
        neurons = frame.loc[rule.named.to_numpy(), "neuron"].tolist()
        if neurons:
            check_set(config, [(last, n) for n in neurons], controls, f"the rule {rule.name}")
            found.append(Named(rule.name, "rule", tuple(neurons), rule.name))
    return found


def given_sets(config: DecoderConfig, sets: Iterable[Sequence[Sequence[int]]], controls: int) -> list[Named]:
    """The sets that a user names. Raises InputError as `check_last_layer` does."""
    found = []
    for neurons in sets:
        pairs = check_last_layer(config, neurons, controls)
        name = ",".join(neuron_name(*pair) for pair in pairs)
        found.append(Named(name, "given", tuple(index for _, index in pairs), name))
    return found


def correlated_set(correlation: np.ndarray, main: Named) -> Named:
    """As many neurons as the main set has, those whose activation correlates most with the entropy, by size.

    `correlation`: of each neuron, [n]; NaN for a constant activation.
    """
    order = np.argsort(-np.abs(np.nan_to_num(correlation)), kind="stable")
    return Named(CORRELATED, "correlation", tuple(order[: len(main.neurons)].tolist()), main.name)


def random_beside(config: DecoderConfig, named: Sequence[Named], controls: int, seed: int) -> list[Named]:
    """`controls` random sets of other neurons for each set, of as many neurons."""
    found, last = [], config.n_layers - 1
    for number, of in enumerate(named):
        rng = np.random.default_rng([seed, number])
        drawn = random_sets(config, [(last, n) for n in of.neurons], controls, rng)
        found += [
            Named(f"random {i} beside {of.name}", "random", tuple(n for _, n in members), of.name)
            for i, members in enumerate(drawn)
        ]
    return found
