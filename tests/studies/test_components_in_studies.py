"""Directions and latents in the neurons' place: each study gives what running the edited model gives.

Letters: b sequence or window, t position, n latent, d model width. Losses and entropies in nats.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autoencoders import transcoder
from parameters import marked
from random_models import random_model, windows_for, with_repeats
from refusals import refused
from repeated_runs import L, in_nats

from jaxconf.analysis.induction import halves, predictions, repeated
from jaxconf.models.sites import Ablate, Replace
from jaxconf.studies.induction.page import page
from jaxconf.studies.induction.sentences import sentences as of_induction
from jaxconf.studies.induction.study import induction

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KINDS = ["layer", "rms", "capped"]  # parallel LayerNorm, RMSNorm, norms behind both parts and soft caps
OWN = "sae.1,sae.4"


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

    def after(self, tokens: np.ndarray, delta: np.ndarray) -> dict[str, np.ndarray]:
        """Entropy and loss, if the latents change by `delta`, [b t n]."""
        edit = Replace((self.coefficients(tokens)[1] + delta @ self.w).astype(np.float32))
        return in_nats(self.lm.apply(tokens, edits={self.stream: edit}).logits, tokens)


def members(names: str) -> list[int]:
    return [int(name.removeprefix("sae.")) for name in names.split(",")]


@pytest.mark.parametrize("kind", marked(KINDS, quick=["rms"]))
def test_induction(kind: str, tmp_path: Path) -> None:
    of = Latents(kind, tmp_path)
    lm, V = of.lm, of.lm.config.vocab_size
    text, windows = np.random.default_rng(3).integers(1, V, (5, L)), windows_for(lm)
    how: dict[str, Any] = {"heads": [(0, 1), (1, 0)], "controls": 2, "bootstrap_draws": 9}
    given = {"neurons": OWN, "components": of.component, "sequences": text, "natural": with_repeats(V)}
    found = induction(lm, windows, **given, **how)
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


def heads_and_natural(found: Any, of: Latents, tokens: np.ndarray, windows: np.ndarray) -> None:
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
    h, _ = of.coefficients(windows[::2])
    own = found.natural.activations.set_index(["protocol", "neuron", "offset"]).loc[("ours", "sae.1")]
    for offset in (-5, 1):
        assert own["activation_second"][offset] == pytest.approx(h[:, 25 + offset, 1].mean(), abs=1e-5)
    mean, later = h[:, 4:10, 1].mean(), h[:, 20:26, 1].mean()
    delta = np.zeros_like(h)
    clip = np.minimum(h[..., 1], mean) if later > mean else np.maximum(h[..., 1], mean)
    delta[..., 1] = clip - h[..., 1]
    plain = in_nats(lm.apply(windows[::2]).logits, windows[::2])
    change = of.after(windows[::2], delta)["entropy"] - plain["entropy"]
    row = found.natural.sets.set_index(["protocol", "set"]).loc[("ours", "sae.1")]
    assert row["entropy"] == pytest.approx(change[:, 25].mean(), abs=1e-4)


def test_sets_that_cannot_be(tmp_path: Path) -> None:
    of = Latents("rms", tmp_path)
    lm, windows = of.lm, windows_for(of.lm)

    def told(neurons: Any, components: str, *parts: str, **how: Any) -> None:
        named = {"neurons": neurons, "components": components, "controls": 2, **how}
        refused(lambda: induction(lm, windows, sequences=np.ones((2, L), int), **named), *parts)

    told("sae.9", of.component, "there is no direction or latent sae.9", "sae.0 to sae.8")
    told("sae.1,null.0", f"{of.component},null", "null.0 is not of the same kind as sae.1", "a set of one kind")
    told("sae.1", "neurons", "there is no direction or latent sae.1", "none")
    told(None, of.component, "no set names one of them", "leave components out")
    told([(1, 3)], of.component, "no set names one of them")
    told("1.h0", of.component, "a head writes another direction at each position", "name directions or latents")
    told("1.b_out", of.component, "a bias never varies", "name directions or latents")
    told("sae.1", "sae=nowhere", "give the folder of an autoencoder")
    told("sae.0,sae.1,sae.2,sae.3,sae.4", of.component, "too few for random sets")
    told("sae.1", of.component, "controls is -1", controls=-1)
    wide, *_ = transcoder(tmp_path / "wide", dataclasses.replace(lm.config, d_model=48))
    told("sae.1", wide, "has the width 48")
