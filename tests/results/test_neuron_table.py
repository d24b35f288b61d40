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


def judged(**columns):
    frame = pd.DataFrame(columns).assign(layer=0)
    defaults = {"rho": 0.0, "rho_chance": 0.5, "ln_mediated": 0.0, "freq_mediated": 0.0, "kl_freq_abs_delta": 0.0}
    return Rules().apply(frame.assign(**{name: value for name, value in defaults.items() if name not in frame}))


def test_entropy_rule_needs_rho_above_chance_and_a_mediated_share_at_least_as_asked():
    frame = judged(rho=[0.6, 0.5, 0.6, 0.6, np.nan], ln_mediated=[0.3, 0.9, 0.29, np.nan, 0.9])
    assert frame["is_entropy_neuron"].tolist() == [True, False, False, False, False]


def test_frequency_rule_takes_the_top_share_of_each_layer():
    kl = np.arange(100.0)
    frame = judged(freq_mediated=np.full(100, 0.15), kl_freq_abs_delta=kl)
    assert frame.index[frame["is_frequency_neuron"]].tolist() == [95, 96, 97, 98, 99]

    two_layers = pd.concat([frame, frame.assign(layer=1, kl_freq_abs_delta=kl / 1000)])
    assert Rules().apply(two_layers).groupby("layer")["is_frequency_neuron"].sum().tolist() == [5, 5]


def test_frequency_rule_keeps_ties_and_leaves_nan_out():
    tied = judged(freq_mediated=[0.2, 0.2, 0.2, 0.14], kl_freq_abs_delta=[1.0, 5.0, 5.0, 5.0])
    assert tied["is_frequency_neuron"].tolist() == [False, True, True, False]
    gaps = judged(freq_mediated=[0.2, np.nan, 0.2, 0.2], kl_freq_abs_delta=[1.0, 9.0, np.nan, 9.0])
    assert gaps["is_frequency_neuron"].tolist() == [False, False, False, True]


def test_rules_leave_the_frame_alone_and_refuse_a_senseless_share():
    frame = planted_table().frame.drop(columns=["is_entropy_neuron", "is_frequency_neuron"])
    before = frame.copy()
    assert Rules().apply(frame)["is_entropy_neuron"].dtype == bool
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(InputError, match="kl_top"):
        Rules(kl_top=0)


def test_rules_in_words_state_their_thresholds():
    words = " ".join(Rules(min_ln_mediated=0.41, min_freq_mediated=0.17, kl_top=0.02).describe())
    assert all(threshold in words for threshold in ("0.41", "0.17", "2%"))


def test_round_trip_keeps_everything(tmp_path):
    table = planted_table()
    table.facts["data"] = "Ünïcode “text”"
    table.frame.loc[0, "ln_mediated"] = np.nan
    table.save(tmp_path)
    for source in (tmp_path, str(tmp_path / "neurons.parquet")):
        back = NeuronTable.load(source)
        pd.testing.assert_frame_equal(back.frame, table.frame)
        pd.testing.assert_frame_equal(back.positions, table.positions)
        assert back.facts == table.facts
        assert back.cosine_neurons == table.cosine_neurons
        np.testing.assert_array_equal(back.singular_values, table.singular_values)
        np.testing.assert_array_equal(back.cosines, table.cosines)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "neurons.parquet",
        "positions.parquet",
        "spectrum.npz",
        "summary.json",
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
    table.frame.loc[[4, 9, 11], ["rho", "ln_mediated"]] = [[0.39, 0.29], [0.9, 0.1], [0.2, 0.29]]
    entropy, frequency = table.verdict()
    assert entropy.startswith("No neuron of layer 3 meets the entropy rule; 3.4 comes nearest (rho 0.39")
    assert frequency.startswith("No neuron of layer 3 meets the frequency rule")
    assert f"the largest 5% begin at {table.frame['kl_freq_abs_delta'].quantile(0.95):.3g}, freq_mediated" in frequency
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
