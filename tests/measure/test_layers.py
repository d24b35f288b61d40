"""Effects in any layer and of sets of neurons, against setting them in the whole model and running all of it again."""

import functools
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ablated_activations import ABLATIONS, by_definition
from edited_runs import metrics, rerun
from hub_models import TEXT, build
from parameters import marked
from random_models import HF, analysed, counts_for, random_model, windows_for
from refusals import check_error

from jaxconf.analysis.ablation import Ablation
from jaxconf.analysis.metrics import EFFECTS
from jaxconf.analysis.neuron_sets import one_by_one, random_sets, widths_of
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import at_layer, readout
from jaxconf.data.windows import kept_positions, windows
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.inputs import Text, windows_of
from jaxconf.measure.neuron_sets import ablate_sets, per_token, read_sets
from jaxconf.measure.reruns import rerun_parts
from jaxconf.measure.set_runs import SetRuns
from jaxconf.measure.work import work_on
from jaxconf.models.decoder import final_norm_name, site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.sites import Replace
from jaxconf.results.neuron_table import NeuronTable

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DEEP = {"parallel": {**HF["layer"], "num_hidden_layers": 3}}


@functools.cache
def model(kind: str) -> tuple[LanguageModel, np.ndarray, np.ndarray, np.ndarray]:
    """A model of two layers (rms) or three, windows, kept positions, and counts."""
    lm = random_model(kind, hf=DEEP.get(kind))
    tokens = windows_for(lm)
    return (
        lm,
        tokens,
        kept_positions(tokens, lm.special_ids),
        np.random.default_rng(1).integers(0, 500, lm.config.vocab_size),
    )


def at_mean(h: np.ndarray) -> np.ndarray:
    return np.broadcast_to(h.mean((0, 1)), h.shape)


def close(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert expected["loss_abs_delta"].median() > 1e-3  # something happens, so that agreement means something
    for column in EFFECTS:
        one_tie = (
            1e-3 if column in ("rr_abs_delta", "top1_change") else 0
        )  # between tokens that are equally likely but for rounding
        np.testing.assert_allclose(found[column], expected[column], atol=max(2e-5, one_tie), err_msg=column)


@functools.cache
def measured(kind: str, layer: int) -> NeuronTable:
    lm, tokens, _, counts = model(kind)
    return analysed(lm, tokens, counts=counts, layer=layer, bootstrap_draws=0)


@pytest.mark.parametrize(
    ("kind", "layer"),
    marked(
        [("rms", 0), ("rms", 1), ("no norm", 0), *itertools.product(["parallel", "capped", "summed"], range(3))],
        devices=[("rms", 0)],
        quick=[("capped", 1), ("no norm", 0)],  # the most and the least before the logits; for rms see below
    ),
)
def test_effects_in_any_layer(kind: str, layer: int) -> None:
    lm, tokens, kept, counts = model(kind)
    table = measured(kind, layer)
    assert (table.where, table.facts["layer"]) == (f"layer {layer}", layer)
    close(table.frame, rerun(lm, tokens, kept, counts, at_mean, layer))
    np.testing.assert_allclose(
        table.frame["w_norm"],
        np.linalg.norm(at_layer(lm.config, lm.params, readout(lm.config, lm.params), "paper", layer).w_out, axis=1),
        rtol=1e-6,
    )
    assert table.cosine_neurons[0].startswith(f"{layer}.")


@pytest.mark.parametrize("ablation", [of for of in ABLATIONS if of.kind not in ("mean", "zero", "fixed")], ids=str)
def test_every_kind_of_ablation_below_the_last_layer(ablation: Ablation) -> None:
    lm, tokens, kept, counts = model("rms")
    frame = analysed(lm, tokens, counts=counts, layer=0, ablation=ablation, bootstrap_draws=0).frame
    close(frame, rerun(lm, tokens, kept, counts, functools.partial(by_definition, ablation), 0))


@pytest.mark.parametrize(
    ("kind", "layer"),
    marked(
        [("parallel", 1), ("rms", 0), ("capped", 1), ("capped", 2), ("summed", 0)],
        quick=[("capped", 1)],  # the kind with the most norms
    ),
)
def test_all_norms_above_can_be_frozen(kind: str, layer: int) -> None:
    lm, tokens, kept, counts = model(kind)
    above = [site for site in site_shapes(lm.config) if site.endswith("hook_scale") and site.startswith("blocks.")]
    behind = ("ln2_post",) if kind == "capped" else ("ln2",) if kind == "summed" else ()
    above = [
        site
        for site in above
        if (of := int(site.split(".")[1])) > layer or (of == layer and site.split(".")[2] in behind)
    ]
    frame = analysed(lm, tokens, counts=counts, layer=layer, frozen="all", bootstrap_draws=0).frame
    close(frame, rerun(lm, tokens, kept, counts, at_mean, layer, above))
    final = measured(kind, layer).frame
    assert (frame["loss_abs_delta_ln_frozen"] - final["loss_abs_delta_ln_frozen"]).abs().max() > 1e-3


def test_positions_that_count_in_no_window_are_not_unembedded(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, tokens, _, counts = model("rms")
    kept = np.zeros(tokens.shape, bool)
    kept[::2, 5], kept[1::2, 9], kept[:, 20] = True, True, True
    seen = []
    entry = SetRuns.entry
    monkeypatch.setattr(SetRuns, "entry", lambda runs, *how: seen.append(how[1].tolist()) or entry(runs, *how))
    table = analysed(lm, tokens, counts=counts, layer=0, kept=kept, bootstrap_draws=0)
    assert seen
    assert all(positions == [5, 9, 20] for positions in seen)
    close(table.frame, rerun(lm, tokens, kept, counts, at_mean, 0))
    rows = [(int(window), int(position)) for window, position in zip(*np.nonzero(kept), strict=True)]
    assert list(table.positions[["window", "position"]].itertuples(index=False, name=None)) == rows


def test_all_layers_are_the_layers_one_after_the_other() -> None:
    lm, tokens, _, counts = model("rms")
    every = analysed(lm, tokens, counts=counts, layer="all", bootstrap_draws=5)
    assert every.where == "layers 0, 1"
    alone = [analysed(lm, tokens, counts=counts, layer=layer, bootstrap_draws=5).frame for layer in range(2)]
    pd.testing.assert_frame_equal(every.frame, pd.concat(alone, ignore_index=True))


def test_little_memory_and_an_interruption_change_nothing(tmp_path: Path) -> None:
    lm, tokens, _, _ = model("rms")
    tokens = tokens[:2]
    whole = analysed(lm, tokens, layer=0, bootstrap_draws=5)
    little = analysed(lm, tokens, layer=0, bootstrap_draws=5, memory=1)
    for name in EFFECTS:
        off = 1e-5 if name == "norm_delta" else 1e-6  # a length is not of the size of 1
        np.testing.assert_allclose(little.frame[name], whole.frame[name], atol=off, err_msg=name)

    def stop(what: str, done: int, total: int) -> None:
        if what == "effects in layer 0" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analysed(lm, tokens, layer=0, bootstrap_draws=5, memory=1, resume_folder=tmp_path, progress=stop)
    parts = len(list(tmp_path.glob("*/*.npz")))
    assert 0 < parts < len(tokens) * lm.config.d_mlp
    pd.testing.assert_frame_equal(
        analysed(lm, tokens, layer=0, bootstrap_draws=5, memory=1, resume_folder=tmp_path).frame, little.frame
    )
    assert len(list(tmp_path.glob("*/*.npz"))) == len(tokens) * lm.config.d_mlp


@pytest.mark.slow  # each of the two ways is compared with the edited model in every run
def test_running_again_equals_the_algebra_of_the_last_layer() -> None:
    """Two ways to the same numbers that share nothing but the definitions."""
    lm, tokens, kept, counts = model("parallel")
    kept = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    table = measured("parallel", 2)
    activity = LayerActivations(lm, tokens, 2, 2**28)
    ablation = Ablation().of_layer(activation_statistics(activity, lambda *_: None))
    text = Text(windows_of(tokens, "", lm), counts, {})
    work = work_on(lm, text, kept, 2**28, lambda *_: None)
    (part,) = rerun_parts(work, {2: one_by_one(lm.config)}, {2: ablation}, "final")
    close(pd.DataFrame({name: value.sum(0) / kept.sum() for name, value in part.sums.items()}), table.frame)
    positions = part.positions
    pd.testing.assert_frame_equal(positions, table.positions[positions.columns], check_dtype=False, atol=1e-5)


def test_sets_are_ablated_together_beside_random_ones_of_their_size() -> None:
    lm, tokens, kept, counts = model("rms")
    sets = [[(0, 3), (0, 40), (0, 7)], [(0, 5)]]
    found = ablate_sets(lm, tokens, sets, controls=6, counts=counts, bootstrap_draws=20)
    assert found["set"].tolist() == [0] * 7 + [1] * 7
    assert found["control"].tolist() == 2 * list(range(7))
    assert found["neurons"][0] == "0.3,0.40,0.7"
    members = [[int(name.split(".")[1]) for name in text.split(",")] for text in found["neurons"]]
    masks = np.zeros((len(members), lm.config.d_mlp), bool)
    for row, of in enumerate(members):
        masks[row, of] = True
        assert len(set(of)) == found["size"][row] == len(of)
    for number in range(2):
        own, *controls = (set(of) for of in members[7 * number : 7 * number + 7])
        assert all(own.isdisjoint(control) for control in controls)
    assert len({tuple(of) for of in members}) == 14
    close(found, rerun(lm, tokens, kept, counts, at_mean, 0, sets=masks))
    assert (found["loss_abs_delta_lo"] <= found["loss_abs_delta"]).all()
    one = measured("rms", 0).frame.loc[5, list(EFFECTS)]
    np.testing.assert_allclose(found.loc[7, list(EFFECTS)].astype(float), one.astype(float), atol=1e-6)
    pd.testing.assert_frame_equal(found, ablate_sets(lm, tokens, sets, controls=6, counts=counts, bootstrap_draws=20))


def test_a_set_may_span_layers() -> None:
    """Ablated neurons of a higher layer hide what those of a lower one would have changed in them."""
    lm, tokens, _, counts = model("rms")
    sets = [[(1, n) for n in range(lm.config.d_mlp)], [(0, 3), *((1, n) for n in range(lm.config.d_mlp))]]
    upper, both = ablate_sets(lm, tokens, sets, controls=0, counts=counts, bootstrap_draws=0)["loss_abs_delta"]
    assert measured("rms", 0).frame["loss_abs_delta"][3] > 1e-3
    assert upper != both
    drawn = random_sets(widths_of(lm.config), [(0, 3), (1, 5), (1, 6)], 4, np.random.default_rng(0))
    assert [[layer for layer, _ in members] for members in drawn] == 4 * [[0, 1, 1]]


@pytest.mark.parametrize("memory", marked([2**28, 1], quick=[2**28]))
def test_token_by_token_the_means_are_those_of_the_table(memory: int) -> None:
    lm, tokens, kept, counts = model("rms")
    found = per_token(lm, tokens, [(1, 3), (0, 7), (0, 40)], counts=counts, memory=memory)
    kept = kept & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
    assert found["neuron"].unique().tolist() == ["0.7", "0.40", "1.3"]
    assert len(found) == 3 * kept.sum()
    frame = pd.concat([measured("rms", layer).to_pandas() for layer in (0, 1)])
    table = measured("rms", 1)
    h = lm.apply(tokens, capture=["blocks.0.mlp.hook_post"]).captured["blocks.0.mlp.hook_post"]
    np.testing.assert_allclose(
        found.loc[found["neuron"] == "0.40", "activation"], np.asarray(h)[..., 40][kept], atol=1e-5
    )
    for name, rows in found.groupby("neuron"):
        for column in ("window", "position", "token", "target"):
            assert rows[column].tolist() == table.positions[column].tolist()
        np.testing.assert_allclose(rows["loss"], table.positions["loss"], atol=1e-5)
        means = {
            "loss_delta": (rows["loss_ablated"] - rows["loss"]).mean(),
            "loss_abs_delta": (rows["loss_ablated"] - rows["loss"]).abs().mean(),
            "loss_abs_delta_ln_frozen": (rows["loss_ablated_ln_frozen"] - rows["loss"]).abs().mean(),
            "entropy_delta": (rows["entropy_ablated"] - rows["entropy"]).mean(),
            "rr_abs_delta": (rows["reciprocal_rank_ablated"] - rows["reciprocal_rank"]).abs().mean(),
        }
        for column, value in means.items():
            assert value == pytest.approx(frame.loc[name, column], abs=2e-5), column


@pytest.mark.parametrize(
    ("kind", "layer", "frozen"), [("rms", 0, "all"), ("rms", 1, "final"), ("parallel", 1, "final")]
)
def test_every_number_of_a_token_is_that_of_the_edited_model(kind: str, layer: int, frozen: Frozen) -> None:
    lm, tokens, kept, counts = model(kind)
    found = per_token(lm, tokens, [(layer, 5), (layer, 2)], counts=counts, frozen=frozen)
    kept, target = kept[:, :-1], tokens[:, 1:]
    site = f"blocks.{layer}.mlp.hook_post"
    above = ["blocks.1.ln1", "blocks.1.ln2"] if frozen == "all" else []
    norms = [f"{name}.hook_scale" for name in (*above, final_norm_name(lm.config))]
    before = lm.apply(tokens, capture=[site, *norms])
    scales = {norm: Replace(before.captured[norm]) for norm in norms}
    f = (counts + 1) / (counts + 1).sum()
    u = np.log(f) - np.log(f).mean()
    u /= np.linalg.norm(u)

    def measured_of(logits: np.ndarray) -> dict[str, np.ndarray]:
        return {name: x[kept] for name, x in metrics(np.asarray(logits, np.float64)[:, :-1], target, f).items()}

    as_it_is = np.asarray(before.logits, np.float64)
    for n in (5, 2):
        h = np.array(before.captured[site])
        h[..., n] = h[..., n].mean(dtype=np.float64)
        edit = {site: Replace(jnp.asarray(h))}
        te = np.asarray(lm.apply(tokens, edits=edit).logits, np.float64)
        base, total = measured_of(as_it_is), measured_of(te)
        norm_frozen = measured_of(lm.apply(tokens, edits=edit | scales).logits)
        freq_frozen = measured_of(te + ((as_it_is - te) @ u)[..., None] * u)
        assert np.abs(total["loss"] - norm_frozen["loss"]).max() > 1e-4
        assert np.abs(total["loss"] - freq_frozen["loss"]).max() > 1e-4
        expected = {
            **{"loss": base["loss"], "loss_ablated": total["loss"], "loss_ablated_ln_frozen": norm_frozen["loss"]},
            **{"loss_ablated_freq_frozen": freq_frozen["loss"], "kl_freq": base["kl"], "kl_freq_ablated": total["kl"]},
            **{"entropy": base["entropy"], "entropy_ablated": total["entropy"]},
            **{"reciprocal_rank": base["rr"], "reciprocal_rank_ablated": total["rr"]},
            **{"reciprocal_rank_ablated_ln_frozen": norm_frozen["rr"], "top": base["top"]},
            **{"top_ablated": total["top"], "top_ablated_ln_frozen": norm_frozen["top"]},
        }
        rows = found[found["neuron"] == f"{layer}.{n}"]
        assert set(found) == {"neuron", "window", "position", "token", "target", "activation", *expected}
        for column, values in expected.items():
            np.testing.assert_allclose(rows[column], values, atol=1e-5, rtol=0, err_msg=column)


def test_tokens_are_in_words_where_there_is_a_tokenizer(tmp_path: Path) -> None:
    lm = load(build(tmp_path / "model", 0))
    tokens = windows(iter(TEXT), lm.tokenizer, 80, 40).tokens
    counts = counts_for(lm)
    found = per_token(lm, tokens, [(0, 1)], counts=counts)
    ids = np.asarray(lm.apply(tokens).logits).argmax(-1)[found["window"], found["position"]]
    assert found["top"].tolist() == [lm.tokenizer.token(i) for i in ids]
    assert found["target"].tolist() == [
        lm.tokenizer.token(tokens[w, p + 1]) for w, p in found[["window", "position"]].to_numpy()
    ]
    assert all(
        isinstance(word, str) for name in ("token", "top_ablated", "top_ablated_ln_frozen") for word in found[name]
    )


def test_sets_are_read_from_words_and_files(tmp_path: Path) -> None:
    file = tmp_path / "sets.txt"
    file.write_text("11.584,11.2378\n\n0.1\n")
    assert read_sets(["2.3, 2.4", str(file)]) == [[(2, 3), (2, 4)], [(11, 584), (11, 2378)], [(0, 1)]]
    file.write_text("sae.1,sae.4\n2.3\n")
    assert read_sets(["null.0", str(file)]) == ["null.0", "sae.1,sae.4", [(2, 3)]]


@pytest.mark.parametrize("text", ["584", "11.584,", "11.5.8.1", "eleven,2", "missing.txt"])
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"neither neurons nor a file; .* such as"):
        read_sets([text])


@pytest.mark.parametrize(("text", "words"), [("0.1\nnine\n", "has a line 'nine'"), ("\n", "has no sets of neurons")])
def test_a_file_without_sets_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "sets.txt"
    file.write_text(text)
    check_error(lambda: read_sets([str(file)]), words, "one set of neurons on each line")


@pytest.mark.parametrize(
    ("sets", "controls", "words"),
    [
        ([[(2, 0)]], 1, "no neuron 2.0"),
        ([[(0, 48)]], 1, "no neuron 0.48"),
        ([[]], 1, "empty"),
        ([[(0, 1), (0, 1)]], 1, "neuron 0.1 is named more than once"),
        ([[(0, n) for n in range(25)]], 1, "25 of a layer's 48"),
        ([[(0, 1)]], -1, "controls is -1"),
    ],
)
def test_bad_sets_are_one_sentence(sets: list, controls: int, words: str) -> None:
    lm, tokens, *_ = model("rms")
    with pytest.raises(InputError, match=words):
        ablate_sets(lm, tokens, sets, controls=controls, counts=counts_for(lm))


@pytest.mark.parametrize("layer", [2, -1, "first", 1.0])
def test_bad_layers_are_one_sentence(layer) -> None:
    lm, tokens, *_ = model("rms")
    with pytest.raises(InputError, match="from 0 to 1"):
        analysed(lm, tokens, layer=layer)
