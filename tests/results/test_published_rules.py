"""The rules of the papers, on frames in which each threshold is missed once. Letters: n neuron."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from planted_table import ENTROPY, planted_table

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.published_rules import entropy_rules


def named(table: NeuronTable, rule: str) -> list[int]:
    (found,) = (of.named for of in entropy_rules(table.rules, table.frame) if of.name == rule)
    return table.frame.index[found].tolist()


def planted(**columns: list[float]) -> NeuronTable:
    """A table whose neurons 0, 1, 2, … have these values, and whose others have NaN."""
    table = planted_table(neurons=200, plant=False)
    for name, values in columns.items():
        table.frame[name] = np.nan
        table.frame.loc[range(len(values)), name] = values
    return table


def test_paper_names_high_norms_with_low_logit_var() -> None:
    table = planted_table(neurons=200, plant=False)
    table.frame["w_norm"] = np.linspace(2, 1, 200)  # the highest 10%: 0 to 19
    table.frame["logit_var"] = 1.0
    table.frame.loc[[7, 60], "logit_var"] = 0.1  # the lowest 1% of 200
    assert named(table, "paper") == [7]


def test_gates_asks_for_all_three() -> None:
    table = planted(
        gate_entropy_delta=[0.03, -0.03, 0.02, 0.03, 0.03, 0.03],
        gate_norm_delta=[0.3, -0.5, 0.5, 0.29, 0.5, np.nan],
        gate_top1_change=[0.0, 0.009, 0.0, 0.0, 0.01, 0.0],
    )
    assert named(table, "gates") == [0, 1]


def test_candidates_are_the_lowest_logit_var_of_large_rho() -> None:
    table = planted(rho_at_tighidet=[0.4, 0.39, *[0.9] * 12], logit_var=[5, 0, *range(14, 2, -1)])
    assert named(table, "candidates") == sorted([0, *range(5, 14)])


def test_every_layer_has_its_own_thresholds() -> None:
    one = planted_table(neurons=200, plant=False)
    one.frame["w_norm"], one.frame["logit_var"] = np.linspace(2, 1, 200), np.linspace(1, 2, 200)
    other = one.frame.assign(layer=2, w_norm=10 * one.frame["w_norm"])
    both = dataclasses.replace(one, frame=pd.concat([one.frame, other], ignore_index=True))
    assert named(both, "paper") == [0, 1, 200, 201]


def test_the_table_of_rules_has_every_named_neuron_and_who_names_it() -> None:
    table = planted_table()
    table.frame.loc[17, ["w_norm", "logit_var"]] = [9, 0]  # by `paper` and `candidates` too
    table.frame.loc[30, ["gate_entropy_delta", "gate_norm_delta", "gate_top1_change"]] = [0.1, 1, 0]
    found = table.by_rule()
    assert found.index.tolist() == ["3.17", "3.5", "3.30"]
    marks = found[["default", "paper", "gates", "candidates"]].to_numpy()
    np.testing.assert_array_equal(marks, [[1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 0]])
    assert found.loc["3.30", "gate_norm_delta"] == 1


def test_no_rule_need_name_a_neuron() -> None:
    table = planted_table(plant=False)
    table.frame["w_norm"], table.frame["logit_var"] = np.linspace(1, 2, 60), np.linspace(1, 2, 60)
    assert table.by_rule().empty


def test_the_verdict_tells_what_the_neurons_do_to_the_entropy() -> None:
    table = planted_table()
    table.frame.loc[[5, 17], "confidence_sign"] = [-1, 1]
    assert table.verdict()[1] == "As the model uses them, 3.17 lowers the entropy and 3.5 raises the entropy."


@pytest.mark.parametrize("depends", [False, True])
def test_the_verdict_tells_whether_the_neurons_depend_on_k(depends: bool) -> None:
    table = planted_table()
    table.facts["null_spaces"] = {"rho_at_1%": {"k": 1, "chance": 0.3}, "rho_at_5%": {"k": 4, "chance": 0.5}}
    table.frame["rho_at_1%"] = table.frame["rho_at_5%"] = table.frame["rho"]
    if depends:
        table.frame.loc[17, "rho_at_5%"] = 0.49
    assert table.by_size() == {1: ENTROPY, 2: ENTROPY, 4: ["3.5"] if depends else ENTROPY}
    assert ("depend on" in " ".join(table.verdict())) == depends
    assert ("the same at every size" in " ".join(table.verdict())) != depends
