"""What is measured during training, and when; against float64 from the logits, and the analysis of the same model.

Letters: s window, t position, n neuron, v vocabulary, D singular values.
"""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import check_error
from tiny_training import TINY

from jaxconf.analysis.frequency import split_half_cosine
from jaxconf.analysis.metrics import COLUMNS, EFFECTS, PUBLISHED, RHO_AT, TIGHIDET
from jaxconf.data.corpus import Corpus
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.models.decoder import Decoder
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.rules import Rules
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.emergence import Emergence
from jaxconf.training.measurements import DRAWS, NEURON_COLUMNS, measure_predictions, measure_weights
from jaxconf.training.model_config import decoder_config, hf_config
from jaxconf.training.tracker import Tracker, effect_steps, tracked_steps

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = dataclasses.replace(TINY, layers=2, steps=10)
TRACK = TrackConfig(points=4, effects_every=2, tokens=100, k=2)
WEIGHTS = (
    *("w_norm", "logit_var", "rho", "rho_p", "rho_z", "cos_freq", "vocab_skew", "vocab_kurtosis"),
    *("weight_cost", "null_proxy", *RHO_AT, TIGHIDET),
)


initial = jax.jit(Decoder(decoder_config(CONFIG)).init, static_argnames="method")


@functools.cache
def model(seed: int) -> LanguageModel:
    """Parameters of a size that gives confident predictions, no gain or bias at its default."""
    hf, config = hf_config(CONFIG), decoder_config(CONFIG)
    start = jax.tree.map(np.asarray, initial(jax.random.key(seed), method="parameters")["params"])
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda w: jax.device_put(w + 0.4 * rng.standard_normal(w.shape).astype(np.float32)), start)
    return LanguageModel(config, params, f"random {seed}", None, Path(), hf)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Text of uneven frequencies; token 0 both begins and ends documents, and is all over the text."""
    text = np.minimum(np.random.default_rng(0).geometric(0.08, 3000), CONFIG.vocab_size).astype(np.int32) - 1
    return Corpus(text[:2500], text[2500:], 0, 0, {})


@given(steps=st.integers(1, 10**6), points=st.integers(1, 300), every=st.integers(1, 50))
def test_what_is_measured_when(steps, points, every):
    track = TrackConfig(points=points, effects_every=every)
    tracked, effects = tracked_steps(steps, track), effect_steps(steps, track)
    assert tracked == sorted(set(tracked))
    assert tracked[0] == 0
    assert tracked[-1] == steps
    assert len(tracked) <= points + 2
    assert all(type(step) is int for step in tracked)
    assert steps in effects
    assert effects <= set(tracked)
    places = [len(tracked) - 1 - tracked.index(step) for step in effects]  # counted from the last
    assert sorted(places) == list(range(0, len(tracked), every))


def test_steps_are_even_on_a_log_scale():
    assert tracked_steps(10_000, TrackConfig(points=5)) == [0, 1, 10, 100, 1000, 10_000]
    assert tracked_steps(3, TrackConfig(points=40)) == [0, 1, 2, 3]


@pytest.mark.parametrize("steps", [1, 100])
def test_nothing_is_measured_where_nothing_is_asked_for(steps):
    assert tracked_steps(steps, TrackConfig(points=0)) == []
    assert (
        effect_steps(steps, TrackConfig(points=0)) == effect_steps(steps, TrackConfig(effects_every=0)) == frozenset()
    )


def definitions(lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """Loss, entropy, accuracy and calibration error of the kept predictions in float64, position by position."""
    logits = np.asarray(lm.apply(tokens).logits, np.float64)
    losses, entropies, bins = [], [], [[] for _ in range(15)]
    for s, t in np.argwhere(kept):
        p = np.exp(logits[s, t] - logits[s, t].max())
        p /= p.sum()
        losses.append(-np.log(p[tokens[s, t + 1]]))
        entropies.append(-(p * np.log(p)).sum())
        bins[min(int(p.max() * 15), 14)].append((p.max(), p.argmax() == tokens[s, t + 1]))
    n = len(losses)
    ece = sum(
        len(b) / n * abs(np.mean([right for _, right in b]) - np.mean([sure for sure, _ in b])) for b in bins if b
    )
    right = sum(right for b in bins for _, right in b)
    return {"loss": np.mean(losses), "entropy": np.mean(entropies), "accuracy": right / n, "ece": ece}


@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_equal_their_definitions(seed, corpus):
    lm = model(seed)
    tokens = corpus.held_out_windows(TRACK.tokens, CONFIG.context)
    tokens[:, 1::2] = np.asarray(lm.apply(tokens).logits)[:, :-1:2].argmax(-1)  # some of what is predicted does follow
    kept = np.random.default_rng(seed).random(tokens.shape) < 0.6
    kept[:, -1] = False
    found, expected = measure_predictions(lm.config, lm.params, tokens, kept), definitions(lm, tokens, kept)
    assert 0.1 < expected["accuracy"] < 0.9
    assert expected["ece"] > 0.01
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_the_last_position_has_no_prediction_to_judge(corpus):
    lm, tokens = model(0), corpus.held_out_windows(TRACK.tokens, CONFIG.context)
    kept = np.ones(tokens.shape, bool)
    inner = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    assert measure_predictions(lm.config, lm.params, tokens, kept) == measure_predictions(
        lm.config, lm.params, tokens, inner
    )


def test_weights_equal_the_columns_of_a_whole_analysis(corpus):
    lm, counts = model(0), corpus.counts(CONFIG.vocab_size)
    table = analyze(lm, corpus.held_out_windows(TRACK.tokens, CONFIG.context), counts=counts, k=3, bootstrap_draws=0)
    found = measure_weights(lm.config, lm.params, counts, 3)
    assert set(found) == {*WEIGHTS, PUBLISHED, "rho_chance", "singular_values"}
    for name in WEIGHTS:
        np.testing.assert_array_equal(found[name], table.frame[name], err_msg=name)
    assert (table.frame["rho_chance"] == found["rho_chance"]).all()
    np.testing.assert_array_equal(found["singular_values"], table.singular_values)
    assert found["singular_values"].shape == (CONFIG.width - 1,)
    other = measure_weights(lm.config, lm.params, counts[::-1], 4)
    assert (other["rho"] >= found["rho"]).all()  # a larger null space holds more
    assert (other["cos_freq"] != found["cos_freq"]).all()


@pytest.fixture(scope="module")
def tracked(corpus, tmp_path_factory) -> tuple[Emergence, dict[int, LanguageModel]]:
    """A track of five models that stand for one at its tracked steps."""
    folder = tmp_path_factory.mktemp("tracked")
    tracker = Tracker(folder, hf_config(CONFIG), CONFIG, TRACK, corpus)
    models = {step: model(7 + step) for step in tracked_steps(CONFIG.steps, TRACK)}
    for step, lm in models.items():
        before = tracker.seconds
        tracker(step, lm.params, math.nan if step == 0 else 5 / step)
        assert tracker.seconds > before
    return Emergence.load(folder), models


def test_a_track_has_the_numbers_of_every_step(tracked, corpus):
    e, models = tracked
    assert e.steps["step"].tolist() == list(models) == [0, 1, 2, 5, 10]
    np.testing.assert_array_equal(e.steps["train_loss"], [math.nan, 5, 2.5, 1, 0.5])
    assert e.singular_values.shape == (5, CONFIG.width - 1)
    windows = corpus.held_out_windows(TRACK.tokens, CONFIG.context)
    assert windows.shape == (4, CONFIG.context)
    for (step, lm), row, values in zip(models.items(), e.steps.to_dict("records"), e.singular_values, strict=True):
        kept = kept_positions(windows, [0])
        for name, value in definitions(lm, windows, kept).items():
            assert row[name] == pytest.approx(value, rel=1e-4), (step, name)
        weights = measure_weights(lm.config, lm.params, corpus.counts(CONFIG.vocab_size), TRACK.k)
        assert row["rho_chance"] == weights["rho_chance"]
        np.testing.assert_array_equal(values, weights["singular_values"])
        neurons = e.neurons[e.neurons["step"] == step]
        assert neurons["neuron"].tolist() == list(range(CONFIG.neurons))
        for name in WEIGHTS:
            np.testing.assert_array_equal(neurons[name], weights[name], err_msg=f"{name} at step {step}")


def test_steps_with_effects_equal_the_analysis_of_the_same_model(tracked, corpus):
    e, models = tracked
    with_effects = effect_steps(CONFIG.steps, TRACK)
    assert with_effects == {0, 2, 10}
    windows, counts = corpus.held_out_windows(TRACK.tokens, CONFIG.context), corpus.counts(CONFIG.vocab_size)
    for step in with_effects:
        frame = analyze(models[step], windows, counts=counts, k=TRACK.k, bootstrap_draws=DRAWS).frame
        neurons = e.neurons[e.neurons["step"] == step].reset_index(drop=True)
        assert frame["loss_abs_delta"].min() > 1e-4  # the neurons do something, so that agreement means something
        for name in NEURON_COLUMNS:
            np.testing.assert_array_equal(neurons[name], frame[name], err_msg=f"{name} at step {step}")
    assert set(NEURON_COLUMNS) == set(COLUMNS) - {"layer", "neuron", "rho_chance"}


def test_effects_are_nan_and_rules_false_where_only_the_weights_were_measured(tracked):
    e, models = tracked
    others = e.neurons[e.neurons["step"].isin(set(models) - effect_steps(CONFIG.steps, TRACK))]
    assert len(others) == 2 * CONFIG.neurons
    effects = [*EFFECTS, "ln_mediated", "freq_mediated", "activation_mean", "activation_std"]
    assert others[effects].isna().all(axis=None)
    assert others[list(WEIGHTS)].notna().all(axis=None)
    rules = e.neurons[["is_entropy_neuron", "is_frequency_neuron"]]
    assert (rules.dtypes == "bool").all()
    assert not rules.loc[others.index].to_numpy().any()


def test_a_track_says_what_was_measured_and_how(tracked, corpus):
    facts = tracked[0].facts
    shape = {
        name: facts[name] for name in ("model_type", "n_layers", "d_model", "n_neurons", "vocab_size", "layer", "k")
    }
    assert shape == {
        "model_type": "gpt_neox",
        "n_layers": 2,
        "d_model": 16,
        "n_neurons": 24,
        "vocab_size": 264,
        "layer": 1,
        "k": 2,
    }
    assert TrainConfig(**{**facts["recipe"], "attributes": tuple(facts["recipe"]["attributes"])}) == CONFIG
    windows = corpus.held_out_windows(TRACK.tokens, CONFIG.context)
    assert (facts["data_sha256"], facts["tokens"]) == (digest(windows), windows.size)
    assert facts["rules"] == dataclasses.asdict(Rules())
    counts = corpus.counts(CONFIG.vocab_size)
    assert (facts["counts"], facts["counts_tokens"]) == ("the training text", counts.sum())
    assert (facts["counts_types"], facts["counts_cosine"]) == (np.count_nonzero(counts), split_half_cosine(counts))


def test_a_track_has_the_frequency_direction_of_the_given_counts(corpus, tmp_path):
    counts, lm = np.arange(CONFIG.vocab_size)[::-1].copy(), model(0)
    np.save(tmp_path / "counts.npy", counts)
    track = dataclasses.replace(TRACK, effects_every=0)
    Tracker(tmp_path, hf_config(CONFIG), CONFIG, track, corpus, tmp_path / "counts.npy")(0, lm.params, math.nan)
    e = Emergence.load(tmp_path)
    np.testing.assert_array_equal(
        e.neurons["cos_freq"], measure_weights(lm.config, lm.params, counts, TRACK.k)["cos_freq"]
    )
    assert e.facts["counts"] == str(tmp_path / "counts.npy")


def test_k_is_one_percent_of_the_width_by_default(corpus, tmp_path):
    lm = model(0)
    track = dataclasses.replace(TRACK, k=None, effects_every=0)
    Tracker(tmp_path, hf_config(CONFIG), CONFIG, track, corpus)(0, lm.params, math.nan)
    e = Emergence.load(tmp_path)
    assert e.facts["k"] == 1
    np.testing.assert_array_equal(
        e.neurons["rho"], measure_weights(lm.config, lm.params, corpus.counts(CONFIG.vocab_size), 1)["rho"]
    )
    assert e.neurons["loss_abs_delta"].isna().all()


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e30])
def test_a_model_that_has_diverged_is_not_measured(size, corpus, tmp_path):
    lm = model(0)
    tracker = Tracker(tmp_path, hf_config(CONFIG), CONFIG, dataclasses.replace(TRACK, effects_every=0), corpus)
    tracker(0, lm.params, math.nan)
    wild = jax.tree.map(lambda w: jax.device_put(np.asarray(w) * np.float32(size)), lm.params)
    assert math.isnan(
        measure_predictions(lm.config, wild, corpus.held_out_windows(72, 24), np.tri(3, 24, 5) > 0)["loss"]
    )
    tracker(1, wild, 5.0)
    assert Emergence.load(tmp_path).steps["step"].tolist() == [0]


def test_windows_with_no_position_to_measure_are_refused_before_the_first_step(corpus, tmp_path):
    short = dataclasses.replace(CONFIG, context=4)  # positions 0-2 and the last of a window never count
    tracker = Tracker(tmp_path, hf_config(short), short, TRACK, corpus)
    check_error(lambda: tracker(0, model(0).params, math.nan), "no held-out position is left", "longer context")
