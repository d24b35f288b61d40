"""Steering: every dose against the edited model run as a whole, and doses that are chosen on one half alone.

Letters: s window, t position, u unit, v vocabulary.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from commands import refusal, run
from hub_models import HF, build
from parameters import marked
from random_models import random_model, windows_for
from refusals import check_error

from jaxconf.analysis.calibration import unit_sums
from jaxconf.analysis.frequency import frequency
from jaxconf.data.windows import kept_positions
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.measure.selections import Selection
from jaxconf.measure.work import Work
from jaxconf.models.generate import generate
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Add, Edit, Scale
from jaxconf.runtime.memory import MEMORY
from jaxconf.studies.steering.doses import Steered, predictions, probe_of
from jaxconf.studies.steering.study import steer
from jaxconf.studies.steering.tables import table_of_best, table_of_doses
from jaxconf.studies.steering.treatments import NULL, PROBE, TEMPERATURE, Treatment, pushes_of, treatments_of
from jaxconf.studies.steering.written import PROMPT, _repeated, prompts_of, table_of_text

pytestmark = pytest.mark.usefixtures("compiled_quickly")

COLD = 0.6


def work_of(lm: LanguageModel, count: int = 6) -> Work:
    """A measurement in which each window is a unit."""
    tokens = windows_for(lm, count)
    kept = kept_positions(tokens, lm.special_ids)
    units, counts = np.indices(tokens.shape)[0], np.zeros(lm.config.vocab_size, int)
    return Work(lm, tokens, kept, units, 0, count, counts, frequency(counts), MEMORY, lambda *_: None)


def by_running(work: Work, edits: dict[str, Edit], temperature: float) -> dict[str, np.ndarray]:
    """`unit_sums` of the whole model with these edits, its logits divided by a temperature."""
    kept, tokens = work.kept[:, :-1], work.tokens
    z = np.asarray(work.lm.apply(tokens, edits=edits).logits, np.float64)[:, :-1] / temperature
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    P, own = np.exp(lp), np.take_along_axis(lp, tokens[:, 1:, None], -1)[..., 0]
    values = {
        "loss": -own,
        "entropy": -(P * lp).sum(-1),
        "brier": (P * P).sum(-1) - 2 * np.exp(own) + 1,
        "confidence": P.max(-1),
        "correct": lp.argmax(-1) == tokens[:, 1:],
    }
    of = type("Predicted", (), {"_asdict": lambda self: {name: x[kept] for name, x in values.items()}})()
    return unit_sums(of, work.units[:, :-1][kept], len(work.unit_counts))


@pytest.mark.parametrize("kind", marked(["layer", "rms", "capped"], quick=["capped"]))
def test_every_dose_is_what_the_edited_model_predicts(kind: str) -> None:
    work = work_of(random_model(kind))
    config, last = work.lm.config, f"blocks.{work.lm.config.n_layers - 1}."
    neurons = Population.of_neurons(config)
    own, random = NamedSet("the set", "set", [(1, 3), (1, 20)], neurons), [(1, 7), (1, 9)]
    sets = [Selection("pair", [own, NamedSet("random 1", "random", random, neurons)], "name")]
    rng = np.random.default_rng(4)
    pushes = rng.standard_normal((2, config.d_model)).astype(np.float32)
    treatments = treatments_of(sets, pushes_of(config, [PROBE, NULL], pushes))
    found = predictions(Steered.of(work, COLD, np.zeros(6, bool)), treatments)
    assert len(found) == sum(len(one.doses) for one in treatments) - 4  # four treatments share their neutral dose

    def close(name: str, dose: float, edits: dict[str, Edit], temperature: float = COLD) -> None:
        expected = by_running(work, edits, temperature)
        for key, x in found[name, dose].items():
            tied = key.startswith("bin") or key == "correct"  # a position at the edge of a bin, or a tie
            np.testing.assert_allclose(x, expected[key], atol=1.01 if tied else 1e-3, err_msg=f"{name} {dose} {key}")

    close(TEMPERATURE, 1.0, {})
    close(TEMPERATURE, 1.5, {}, COLD * 1.5)
    for name, members in (("pair", [3, 20]), ("random 1 beside pair", [7, 9])):
        factors = np.ones(config.d_mlp, np.float32)
        for dose in (-2.0, 0.0, 4.0):
            factors[members] = dose
            close(name, dose, {last + "mlp.hook_post": Scale(factors)})
    for name, push in ((PROBE, pushes[0]), (NULL, pushes[1])):
        for dose in (-0.4, 1.6):
            close(name, dose, {last + "hook_resid_post": Add(dose * push)})


def test_the_probe_reads_what_is_linear_in_the_stream() -> None:
    """Of a model whose entropy hardly depends on anything else than the stream's component along one direction."""
    work = work_of(random_model("layer"), 60)
    held = np.arange(60) % 2 == 1
    steered = Steered.of(work, COLD, held)
    probe = probe_of(steered)
    site = f"blocks.{work.lm.config.n_layers - 1}.hook_resid_post"
    x = np.asarray(work.lm.apply(work.tokens, capture=[site]).captured[site], np.float64)
    x -= x.mean(-1, keepdims=True)
    train, test = (work.kept & (held == of)[:, None] for of in (False, True))
    assert probe.length == pytest.approx(np.sqrt(np.square(x[train]).sum(-1).mean()), rel=1e-5)
    z = np.asarray(work.lm.apply(work.tokens).logits, np.float64) / COLD
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    H = -(np.exp(lp) * lp).sum(-1)
    assert np.linalg.norm(probe.direction) == pytest.approx(1)
    slope, constant = np.polyfit(x[train] @ probe.direction, H[train], 1)
    errors = H[test] - constant - slope * (x[test] @ probe.direction)
    assert slope > 0  # more of the direction means more entropy
    r2 = 1 - np.square(errors).sum() / np.square(H[test] - H[train].mean()).sum()
    assert probe.r2 == pytest.approx(r2, abs=0.05)


def test_doses_are_chosen_on_one_half_and_measured_on_the_other() -> None:
    held = np.arange(40) >= 20
    doses = {"a": (0.0, 1.0, 2.0)}
    treatments = [
        Treatment(TEMPERATURE, "temperature", TEMPERATURE, (1.0,), 1.0),
        Treatment("a", "set", "a", doses["a"], 1.0),
    ]

    def sums(gap_chosen: float, gap_held: float, loss: float) -> dict[str, np.ndarray]:
        """Units of ten positions in one bin, whose confidence exceeds the accuracy by a gap."""
        gap, zeros = np.where(held, gap_held, gap_chosen), np.zeros((40, 15))
        confidence, correct, count = zeros.copy(), zeros.copy(), zeros.copy()
        count[:, 7], correct[:, 7], confidence[:, 7] = 10, 5, 10 * (0.5 + gap)
        plain = {"loss": np.full(40, 10 * loss), "entropy": np.full(40, 20.0), "brier": np.zeros(40)}
        bins = {"bin_count": count, "bin_confidence": confidence, "bin_correct": correct}
        return {**plain, "correct": np.full(40, 5.0), **bins}

    found = {(TEMPERATURE, 1.0): sums(0.3, 0.3, 2), ("a", 0.0): sums(0.01, 0.2, 2.5), ("a", 2.0): sums(0.2, 0.01, 2.1)}
    table = table_of_doses(found, treatments, held)
    best = table_of_best(found, treatments, table, held, 50, 0).set_index("treatment")
    assert best.loc["a", "dose"] == 0.0  # best on the half that chooses, and not on the other
    assert best.loc["a", "ece"] == pytest.approx(0.2)
    assert best.loc["a", "ece_change"] == pytest.approx(-0.1)
    assert best.loc["a", "loss_change"] == pytest.approx(0.5)
    assert best.loc["a", ["ece_change_lo", "ece_change_hi"]].tolist() == pytest.approx([-0.1, -0.1])
    assert best.loc[TEMPERATURE, "ece_change"] == 0


def test_what_a_steered_model_writes() -> None:
    work = work_of(random_model("rms"))
    lm = work.lm
    held = np.zeros(work.tokens.shape, bool)
    held[[1, 4]] = True
    prompts = prompts_of(work.tokens, held, 5)
    np.testing.assert_array_equal(prompts, work.tokens[[1, 4], :PROMPT])
    own = NamedSet("the set", "set", [(1, 3), (1, 20)], Population.of_neurons(lm.config))
    push = np.random.default_rng(1).standard_normal((1, lm.config.d_model)).astype(np.float32)
    treatments = treatments_of([Selection("pair", [own], "name")], pushes_of(lm.config, [PROBE], push))
    doses = {TEMPERATURE: 1.5, "pair": 4.0, PROBE: 0.8}
    table = table_of_text(lm, treatments, doses, COLD, prompts, 0, MEMORY, lambda *_: None)
    assert table["treatment"].tolist() == ["unsteered", TEMPERATURE, "pair", PROBE]
    again = table_of_text(lm, treatments, doses, COLD, prompts, 0, MEMORY, lambda *_: None)
    assert table.equals(again)
    factors = np.ones(lm.config.d_mlp, np.float32)
    factors[[3, 20]] = 4
    edits = {"blocks.1.mlp.hook_post": Scale(factors)}
    new = lm.config.n_positions - PROMPT
    written = np.stack(generate(lm.config, lm.params, prompts, new, temperature=COLD, edits=edits))
    text = np.concatenate([prompts, written], 1)

    def log_p(temperature: float, edits: dict[str, Edit]) -> np.ndarray:
        """At the positions before each written token."""
        z = np.asarray(lm.apply(text, edits=edits).logits, np.float64)[:, PROMPT - 1 : -1] / temperature
        return z - np.logaddexp.reduce(z, -1, keepdims=True)

    own, plain = log_p(COLD, edits), log_p(1, {})
    row = table.set_index("treatment").loc["pair"]
    assert row["entropy"] == pytest.approx(-(np.exp(own) * own).sum(-1).mean(), rel=1e-5)
    assert row["loss_as_loaded"] == pytest.approx(-np.take_along_axis(plain, written[..., None], -1).mean(), rel=1e-5)
    # Without an effect, a treatment writes what the unsteered model does.
    neutral = {TEMPERATURE: 1.0, "pair": 1.0, PROBE: 0.0}
    same = table_of_text(lm, treatments, neutral, COLD, prompts, 0, MEMORY, lambda *_: None)
    for column in ("entropy", "loss_as_loaded", "repeated"):
        np.testing.assert_allclose(same[column], table[column][0], rtol=1e-5)


def test_repeated_runs_of_tokens() -> None:
    assert _repeated(np.arange(20)) == 0
    assert _repeated(np.array([1, 2, 3, 4, 5, 1, 2, 3, 4])) == pytest.approx(1 / 6)
    assert _repeated(np.array([1, 2])) == 0


def test_mistakes(tmp_path: Path) -> None:
    lm = random_model("rms")
    check_error(lambda: steer(lm, windows_for(lm), sets=[[(1, 3)]], temperature=0), "above 0")
    check_error(lambda: steer(lm, windows_for(lm), sets=[[(1, 3)]]), "at least 10 are needed")
    check_error(lambda: steer(lm, windows_for(lm, 20), sets=[[(0, 3)]]), "layer")
    short = dataclasses.replace(lm, config=dataclasses.replace(lm.config, n_positions=16))
    check_error(lambda: steer(short, windows_for(lm, 20), sets=[[(1, 3)]]), "too few to continue text of 16 tokens")
    np.savez(tmp_path / "mine.npz", write=np.ones((1, lm.config.d_model)), names=["temperature"])
    how = {"sets": [[(1, 3)]], "directions": tmp_path / "mine.npz"}
    check_error(lambda: steer(lm, windows_for(lm, 20), **how), "two treatments are named 'temperature'")


@pytest.mark.command
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("".join(f"def f{i}(x):\n    return x * {i} + {i % 7}\n" for i in range(400)))
    given = ("steer", build(tmp_path / "model", 0), "--data", text, "--tokens", 640, "--set", "1.3,1.5", "--out", out)
    np.savez(tmp_path / "mine.npz", write=np.eye(HF["hidden_size"])[:2], names=["first", "second"])
    further = ("--directions", tmp_path / "mine.npz")
    run(*given, *further, "--controls", 2, "--bootstrap-draws", 9, "--prompts", 2)
    said = capsys.readouterr().out
    assert "At temperature 0.7, the model has an expected calibration error of" in said
    assert "of 2 random sets" in said
    assert "of the stream's length along the second" in said
    assert (out / "steer_doses.png").is_file()
    assert "--force" in refusal(capsys, *given)
