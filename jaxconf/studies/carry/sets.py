"""The sets of the study: those of each rule, those that a user names, controls, and random ones.

The kind of a set is "rule", "given", "correlation" or "random". Letters: n neuron or component.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxconf.measure.chosen_sets import Checked
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.measure.neuron_sets import check_set
from jaxconf.measure.selections import table_of_run
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.published_rules import entropy_rules

CORRELATED = "|corr|"


def ruled_table(lm: LanguageModel, run: str | Path) -> NeuronTable:
    """As `table_of_run`. Raises InputError also for a table that lacks what the rules ask for."""
    table = table_of_run(lm, run)
    if not table.has_rules:
        raise InputError(f"the run {run} is of an older version, which lacks what the rules ask for; analyse again")
    return table


def all_sets(
    lm: LanguageModel,
    table: NeuronTable | None,
    checked: Sequence[Checked],
    populations: Mapping[str, Population],
    controls: int,
) -> list[NamedSet]:
    """The sets of each rule by an analysis's `table`, if there is one, and those that a user names.

    Raises InputError if there is none, for a set that is given twice, and as `sets_by_rule` does.
    """
    ruled = sets_by_rule(lm.config, table, controls, populations["neuron"]) if table else []
    found = [*ruled, *given_sets(checked, populations)]
    if not found:
        raise InputError(f"no rule names an entropy neuron in the last layer of {lm.name}; name neurons as a set")
    if len({of.name for of in found}) < len(found):
        raise InputError(f"the sets are {'; '.join(of.name for of in found)}; give each set once")
    return found


def sets_by_rule(config: DecoderConfig, table: NeuronTable, controls: int, neurons: Population) -> list[NamedSet]:
    """The entropy neurons of the last layer by each rule that names some; `default` is the first one.

    Raises InputError for a rule that names so many that too few others are left for random sets.
    """
    last = config.n_layers - 1
    frame = table.frame[table.frame["layer"] == last].reset_index(drop=True)
    found = []
    for rule in entropy_rules(table.rules, frame):
        members = [(last, int(n)) for n in frame.loc[rule.named.to_numpy(), "neuron"]]
        if members:
            check_set(config, members, controls, f"the rule {rule.name}")
            found.append(NamedSet(rule.name, "rule", members, neurons, rule.name))
    return found


def given_sets(checked: Iterable[Checked], populations: Mapping[str, Population]) -> list[NamedSet]:
    """The sets that a user names, each by the names of its members."""
    found = []
    for component, members in checked:
        one = NamedSet("", "given", members, populations[component])
        found.append(one._replace(name=one.listed, beside=one.listed))
    return found


def correlated_set(correlation: np.ndarray, main: NamedSet) -> NamedSet:
    """As many as the main set has, of its population, whose activation correlates most with the entropy, by size.

    `correlation`: of each of the population, [n]; NaN for a constant activation.
    """
    (layer, _), *_ = main.members
    order = np.argsort(-np.abs(np.nan_to_num(correlation)), kind="stable")
    members = [(layer, int(n)) for n in order[: len(main.members)]]
    return NamedSet(CORRELATED, "correlation", members, main.population, main.name)


def random_beside(named: Sequence[NamedSet], controls: int, seed: int) -> list[NamedSet]:
    """`controls` random sets for each set, of as many others of its population."""
    found = []
    for number, of in enumerate(named):
        drawn = of.population.random(of.members, controls, np.random.default_rng([seed, number]))
        found += [
            NamedSet(f"random {i} beside {of.name}", "random", members, of.population, of.name)
            for i, members in enumerate(drawn)
        ]
    return found
