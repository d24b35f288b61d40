"""The result table: rules, words, and what survives a round trip through its files."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from planted_table import ENTROPY, FREQUENCY, planted_table, without_figures

from jaxconf.analysis.metrics import COLUMNS
from jaxconf.models.errors import InputError
from jaxconf.results import neuron_table as table_module
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Rules
from jaxconf.results.words import facts_in_words

MEETS = {  # a neuron that meets both rules, each threshold exactly where that is enough
    "rho": 0.6, "rho_chance": 0.5, "ln_mediated_lo": 0.3, "ln_mediated_q": 0.01, "entropy_abs_delta": 0.01,
    "freq_mediated_lo": 0.21, "freq_mediated_chance": 0.2, "freq_mediated_q": 0.01, "kl_freq_abs_delta": 0.01,
}  # fmt: skip
FAILS = {
    "entropy": {"rho": 0.5, "ln_mediated_lo": 0.29, "ln_mediated_q": 0.011, "entropy_abs_delta": 0.009},
    "frequency": {"freq_mediated_lo": 0.2, "freq_mediated_q": 0.011, "kl_freq_abs_delta": 0.009},
}


@pytest.mark.parametrize("kind", FAILS)
def test_a_rule_needs_all_of_its_conditions(kind):
    changes = [{}, *({name: value} for name, value in FAILS[kind].items()), *({name: np.nan} for name in FAILS[kind])]
    frame = Rules().apply(pd.DataFrame([MEETS | change for change in changes]))
    assert frame[f"is_{kind}_neuron"].tolist() == [True] + [False] * (len(changes) - 1)
    other = "frequency" if kind == "entropy" else "entropy"
    assert frame[f"is_{other}_neuron"].all()


@pytest.mark.parametrize("kind", FAILS)
def test_the_shortfall_is_0_for_those_that_meet_a_rule_and_grows_with_each_distance(kind):
    worse = {"ln_mediated_lo": 0.1} if kind == "entropy" else {"freq_mediated_lo": 0.0}
    rows = [MEETS, *(MEETS | {name: value} for name, value in FAILS[kind].items()), MEETS | worse]
    shortfall = Rules().shortfall(pd.DataFrame(rows), kind)
    assert shortfall[0] == 0
    below = shortfall[1:-1] if kind == "entropy" else shortfall[2:-1]  # freq_mediated_lo stands at its threshold
    assert (below >= 0).all()
    assert shortfall.iloc[-1] == pytest.approx(0.2)
    unknown = pd.DataFrame([MEETS | {next(iter(worse)): np.nan}])
    assert Rules().shortfall(unknown, kind).isna().all()


def test_rules_leave_the_frame_alone_and_refuse_a_senseless_share():
    frame = planted_table().frame.drop(columns=["is_entropy_neuron", "is_frequency_neuron"])
    before = frame.copy()
    assert Rules().apply(frame)["is_entropy_neuron"].dtype == bool
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(InputError, match="max_q"):
        Rules(max_q=0)


def test_rules_in_words_state_their_thresholds():
    words = " ".join(Rules(min_ln_mediated=0.41, max_q=0.017, min_change=0.02).describe())
    assert all(threshold in words for threshold in ("0.41", "0.017", "0.02"))


def test_a_table_of_an_earlier_version_keeps_its_rules():
    earlier = {"min_ln_mediated": 0.31, "min_freq_mediated": 0.16, "kl_top": 0.04}
    table = planted_table()
    table.facts["rules"] = earlier
    words = " ".join(table.rules.describe())
    assert all(threshold in words for threshold in ("0.31", "0.16", "4%"))
    table.frame["is_frequency_neuron"] = False
    assert "at least 0.16" in table.verdict()[1]
    assert table.rules.least_changes(table.frame) == [table.frame["kl_freq_abs_delta"].quantile(0.96)]
    with pytest.raises(InputError, match="older version"):
        table.rules.apply(table.frame)


def test_doubts_are_told_with_the_verdict():
    table = planted_table()
    assert len(table.verdict()) == 2
    table.facts |= {"counts_cosine": 0.42, "counts_tokens": 4096, "documents": 3, "units": 21, "resampled": "windows"}
    frequency, intervals = table.verdict()[2:]
    assert all(part in frequency for part in ("4,096 tokens", "0.42", "--counts"))
    assert all(part in intervals for part in ("3 documents, and at least 20", "21 windows"))
    table.facts |= {"counts_cosine": 0.9, "documents": 20}
    assert len(table.verdict()) == 2


def test_round_trip_keeps_everything(tmp_path):
    table = planted_table()
    table.facts["data"] = "Ünïcode “text”"
    table.frame.loc[0, "ln_mediated"] = np.nan
    table.token_changes = pd.DataFrame({"neuron": ["3.5", "3.5"], "loss_abs_delta": [0.5, 0.25]})
    table.save(tmp_path)
    for source in (tmp_path, str(tmp_path / "neurons.parquet")):
        back = NeuronTable.load(source)
        pd.testing.assert_frame_equal(back.frame, table.frame)
        pd.testing.assert_frame_equal(back.positions, table.positions)
        pd.testing.assert_frame_equal(back.nulls, table.nulls)
        pd.testing.assert_frame_equal(back.token_changes, table.token_changes)
        assert back.facts == table.facts
        assert back.cosine_neurons == table.cosine_neurons
        np.testing.assert_array_equal(back.singular_values, table.singular_values)
        np.testing.assert_array_equal(back.cosines, table.cosines)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "neurons.parquet",
        "nulls.parquet",
        "positions.parquet",
        "spectrum.npz",
        "summary.json",
        "token_changes.parquet",
    ]


def test_other_readers_find_plain_columns_in_the_parquet_file(tmp_path):
    table = planted_table()
    table.frame = table.frame.iloc[::2]
    table.save(tmp_path)
    names = pq.read_schema(tmp_path / "neurons.parquet").names
    assert names == list(table.frame.columns)
    assert names[: len(COLUMNS)] == list(COLUMNS)


def test_a_lone_parquet_file_still_gives_neurons_and_facts(tmp_path):
    table = planted_table()
    table.save(tmp_path / "run")
    (tmp_path / "run" / "neurons.parquet").rename(tmp_path / "alone.parquet")
    back = NeuronTable.load(tmp_path / "alone.parquet")
    assert back.facts == table.facts
    assert (len(back.singular_values), len(back.positions)) == (0, 0)
    assert np.isnan(back.correlation())


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        NeuronTable.load(tmp_path)
    (tmp_path / "neurons.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not a neuron table"):
        NeuronTable.load(tmp_path)
    planted_table().frame.to_parquet(tmp_path / "neurons.parquet")
    with pytest.raises(InputError, match="not a neuron table"):
        NeuronTable.load(tmp_path)


def test_a_table_without_a_column_or_without_rows_is_refused():
    table = planted_table()
    for frame in (table.frame.drop(columns="rho"), table.frame.head(0)):
        with pytest.raises(InputError):
            NeuronTable(frame, table.facts, table.singular_values, table.cosines, table.cosine_neurons, table.positions)


def test_a_failing_write_leaves_the_old_files_and_no_half_ones(tmp_path, monkeypatch):
    table = planted_table()
    table.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(table_module.np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        table.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_summary_is_json_and_names_the_planted_neurons(tmp_path):
    table = planted_table()
    table.frame.loc[5, "w_norm"] = np.nan
    table.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert summary == table.summary()
    assert [row["name"] for row in summary["entropy_neurons"]] == ENTROPY
    assert [row["name"] for row in summary["frequency_neurons"]] == FREQUENCY
    assert summary["counts"] == {"neurons": 60, "above_rho_chance": 2, "entropy_neurons": 2, "frequency_neurons": 1}
    assert summary["baseline"] == {"loss": 2.5, "entropy": 2.25}
    assert summary["entropy_kl_freq_correlation"] == pytest.approx(-1, abs=0.01)
    assert [row["name"] for row in summary["top_rho"]][:2] == ENTROPY
    assert {"ln_mediated_lo", "ln_mediated_hi"} <= summary["entropy_neurons"][0].keys()
    assert summary["entropy_neurons"][0]["ln_mediated_q"] == 1e-4


def test_summary_ranks_frequency_alignment_by_size_whatever_the_sign():
    table = planted_table()
    table.frame.loc[30, "cos_freq"] = -0.9
    assert table.summary()["top_abs_cos_freq"][0]["name"] == "3.30"


def test_verdict_says_what_was_found_or_what_came_nearest():
    assert planted_table().verdict() == [
        "2 entropy neurons in layer 3: 3.5, 3.17.",
        "1 frequency neuron in layer 3: 3.8.",
    ]

    table = planted_table(plant=False)
    table.frame.loc[[4, 9, 11], ["rho", "ln_mediated_lo"]] = [[0.39, 0.29], [0.9, 0.1], [0.2, 0.29]]
    entropy, frequency = table.verdict()
    assert entropy.startswith("No neuron of layer 3 meets the entropy rule; 3.4 comes nearest: rho 0.39 where chance")
    assert all(part in entropy for part in ("ln_mediated_lo 0.29 (at least 0.3)", "ln_mediated_q 0.5 (at most 0.01)"))
    assert frequency.startswith("No neuron of layer 3 meets the frequency rule")
    assert "(above 0.15), freq_mediated_q 0.5 (at most 0.01), kl_freq_abs_delta" in frequency
    assert list(table.nearest("entropy", 3).index) == ["3.4", "3.9", "3.11"]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_verdict_without_any_effect(value):
    assert all("none can be judged" in sentence for sentence in without_figures(value).verdict())


def test_to_pandas_is_a_copy_indexed_by_name():
    table = planted_table()
    frame = table.to_pandas()
    frame["rho"] = 0.0
    assert table.frame["rho"].max() > 0
    assert list(frame.index) == table.names == [f"3.{neuron}" for neuron in range(60)]


def test_facts_in_words_leave_out_what_the_run_lacks():
    words = dict(facts_in_words(planted_table().facts))
    assert words["Data"] == "5 windows, 1,280 tokens"
    assert words["Time"] == "1.5 s"
    assert words["Ablation"] == "mean"
    assert "Token counts" not in words


def test_the_ablation_value_is_told_where_it_was_used():
    table = planted_table()
    table.facts |= {"ablation": "fixed", "ablation_value": 0.5}
    assert dict(facts_in_words(table.facts))["Ablation"] == "fixed (0.5)"
    table.facts["ablation"] = "mean"
    assert dict(facts_in_words(table.facts))["Ablation"] == "mean"
