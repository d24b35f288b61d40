"""Sites, weight statistics and ablation effects against TransformerLens (`make parity`). Letters as in SCIENCE: t
position, v token.

TransformerLens folds, centres and hooks on its own; from what it gives, the statistics are computed here in plain
torch.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.induction import halves, predictions, repeated
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import rho, vocabulary_statistics
from jaxconf.measure.analyze import analyze
from jaxconf.models.decoder import site_shapes
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh
from jaxconf.studies.induction.study import induction

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("transformer_lens")

pytestmark = pytest.mark.parity


@pytest.fixture
def lens(tmp_path: Path) -> Callable[[str], tuple[Any, Any]]:
    """From a case our model and TransformerLens's, with unprocessed weights."""
    from transformer_lens.model_bridge.sources.transformers import boot

    def both(name: str) -> tuple[Any, Any]:
        folder = cases.build(name, tmp_path / name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        )
        return load(folder, mesh=make_mesh(data=1)), boot(str(folder), hf_model=model.eval(), device="cpu")

    return both


def random_counts(vocab_size: int) -> np.ndarray:
    return np.random.default_rng(0).zipf(1.5, vocab_size).clip(max=100_000) - 1


def unit_frequency(counts: np.ndarray) -> tuple[Any, Any]:
    """f and u of SCIENCE section 5."""
    f = torch.from_numpy((counts + 1) / (counts + 1).sum())
    centred = f.log() - f.log().mean()
    return f, centred / centred.norm()


# Not gpt2-unscaled, whose scores TransformerLens scales all the same, nor neox-serial, whose missing biases it cannot
# load.
@pytest.mark.parametrize("name", ["gpt2", "gpt2-layer-scaled", "neox", "neox-linear"])
def test_sites(name: str, lens: Callable[[str], tuple[Any, Any]]) -> None:
    lm, bridge = lens(name)
    tokens = cases.prompt(67)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(torch.from_numpy(tokens).long())
    out = lm.apply(tokens, capture=list(site_shapes(lm.config)))
    np.testing.assert_allclose(out.logits, logits.numpy(), atol=1e-4)
    absent = {site for site in out.captured if site not in cache}
    assert {site.rsplit(".", 1)[-1] for site in absent} <= {
        "hook_rot_q",
        "hook_rot_k",
    }  # which TransformerLens 4 no longer has
    for site in out.captured.keys() - absent:
        ours, theirs = np.asarray(out.captured[site]), cache[site].numpy()
        if site.endswith("attn_scores"):
            causal = np.tril(np.ones(theirs.shape[-2:], bool))
            ours, theirs = ours[..., causal], theirs[..., causal]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4, err_msg=site)


@pytest.mark.parametrize("name", ["gpt2", "gpt2-unscaled", "neox", "neox-linear"])
def test_weight_statistics(name: str, lens: Callable[[str], tuple[Any, Any]]) -> None:
    lm, bridge = lens(name)
    bridge.enable_compatibility_mode(disable_warnings=True)  # fold_ln, center_writing_weights, center_unembed
    W_U, W_out = bridge.W_U.detach().double(), bridge.blocks[-1].mlp.W_out.detach().double()
    counts = random_counts(67)
    u = unit_frequency(counts)[1]
    w_norm = W_out.norm(dim=1)
    M = W_out @ W_U
    vectors = torch.linalg.svd(W_U, full_matrices=False).U[
        :, :-1
    ]  # without the all-ones direction, which the norm ignores
    expected = {
        "w_norm": w_norm,
        "logit_var": (M / w_norm[:, None] / W_U.norm(dim=0)).var(dim=1),
        "cos_freq": (M @ u) / M.norm(dim=1),
    }
    read = readout(lm.config, lm.params)
    np.testing.assert_allclose(read.W_U, W_U, atol=1e-5)
    np.testing.assert_allclose(read.b_U, bridge.b_U.detach() - bridge.b_U.detach().mean(), atol=1e-5)
    ours = vocabulary_statistics(make_mesh(data=1), read, frequency(counts).u)
    for column, value in expected.items():
        np.testing.assert_allclose(ours[column], value, rtol=1e-4, atol=1e-6, err_msg=column)
    for k in (1, 4):
        value = (W_out @ vectors[:, -k:]).norm(dim=1) / w_norm
        np.testing.assert_allclose(
            rho(np.asarray(read.w_out), spectrum(lm.config, lm.params), k), value, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", ["gpt2", "gpt2-layer-scaled"])
def test_effects(name: str, lens: Callable[[str], tuple[Any, Any]]) -> None:
    """Neurons set to their means by hooks, in the whole model, once with the final norm's scale held."""
    lm, bridge = lens(name)
    rng = np.random.default_rng(1)
    windows = rng.integers(0, 67, (4, 48))
    kept = rng.random(windows.shape) < 0.7
    kept[:, -1] = False
    counts = random_counts(67)
    table = analyze(lm, windows, kept=kept, counts=counts, bootstrap_draws=10).to_pandas()

    tokens, mask = torch.from_numpy(windows), torch.from_numpy(kept[:, :-1])
    f, u = unit_frequency(counts)
    post, scale = f"blocks.{lm.config.n_layers - 1}.mlp.hook_post", "ln_final.hook_scale"

    def figures(logits: Any) -> dict[str, Any]:
        lp = logits[:, :-1].log_softmax(-1)
        loss = -lp.gather(-1, tokens[:, 1:, None])[..., 0]
        return {
            "loss": loss[mask],
            "entropy": -(lp.exp() * lp).sum(-1)[mask],
            "kl_freq": (f * (f.log() - lp)).sum(-1)[mask],
        }

    def put(activation: Any, hook: Any, neuron: int, value: Any) -> Any:
        activation = activation.clone()
        activation[..., neuron] = value
        return activation

    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        logits = logits.double()
        before = figures(logits)
        for neuron in range(0, lm.config.d_mlp, lm.config.d_mlp // 14):
            ablate = (post, functools.partial(put, neuron=neuron, value=cache[post][..., neuron].mean()))
            freeze = (scale, lambda activation, hook: cache[scale])
            after = bridge.run_with_hooks(tokens, fwd_hooks=[ablate]).double()
            total = figures(after)
            ln_frozen = figures(bridge.run_with_hooks(tokens, fwd_hooks=[ablate, freeze]).double())
            freq_frozen = figures(after + ((logits - after) @ u)[..., None] * u)
            row = table.iloc[neuron]
            expected = {f"{metric}_abs_delta": (total[metric] - before[metric]).abs().mean() for metric in before}
            expected |= {f"{metric}_delta": (total[metric] - before[metric]).mean() for metric in before}
            expected["loss_abs_delta_ln_frozen"] = (ln_frozen["loss"] - before["loss"]).abs().mean()
            expected["entropy_abs_delta_ln_frozen"] = (ln_frozen["entropy"] - before["entropy"]).abs().mean()
            expected["loss_abs_delta_freq_frozen"] = (freq_frozen["loss"] - before["loss"]).abs().mean()
            for column, value in expected.items():
                assert abs(row[column] - value.item()) <= 1e-4, (neuron, column, row[column], value.item())
            assert abs(ln_frozen["loss"] - total["loss"]).max() > 1e-4  # the hook on the scale is on the path
    assert table["loss_abs_delta"].max() > 0.01


def test_induction(lens: Callable[[str], tuple[Any, Any]]) -> None:
    """Clip mean-ablation and heads that look at BOS alone, by hooks in the whole model."""
    lm, bridge = lens("gpt2")
    lm = dataclasses.replace(lm, hf_config={"bos_token_id": 0})
    length = 20
    text = np.random.default_rng(2).integers(1, 67, (4, length))
    chosen, heads = [(lm.config.n_layers - 1, 3), (0, 5)], [(0, 1), (lm.config.n_layers - 1, 0)]
    found = induction(lm, text, sequences=text, neurons=chosen, heads=heads, controls=0, bootstrap_draws=5)
    tokens = torch.from_numpy(repeated(text, 0))
    repeat = predictions(length)[1][:-1]
    first, second = halves(length)

    def figures(logits: Any) -> dict[str, Any]:
        lp = logits[:, :-1].double().log_softmax(-1)
        return {"loss": -lp.gather(-1, tokens[:, 1:, None])[..., 0], "entropy": -(lp.exp() * lp).sum(-1)}

    def clip(activation: Any, hook: Any, neuron: int, was: Any) -> Any:
        mean, later = was[:, first].mean(), was[:, second].mean()
        activation = activation.clone()
        activation[..., neuron] = was.clamp(max=mean) if later > mean else was.clamp(min=mean)
        return activation

    def full(activation: Any, hook: Any, neuron: int, was: Any) -> Any:
        activation[..., neuron] = was[:, first].mean()
        return activation

    def look_at_bos(pattern: Any, hook: Any, head: int) -> Any:
        pattern = pattern.clone()
        pattern[:, head] = 0
        pattern[:, head, :, 0] = 1
        return pattern

    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        before = figures(logits)
        frozen = ("ln_final.hook_scale", lambda activation, hook: cache["ln_final.hook_scale"])
        sets = found.sets.set_index(["set", "ablation"])
        clips, fulls = [], []
        for layer, neuron in chosen:
            site = f"blocks.{layer}.mlp.hook_post"
            for hooks, ablated in ((clips, clip), (fulls, full)):
                hooks.append((site, functools.partial(ablated, neuron=neuron, was=cache[site][..., neuron].clone())))
        for name, hooks in (
            ((f"{chosen[0][0]}.3", "clip"), clips[:1]),
            (("0.5", "clip"), clips[1:]),
            (("the set", "clip"), clips),
            (("the set", "full"), fulls),
        ):
            for suffix, more in (("", []), ("_ln_frozen", [frozen])):
                after = figures(bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, *more]))
                for metric in before:
                    expected = (after[metric] - before[metric])[:, repeat].mean().item()
                    assert abs(sets[metric + suffix][name] - expected) <= 1e-4, (name, metric, suffix)
        looks = [
            (f"blocks.{layer}.attn.hook_pattern", functools.partial(look_at_bos, head=head)) for layer, head in heads
        ]
        for name, hooks in (("0.1", looks[:1]), ("top 2", looks)):
            after = figures(bridge.run_with_hooks(tokens, fwd_hooks=hooks))
            for metric in before:
                expected = (after[metric] - before[metric])[:, repeat].mean().item()
                assert abs(found.head_sets.set_index("set")[metric][name] - expected) <= 1e-4, (name, metric)
                assert abs(expected) > 1e-4
