"""Directions and latents in the neurons' place: each study gives what running the edited model gives.

Letters: b sequence or window, t position, n latent, d model width. Losses and entropies in nats.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autoencoders import transcoder
from one_set_at_a_time import ablation, alone
from parameters import marked
from random_models import counts_for, random_model, windows_for, with_repeats
from refusals import refused
from repeated_runs import MEMORY, L, in_nats
from scipy.special import log_softmax
from tiny_knowledge import RECORDED

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.induction import halves, predictions, repeated
from jaxconf.data.documents import documents
from jaxconf.data.questions import questions_of_statements
from jaxconf.data.statements import read_statements
from jaxconf.data.windows import kept_positions, windows
from jaxconf.measure import gates
from jaxconf.measure.answers import answers_together
from jaxconf.measure.chosen_sets import check_chosen, populations
from jaxconf.measure.component_sets import per_component_token
from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.measure.selections import Selection
from jaxconf.measure.treated_sets import Treated, together
from jaxconf.measure.work import Work
from jaxconf.models.generate import generate
from jaxconf.models.language_model import load
from jaxconf.models.sites import Ablate, Replace
from jaxconf.studies.carry.positions import DIRECTION, block_of, positions
from jaxconf.studies.carry.sentences import sentences as of_carry
from jaxconf.studies.carry.setting import read_text
from jaxconf.studies.carry.study import carry
from jaxconf.studies.copying.sentences import sentences as of_copying
from jaxconf.studies.copying.study import copying
from jaxconf.studies.induction.page import page
from jaxconf.studies.induction.sentences import sentences as of_induction
from jaxconf.studies.induction.study import induction
from jaxconf.studies.steering.doses import Steered
from jaxconf.studies.steering.doses import predictions as steered
from jaxconf.studies.steering.sentences import sentences as of_steering
from jaxconf.studies.steering.study import steer
from jaxconf.studies.steering.treatments import treatments_of
from jaxconf.studies.steering.written import _edits
from jaxconf.studies.tasks.sentences import sentences as of_tasks
from jaxconf.studies.tasks.study import tasks

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly")]

KINDS = ["layer", "rms", "capped"]  # parallel LayerNorm, RMSNorm, norms behind both parts and soft caps
OWN = "sae.1,sae.4"


def quiet(what: str, done: int, total: int) -> None:
    pass


class Latents:
    """A model with a transcoder of its last layer, whose edits are of the stream behind it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.lm = random_model(kind)
        self.component, self.reads, self.latents, self.w = transcoder(folder / "sae", self.lm.config)
        self.stream = f"blocks.{self.lm.config.n_layers - 1}.hook_resid_post"

    def coefficients(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The latents, [b t n], and the stream, [b t d]."""
        captured = self.lm.apply(tokens, capture=[self.reads, self.stream]).captured
        return self.latents(np.asarray(captured[self.reads], np.float64)), np.asarray(captured[self.stream])

    def logits(self, tokens: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The logits [b t v], if the latents change by `delta`, [b t n]."""
        edit = Replace((self.coefficients(tokens)[1] + delta @ self.w).astype(np.float32))
        return np.asarray(self.lm.apply(tokens, edits={self.stream: edit}).logits)

    def after(self, tokens: np.ndarray, delta: np.ndarray) -> dict[str, np.ndarray]:
        """Entropy and loss, if the latents change by `delta`, [b t n]."""
        return in_nats(self.logits(tokens, delta), tokens)

    def treated(self, tokens: np.ndarray, own: list[int], values: Any, ablated: float) -> np.ndarray:
        """The logits [b t v], if each of some latents h becomes h + ablated·(value − h)."""
        h, _ = self.coefficients(tokens)
        delta = np.zeros_like(h)
        delta[..., own] = ablated * (values - h[..., own])
        return self.logits(tokens, delta)


def members(names: str) -> list[int]:
    return [int(name.removeprefix("sae.")) for name in names.split(",")]


@pytest.mark.parametrize("kind", marked(KINDS, quick=["rms"]))
def test_induction(kind: str, tmp_path: Path) -> None:
    of = Latents(kind, tmp_path)
    lm, V = of.lm, of.lm.config.vocab_size
    text, ordinary = np.random.default_rng(3).integers(1, V, (5, L)), windows_for(lm)
    how: dict[str, Any] = {"heads": [(0, 1), (1, 0)], "controls": 2, "bootstrap_draws": 9}
    given = {"neurons": OWN, "components": of.component, "sequences": text, "natural": with_repeats(V)}
    found = induction(lm, ordinary, **given, **how)
    tokens, (first, second), repeat = repeated(text, 0), halves(L), predictions(L)[1]
    h, _ = of.coefficients(tokens)
    np.testing.assert_allclose(found.neurons["activation_first"], h[:, first].mean((0, 1)), atol=1e-5)
    assert found.neurons["name"].tolist() == [f"sae.{n}" for n in range(9)]
    assert found.neurons["name"][found.neurons["is_chosen"]].tolist() == OWN.split(",")
    shown = found.activations[found.activations["neuron"] == "sae.4"]
    np.testing.assert_allclose(shown["activation"], h[..., 4].mean(0), atol=1e-5)
    before, moved = in_nats(lm.apply(tokens).logits, tokens), 0.0
    for row in found.sets.to_dict("records"):
        delta = np.zeros_like(h)
        for n in members(row["members"]):
            mean, later = h[:, first, n].mean(), h[:, second, n].mean()
            clip = np.minimum(h[..., n], mean) if later > mean else np.maximum(h[..., n], mean)
            delta[..., n] = (clip if row["ablation"] == "clip" else mean) - h[..., n]
        change = {name: x - before[name] for name, x in of.after(tokens, delta).items()}
        for name, x in change.items():
            assert row[name] == pytest.approx(x[:, repeat].mean(), abs=1e-4)
        moved = max(moved, abs(row["entropy"]))
    assert moved > 1e-3  # so that agreement means something
    scaled = found.doses[(found.doses["set"] == "the set") & (found.doses["data"] == "repeat")]
    for row in scaled.to_dict("records"):
        delta = np.zeros_like(h)
        delta[..., members(OWN)] = (row["factor"] - 1) * h[..., members(OWN)]
        after = of.after(tokens, delta)
        assert row["entropy"] == pytest.approx(after["entropy"][:, repeat].mean(), abs=1e-4)
        assert row["loss"] == pytest.approx(after["loss"][:, repeat].mean(), abs=1e-4)
    heads_and_natural(found, of, tokens, with_repeats(V))
    assert "Clip ablation of the 2 chosen components, sae.1, sae.4 (chosen by name)" in " ".join(of_induction(found))
    assert "sae.4" in page(found, [])


def heads_and_natural(found: Any, of: Latents, tokens: np.ndarray, texts: np.ndarray) -> None:
    """What the latents are if heads attend to BOS alone, and where six tokens occur twice."""
    before = found.head_activations.drop_duplicates("neuron").set_index("neuron")["activation"]
    h, _ = of.coefficients(tokens)
    repeat = predictions(L)[1]
    assert before["sae.1"] == pytest.approx(h[:, repeat, 1].mean(), abs=1e-5)
    lm, heads = of.lm, [(0, 1), (1, 0)]
    edits = {}
    for layer, head in heads:
        mask = np.zeros((lm.config.n_heads, 1, 1), bool)
        mask[head] = True
        to_bos = (np.arange(tokens.shape[1]) == 0).astype(np.float32)
        edits[f"blocks.{layer}.attn.hook_pattern"] = Ablate(mask, to_bos)
    captured = lm.apply(tokens, edits=edits, capture=[of.reads]).captured
    both = found.head_activations[found.head_activations["heads"] == "top 2"].set_index("neuron")
    after = of.latents(np.asarray(captured[of.reads], np.float64))[:, repeat]
    assert both.loc["sae.4", "activation_ablated"] == pytest.approx(after[..., 4].mean(), abs=1e-5)
    h, _ = of.coefficients(texts[::2])
    own = found.natural.activations.set_index(["protocol", "neuron", "offset"]).loc[("ours", "sae.1")]
    for offset in (-5, 1):
        assert own["activation_second"][offset] == pytest.approx(h[:, 25 + offset, 1].mean(), abs=1e-5)
    mean, later = h[:, 4:10, 1].mean(), h[:, 20:26, 1].mean()
    delta = np.zeros_like(h)
    clip = np.minimum(h[..., 1], mean) if later > mean else np.maximum(h[..., 1], mean)
    delta[..., 1] = clip - h[..., 1]
    plain = in_nats(lm.apply(texts[::2]).logits, texts[::2])
    change = of.after(texts[::2], delta)["entropy"] - plain["entropy"]
    row = found.natural.sets.set_index(["protocol", "set"]).loc[("ours", "sae.1")]
    assert row["entropy"] == pytest.approx(change[:, 25].mean(), abs=1e-4)


def test_sets_that_cannot_be(tmp_path: Path) -> None:
    of = Latents("rms", tmp_path)
    lm, ordinary = of.lm, windows_for(of.lm)

    def told(neurons: Any, components: str, *parts: str, **how: Any) -> None:
        named = {"neurons": neurons, "components": components, "controls": 2, **how}
        refused(lambda: induction(lm, ordinary, sequences=np.ones((2, L), int), **named), *parts)

    told("sae.9", of.component, "there is no direction or latent sae.9", "sae.0 to sae.8")
    told("sae.1,null.0", f"{of.component},null", "null.0 is not of the same kind as sae.1", "a set of one kind")
    told("sae.1", "neurons", "there is no direction or latent sae.1", "such as --components sae=FOLDER")
    told(None, of.component, "no set names one of them", "leave components out")
    told([(1, 3)], of.component, "no set names one of them")
    told("1.h0", of.component, "a head writes another direction at each position", "name directions or latents")
    told("1.b_out", of.component, "a bias never varies", "name directions or latents")
    told("sae.1", "sae=nowhere", "give the folder of an autoencoder")
    told("sae.0,sae.1,sae.2,sae.3,sae.4", of.component, "too few for random sets")
    told("sae.1", of.component, "controls is -1", controls=-1)
    wide, *_ = transcoder(tmp_path / "wide", dataclasses.replace(lm.config, d_model=48))
    told("sae.1", wide, "has the width 48")


def by_hand(of: Latents, prompts: list[np.ndarray], new: int, *how: Any) -> list[np.ndarray]:
    """The greedy continuations of prompts with `how` as for `Latents.treated`, a whole pass for each token."""
    found = []
    for prompt in prompts:
        row = prompt
        for _ in range(new):
            row = np.append(row, of.treated(np.pad(row, (0, 16 - len(row)))[None], *how)[0, len(row) - 1].argmax())
        found.append(row[-new:])
    return found


@pytest.mark.parametrize("kind", marked(KINDS, quick=["layer"]))
def test_answers(kind: str, tmp_path: Path) -> None:
    """Sets of latents and of neurons, whose rows alternate."""
    of = Latents(kind, tmp_path)
    lm, last, rng = of.lm, of.lm.config.n_layers - 1, np.random.default_rng(0)
    picked = check_chosen(lm.config, [OWN, "sae.7"], of.component, 2, None)
    found = populations(lm, picked, of.component, None, windows_for(lm), None, 10**9, quiet)
    first, second = (NamedSet("", "given", own, found[kind]) for kind, own in picked)
    neuron = NamedSet("", "given", [(last, 3)], found["neuron"])
    treated = [Treated(first, 0, 0), Treated(neuron, 2.5, 1), Treated(first, [0.5, -1], 1), Treated(second, 0, -3)]
    prompts = [rng.integers(1, lm.config.vocab_size, length) for length in (5, 9)]
    answers = [[rng.integers(1, lm.config.vocab_size, 2)] for _ in prompts]
    told = answers_together(lm, prompts, answers, together(treated), 3, 10**9, quiet, "")
    moved = 0
    for row, one in enumerate(treated):
        if one.one.population is found["neuron"]:
            edits = ablation(lm, np.array([3]), np.array([2.5]))
            tokens, entropy = alone(lm, prompts, edits, 3, 16)
            np.testing.assert_allclose(told.entropy[row], entropy, atol=1e-4)
            np.testing.assert_array_equal(told.tokens[row], tokens)
            continue
        how = one.one.indices, np.asarray(one.values, np.float64), one.ablated
        np.testing.assert_array_equal(told.tokens[row], by_hand(of, prompts, 3, *how))
        for p, (prompt, [answer]) in enumerate(zip(prompts, answers, strict=True)):
            whole = np.pad(np.concatenate([prompt, answer]), (0, 16 - len(prompt) - 2))[None]
            lp = log_softmax(of.treated(whole, *how)[0].astype(np.float64), -1)[len(prompt) - 1 :]
            assert told.log_p[row, p, 0] == pytest.approx(lp[[0, 1], answer].sum(), abs=1e-4)
            assert told.entropy[row, p] == pytest.approx(-(np.exp(lp[0]) * lp[0]).sum(), abs=1e-4)
        moved = max(moved, np.abs(told.entropy[row] - told.entropy[0]).max())
    assert moved > 1e-2


@pytest.mark.parametrize("kind", marked(KINDS, quick=["layer"]))
def test_carry(kind: str, tmp_path: Path) -> None:
    of = Latents(kind, tmp_path)
    lm, tokens, last = of.lm, windows_for(of.lm, 40), of.lm.config.n_layers - 1
    how: dict[str, Any] = {"controls": 2, "bootstrap_draws": 9, "effects": 200}
    found = carry(lm, tokens, sets=[OWN, [(last, 3)]], components=of.component, **how)
    text = read_text(lm, tokens, "", 0)
    rows = text.others[np.linspace(0, len(text.others) - 1, 200 // tokens.shape[1]).round().astype(int)]
    tokens, kept = tokens[rows], kept_positions(tokens[rows], lm.special_ids)
    h, _ = of.coefficients(tokens)
    was = in_nats(lm.apply(tokens).logits, tokens)["entropy"]
    for name in (OWN, "sae.4"):
        delta, at = np.zeros_like(h), np.zeros(kept.shape, bool)
        for n in members(name):
            high = kept & (h[..., n] > np.quantile(h[..., n][kept], gates.HIGH))
            delta[..., n] = np.where(high, np.minimum(h[..., n], h[..., n].mean()) - h[..., n], 0)
            at |= high
        row = found.influence[found.influence["set"] == name].iloc[0]
        change = np.abs(of.after(tokens, delta)["entropy"] - was)[at]
        assert row["positions"] == at.sum()
        assert row["entropy_abs_delta"] == pytest.approx(change.mean(), abs=1e-4)
        assert change.mean() > 1e-3
    tables = found.sets.groupby("kind")["neuron"].apply(list)
    assert all(name.startswith("sae.") for name in tables["correlation"])
    beside = found.sets[found.sets["kind"] == "random"].groupby("beside")["neuron"].apply(list)
    assert all(name.startswith("sae.") and name not in OWN.split(",") for name in beside[OWN])
    assert all(name.startswith(f"{last}.") for name in beside[f"{last}.3"])
    predicted = [of_text for of_text in found.carrying["set"].unique() if "random" not in of_text]
    assert {OWN, f"{last}.3"} <= set(predicted)
    assert "As many components with the largest |correlation|" in " ".join(of_carry(found))
    latents = latents_of(of)
    groups = list(positions(lm, text, rows, {latents: np.array([1, 4])}, 10**6, quiet))
    own = np.concatenate([group.blocks[block_of(latents)] for group in groups])
    np.testing.assert_allclose(own, h[kept][:, [1, 4]], atol=1e-4)


def test_directions_of_a_user_are_not_those_of_the_stream(tmp_path: Path) -> None:
    lm = Latents("rms", tmp_path).lm
    tokens, d = windows_for(lm, 12), lm.config.d_model
    np.savez(tmp_path / "own.npz", write=np.eye(d)[:3])
    components = f"directions={tmp_path / 'own.npz'}"
    picked = check_chosen(lm.config, ["direction.1"], components, 0, None)
    given = populations(lm, picked, components, None, tokens, None, 10**9, quiet)["direction"]
    text = read_text(lm, tokens, "", 0)
    group = next(iter(positions(lm, text, np.arange(len(tokens)), {given: np.array([1])}, 10**6, quiet)))
    assert (group.blocks[block_of(given)].shape[1], group.blocks[DIRECTION].shape[1]) == (1, d)


def latents_of(of: Latents) -> Population:
    picked = check_chosen(of.lm.config, [OWN], of.component, 0, None)
    return populations(of.lm, picked, of.component, None, windows_for(of.lm), None, 10**9, quiet)["sae"]


@pytest.mark.parametrize("kind", marked(KINDS, quick=["rms"]))
def test_steering(kind: str, tmp_path: Path) -> None:
    """Latents are scaled on text by the algebra, and while text is written and read by an edit."""
    of = Latents(kind, tmp_path)
    lm, tokens = of.lm, windows_for(of.lm, 12)
    units, counts = np.indices(tokens.shape)[0], np.zeros(lm.config.vocab_size, int)
    kept = kept_positions(tokens, lm.special_ids)
    work = Work(lm, tokens, kept, units, 0, 12, counts, frequency(counts), MEMORY, quiet)
    own = NamedSet("the set", "set", [(lm.config.n_layers - 1, n) for n in members(OWN)], latents_of(of))
    treatments = treatments_of([Selection("latents", [own], "name")], [])
    found = steered(Steered.of(work, 1.0, np.zeros(12, bool)), treatments)
    counted, target = kept[:, :-1], np.roll(tokens, -1, 1)[:, :-1]
    for dose in (-2.0, 0.0, 4.0):
        by_edit = lm.apply(tokens, edits=_edits(lm.config, treatments[1], dose)).logits
        logits = of.treated(tokens, members(OWN), 0, 1 - dose)
        np.testing.assert_allclose(by_edit, logits, atol=2e-4)
        lp = log_softmax(logits[:, :-1].astype(np.float64), -1)
        loss = -np.take_along_axis(lp, target[..., None], -1)[..., 0][counted]
        sums = found["latents", dose]
        assert sums["loss"].sum() / counted.sum() == pytest.approx(loss.mean(), abs=1e-4)
        entropy = -(np.exp(lp) * lp).sum(-1)[counted]
        assert sums["entropy"].sum() / counted.sum() == pytest.approx(entropy.mean(), abs=1e-4)
    plain = in_nats(lm.apply(tokens).logits, tokens)["entropy"][:, :-1][counted]
    assert abs(entropy.mean() - plain.mean()) > 1e-2
    prompts = tokens[:2, :8]
    new = generate(lm.config, lm.params, prompts, 3, edits=_edits(lm.config, treatments[1], 4.0))
    np.testing.assert_array_equal(new, by_hand(of, list(prompts), 3, members(OWN), 0, 1 - 4.0))


def test_steer_names_what_it_scales(tmp_path: Path) -> None:
    of = Latents("rms", tmp_path)
    tokens = windows_for(of.lm, 20)
    how: dict[str, Any] = {"controls": 1, "bootstrap_draws": 9, "prompts": 0}
    found = steer(of.lm, tokens, sets=["pc.0,pc.2", "sae.1"], components=f"{of.component},pc=5", **how)
    assert found.facts["sets"] == {"set 1": "pc.0, pc.2", "set 2": "sae.1"}
    assert found.best.set_index("treatment")["component"][["set 1", "set 2"]].tolist() == ["pc", "sae"]
    assert "the components of “set 1”" in " ".join(of_steering(found))


def test_tasks_and_copying(tmp_path: Path) -> None:
    """A model that has learnt facts: sets of latents beside one of neurons."""
    lm = load(RECORDED / "model")
    component, site, latents, _ = transcoder(tmp_path / "sae", lm.config)
    text = windows(documents(str(RECORDED / "text.jsonl")), lm.tokenizer, 640, 32).tokens
    captured = lm.apply(text, capture=[site]).captured
    h = latents(np.asarray(captured[site], np.float64))
    questions = questions_of_statements(read_statements(RECORDED / "statements.csv"), 0)[:6]
    how: dict[str, Any] = {"tokens": text, "components": component}
    sets: dict[str, Any] = {"sets": [OWN, [(0, 3)]], "controls": 1, "bootstrap_draws": 9, "scale": (0.0, 4.0)}
    found = tasks(lm, questions, reasoning=text, **how, **sets)
    own = found.neurons.set_index("neuron")["activation_mean"]
    assert own.index.tolist() == ["sae.1", "sae.4", "0.3"]
    np.testing.assert_allclose(own[:2], h.mean((0, 1))[[1, 4]], atol=1e-5)
    kept = kept_positions(text, lm.special_ids)
    np.testing.assert_allclose(found.tokens["sae.4"], h[kept][:, 4], atol=1e-5)
    assert found.forks["neuron"].tolist() == ["sae.1", "sae.4", "0.3"]
    assert found.sets["members"].iloc[1] == OWN
    said = " ".join(of_tasks(found))
    assert "Setting the 2 components “set 1” (sae.1, sae.4; chosen by name)" in said
    assert "Setting the 1 neuron “set 2” (0.3" in said
    told = copying(lm, RECORDED / "statements.csv", neurons=OWN, statements=4, controls=2, **how)
    np.testing.assert_allclose(told.neurons["mean"], h.mean((0, 1))[[1, 4]], atol=1e-5)
    assert told.facts["chosen"] == OWN.split(",")
    assert told.sets["members"].iloc[0] == OWN
    assert "Setting the 2 chosen components, sae.1, sae.4 (chosen by name)" in " ".join(of_copying(told))


@pytest.mark.parametrize("kind", marked(KINDS, quick=["rms"]))
def test_single_positions(kind: str, tmp_path: Path) -> None:
    of = Latents(kind, tmp_path)
    lm, tokens = of.lm, windows_for(of.lm)
    found = per_component_token(lm, tokens, OWN, of.component, counts=counts_for(lm))
    kept, (h, _) = kept_positions(tokens, lm.special_ids), of.coefficients(tokens)
    assert found["neuron"].unique().tolist() == OWN.split(",")
    for name, n in (("sae.1", 1), ("sae.4", 4)):
        rows = found[found["neuron"] == name]
        at = rows["window"], rows["position"]
        assert len(rows) == kept[:, :-1].sum()
        np.testing.assert_allclose(rows["activation"], h[*at, n], atol=1e-4)
        logits = of.treated(tokens, [n], h[..., n].mean(), 1)
        after = in_nats(logits, tokens)
        np.testing.assert_allclose(rows["loss_ablated"], after["loss"][at], atol=1e-4)
        np.testing.assert_allclose(rows["entropy_ablated"], after["entropy"][at], atol=1e-4)
        assert (rows["loss_ablated"] - rows["loss"]).abs().max() > 1e-3
