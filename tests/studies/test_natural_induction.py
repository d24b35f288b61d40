"""Natural induction by our protocol and by the paper's: both equal running the edited model.

Letters: s window, t position, n neuron. Losses and entropies in nats.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, with_repeats
from repeated_runs import MEMORY, in_nats, of_random_model

from jaxconf.measure.named_sets import NamedSet, Population
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Ablate, Replace
from jaxconf.studies.induction.figures import induction_ablations, induction_heads, induction_natural
from jaxconf.studies.induction.natural import Natural, Places, natural_induction, natural_places
from jaxconf.studies.induction.page import page
from jaxconf.studies.induction.repeated_text import Shown

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NEURONS = Population.of_neurons(random_model("layer").config)
SETS = [
    NamedSet("1.7", "neuron", [(1, 7)], NEURONS),
    NamedSet("the set", "set", [(1, 7), (1, 2)], NEURONS),
    NamedSet("random 1", "random", [(1, 3), (1, 4)], NEURONS),
]
SITE = "blocks.1.mlp.hook_post"
EOS = 0


def natural(lm: LanguageModel, windows: np.ndarray, text: np.ndarray) -> tuple[Places, Natural]:
    places = natural_places(lm, windows)
    shown = [Shown("1.7", (1, 7), "chosen"), Shown("1.3", (1, 3), "random")]
    return places, natural_induction(
        lm, windows, places, text, SETS, shown, 20, 0, MEMORY, lambda what, done, total: None
    )


@functools.cache
def with_inner_eos() -> tuple[LanguageModel, np.ndarray, Places, Natural]:
    """Every second of 30 windows has a repeat, and two of these an EOS inside. A BOS begins each, as in a text."""
    lm = random_model("layer")
    windows = with_repeats(lm.config.vocab_size)
    windows[:, 0] = windows[4, 35] = windows[8, 1] = windows[7, 2] = EOS
    return lm, windows, *natural(lm, windows, windows[:1])


def test_windows_with_an_inner_bos_or_eos_are_dropped_as_published_only() -> None:
    _, _, places, found = with_inner_eos()
    repeats = list(range(0, 30, 2))
    assert places.ours[:, 0].tolist() == repeats
    assert places.paper[:, 0].tolist() == [s for s in repeats if s not in (4, 8)]
    assert found.counts == {"windows_with_repeats": 15, "windows_dropped": 2, "windows_of_other_text": 15}
    assert found.pairs["window"].tolist() == repeats
    assert found.pairs["is_ours"].all()
    assert found.pairs.loc[~found.pairs["is_paper"], "window"].tolist() == [4, 8]


def test_as_published_activations_are_set_to_the_means_of_other_text() -> None:
    lm, windows, _, found = with_inner_eos()
    mean = np.asarray(lm.apply(windows[1::2], capture=[SITE]).captured[SITE], np.float64).mean((0, 1))
    tokens = np.delete(windows[::2], [2, 4], 0)
    plain = lm.apply(tokens, capture=[SITE, "ln_final.hook_scale"])
    before = {name: values[:, 25] for name, values in in_nats(plain.logits, tokens).items()}
    h = np.asarray(plain.captured[SITE])
    of_paper = found.activations[found.activations["protocol"] == "paper"]
    own = of_paper[of_paper["neuron"] == "1.7"].set_index("offset")
    assert own.index.tolist() == list(range(-5, 2))
    for offset, row in own.iterrows():  # at 1 are B and X
        assert row["activation_first"] == pytest.approx(h[:, 9 + offset, 7].mean(), abs=1e-6)
        assert row["activation_second"] == pytest.approx(h[:, 25 + offset, 7].mean(), abs=1e-6)
    rows = found.sets.set_index(["protocol", "set"]).loc["paper"]
    assert rows["ablation"].eq("full").all()
    for one in SETS:
        mask = np.isin(np.arange(lm.config.d_mlp), [n for _, n in one.members])
        edit: dict[str, Any] = {SITE: Ablate(jnp.asarray(mask), jnp.asarray(mean, jnp.float32))}
        frozen = {"ln_final.hook_scale": Replace(plain.captured["ln_final.hook_scale"])}
        for suffix, edits in (("", edit), ("_ln_frozen", edit | frozen)):
            after = in_nats(lm.apply(tokens, edits=edits).logits, tokens)
            for name, values in before.items():
                changed, row = after[name][:, 25].mean(), rows.loc[one.name]
                assert row[name + suffix] == pytest.approx(changed - values.mean(), abs=1e-4)
                assert row[f"{name}{suffix}_ratio"] == pytest.approx(changed / values.mean(), abs=1e-4)
    assert rows["loss"].abs().min() > 1e-3


def test_ours_keeps_every_window_and_clips() -> None:
    lm, windows, _, found = with_inner_eos()
    without = windows.copy()
    without[4, 35] = without[8, 1] = 1  # nothing is dropped
    _, same = natural(lm, without, windows[:1])
    assert same.counts["windows_dropped"] == 0
    assert same.pairs["is_paper"].all()
    for table in (found.sets, same.sets):
        assert table.loc[table["protocol"] == "ours", "ablation"].eq("clip").all()
        assert table["protocol"].value_counts().to_dict() == {"ours": 3, "paper": 3}


def test_without_windows_as_published_ours_stands_alone() -> None:
    lm, windows, _, _ = with_inner_eos()
    windows = windows[::2].copy()
    windows[:, 38] = EOS
    text = np.random.default_rng(0).integers(1, lm.config.vocab_size, (2, 12))
    places, found = natural(lm, windows, text)
    assert len(places.paper) == 0
    assert found.sets["protocol"].eq("ours").all()
    assert found.activations["protocol"].eq("ours").all()
    assert found.counts == {"windows_with_repeats": 15, "windows_dropped": 15, "windows_of_other_text": 2}


def test_if_every_window_repeats_the_text_of_the_scaling_is_the_other_text() -> None:
    lm, windows, _, _ = with_inner_eos()
    text = np.random.default_rng(0).integers(1, lm.config.vocab_size, (2, 12))
    tokens = np.delete(windows[::2], [2, 4], 0)
    _, found = natural(lm, tokens, text)
    mean = np.asarray(lm.apply(text, capture=[SITE]).captured[SITE], np.float64).mean((0, 1))
    edits = {SITE: Ablate(jnp.asarray(np.arange(lm.config.d_mlp) == 7), jnp.asarray(mean, jnp.float32))}
    before, after = (in_nats(lm.apply(tokens, edits=edit).logits, tokens)["loss"][:, 25] for edit in ({}, edits))
    row = found.sets.set_index(["protocol", "set"]).loc[("paper", "1.7")]
    assert row["loss"] == pytest.approx((after - before).mean(), abs=1e-4)


@pytest.mark.command
def test_figures_and_page_show_both_protocols() -> None:
    *_, found = with_inner_eos()
    whole = dataclasses.replace(of_random_model()[-1], natural=found)
    changes, ratios, *_ = induction_ablations(whole).axes
    full_and_repeat = [line for line in changes.lines if line.get_linestyle() == "--"]
    assert len(full_and_repeat) == 2
    assert ratios.get_ylabel() == "entropy, after / before"
    left, middle, *_ = induction_heads(whole).axes
    assert len(left.collections[0].get_offsets()) == whole.heads["is_highest"].sum() > 0
    assert len(middle.collections[0].get_offsets()) == whole.heads["is_above_threshold"].sum()
    titles = [axes.get_title("left") for axes in induction_natural(whole).axes]
    assert [title for title in titles if title] == [
        "Ours: clipped to the means over the first A, 15 windows",
        "The paper's: set to means of other text, 13 windows",
    ]
    html = page(whole, [])
    for words in ("<td>clip</td>", "<td>full</td>", "<td>ours</td>", "<td>paper</td>", "entropy_ln_frozen_ratio"):
        assert words in html
