"""Every site and every logit against transformers (`make parity`; `make parity REWRITE=1` records the references anew).

Letters: b batch, t position, s source position, d model width, h head, k head width.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import jax.numpy as jnp
import numpy as np
import pytest
from hf_modules import modules_of
from mixture_sites import mixture_sites, without_sinks

from jaxconf.models import supported
from jaxconf.models.attributes import ACTIVATIONS
from jaxconf.models.decoder import site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.families import FAMILIES, config_from_hf
from jaxconf.models.language_model import BUNDLED, LanguageModel, load
from jaxconf.models.mesh import make_mesh
from jaxconf.models.mlp import ACTIVATION
from jaxconf.models.positions import alibi_slopes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SHARED_MODELS = ("stories260K", "random-gpt2", "random-gpt-neox")
MEASURED: dict[str, dict[str, Any]] = {}  # of each case, what test_logits_and_every_site found
REWRITE = os.environ.get("JAXCONF_REWRITE") == "1"


@pytest.fixture(scope="session")
def find(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        if name in cases.CASES:
            return cases.build(name, tmp_path_factory.mktemp(name))
        return BUNDLED if name == "bundled" else request.getfixturevalue("shared") / "models" / name

    return folder


def one_device(folder: Path) -> LanguageModel:
    return load(folder, mesh=make_mesh(data=1))


def torch_model(folder: Path, dtype: Any = torch.float32) -> Any:
    """transformers' model, which reads every tensor of our file and finds every tensor it wants."""
    hf = json.loads((folder / "config.json").read_text())
    alibi = hf.get("alibi")  # Falcon's eager attention adds ALiBi twice, the default once
    auto = transformers.AutoModelForImageTextToText if "text_config" in hf else transformers.AutoModelForCausalLM
    # Experts whose widths are not multiples of 16 bytes need the eager implementation.
    model, report = auto.from_pretrained(
        folder,
        attn_implementation="sdpa" if alibi else "eager",
        experts_implementation="eager",
        dtype=dtype,
        output_loading_info=True,
    )
    eyes = ("model.vision_tower.", "model.multi_modal_projector.")  # random here; they do not read text
    assert not [key for key in report["missing_keys"] if not key.startswith(eyes)]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval()


class Recorder:
    """Runs a transformers model and keeps what enters and leaves its modules, its softmaxes and its rotations."""

    def __init__(self, model: Any, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch):
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.tuples: dict[str, tuple] = {}  # of modules with several outputs
        self.modules = dict(model.named_modules())
        self.scores: list[np.ndarray] = []
        self.rotated: list[np.ndarray] = []
        for name, module in self.modules.items():
            module.register_forward_hook(self.hook(name))
        functional = torch.nn.functional
        softmax, attention = functional.softmax, functional.scaled_dot_product_attention

        def softmaxed(x: Any, **kwargs: Any) -> Any:
            if x.ndim > 2:  # not that of a router
                self.scores.append(x.numpy())
            return softmax(x, **kwargs)

        monkeypatch.setattr(functional, "softmax", softmaxed)

        def attended(q: Any, k: Any, v: Any, attn_mask: Any, **kwargs: Any) -> Any:
            self.scores.append((q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5 + attn_mask).numpy())
            return attention(q, k, v, attn_mask=attn_mask, **kwargs)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", attended)
        code = sys.modules[type(model.get_decoder()).__module__]
        if hasattr(code, "apply_rotary_pos_emb"):
            rotate = code.apply_rotary_pos_emb

            def recorded(*args: Any, **kwargs: Any) -> Any:
                out = rotate(*args, **kwargs)
                if torch.is_tensor(out):  # GPT-J turns keys and queries one by one, in its own order of axes
                    self.rotated.append(out.numpy())
                else:
                    self.rotated += [x.numpy().swapaxes(1, 2) for x in reversed(out)]
                return out

            monkeypatch.setattr(code, "apply_rotary_pos_emb", recorded)
        eager = model.config._attn_implementation == "eager"
        with torch.no_grad():
            out = model(torch.from_numpy(tokens).long(), output_hidden_states=True, output_attentions=eager)
        self.logits = out.logits.float().numpy()
        self.hidden_states = [x.numpy() for x in out.hidden_states]  # of all layers; the last one after the final norm
        self.attentions = (
            [x.numpy() for x in out.attentions]
            if eager
            else [softmax(torch.from_numpy(x), -1).numpy() for x in self.scores]
        )

    def hook(self, name: str) -> Callable[..., None]:
        def keep(_: Any, args: tuple, output: Any) -> None:
            if args and torch.is_tensor(args[0]):
                self.inputs[name] = args[0].detach().numpy().copy()  # some models go on working in the same memory
            if torch.is_tensor(output):
                self.outputs[name] = output.detach().numpy().copy()
            elif isinstance(output, tuple):
                self.tuples[name], self.outputs[name] = output, output[0].detach().numpy()

        return keep


def qkv(config: Any, seen: Recorder, attn: str) -> list[np.ndarray]:
    """Queries, keys and values, each [b t h k], before norms and rotation."""
    h, g, k = config.n_heads, config.n_kv_heads, config.d_head
    for name in ("c_attn", "query_key_value", "qkv_proj", "Wqkv"):
        if f"{attn}.{name}" in seen.outputs:
            fused = seen.outputs[f"{attn}.{name}"]
            rows = fused.shape[:2]
            if config.model_type == "codegen":  # four times queries, values and keys of a quarter of the heads
                query, value, key = np.moveaxis(fused.reshape(*rows, 4, 3, h // 4, k), 3, 0).reshape(3, *rows, h, k)
                return [query, key, value]
            if name == "qkv_proj":
                return np.split(fused.reshape(*rows, h + 2 * g, k), [h, h + g], 2)
            if config.model_type in ("gpt2", "mpt"):
                clip = config.qkv_clip or np.inf
                return list(np.moveaxis(fused.reshape(*rows, 3, h, k).clip(-clip, clip), 2, 0))
            groups = fused.reshape(*rows, g, h // g + 2, k)
            return [groups[..., :-2, :].reshape(*rows, h, k), groups[..., -2, :], groups[..., -1, :]]
    flat = [seen.outputs[f"{attn}.{name}_proj"] for name in "qkv"]
    if config.qkv_clip:
        clips = [config.qkv_clip if config.qk_norm == "none" else np.inf] * 2 + [config.qkv_clip]  # norms come before
        flat = [np.clip(x, -clip, clip) for x, clip in zip(flat, clips, strict=True)]
    return [x.reshape(*x.shape[:2], -1, k) for x in flat]


def unturned(config: Any, seen: Recorder, attn: str, k: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keys and queries, [b t h k], in a layer that does not rotate them: normed if the model norms them."""
    if config.qk_norm == "none":
        return k, q
    return tuple(seen.outputs[f"{attn}.{x}_norm"].swapaxes(1, 2) for x in "kq")


def whole_heads(
    config: Any, k: np.ndarray, q: np.ndarray, turned_k: np.ndarray, turned_q: np.ndarray
) -> dict[str, np.ndarray]:
    """The sites of the rotation, [b t h k], from what it turned, which may be a part of each head."""
    if turned_k.shape[2] != k.shape[2]:  # Falcon gives each query a copy of its key
        turned_k = turned_k[:, :, :: config.n_heads // config.n_kv_heads]
    sites = {}
    for site, turned, x in (("attn.hook_rot_q", turned_q, q), ("attn.hook_rot_k", turned_k, k)):
        passed = x[..., turned.shape[-1] :]  # the rest is not normed where it is tested
        if passed.size and config.qk_norm == "head":
            passed = np.full_like(passed, np.nan)
        sites[site] = np.concatenate([turned, passed], -1)
    return sites


def scores_of(config: Any, seen: Recorder, layer: int) -> np.ndarray:
    """The scores of a layer, [b h q s]."""
    scores = without_sinks(config, seen, layer) if config.attn_sinks else seen.scores[layer]
    scores = scores.reshape(1, config.n_heads, *scores.shape[-2:])
    if config.model_type == "mpt":  # whose ALiBi is 0 at the last position
        scores = scores + alibi_slopes(config.n_heads)[:, None, None] * np.float32(scores.shape[-1] - 1)
    return scores


def mlp_sites(config: Any, seen: Recorder, layer: str) -> dict[str, np.ndarray]:
    """The sites within the MLP of the module `layer`."""
    if config.experts:
        return mixture_sites(config, seen, layer + "mlp")
    names = modules_of(config)
    mlp_in = seen.outputs[layer + names.mlp_in]
    sites = {"mlp.hook_pre": mlp_in[..., : config.d_mlp], "mlp.hook_post": seen.inputs[layer + names.mlp_out]}
    if config.gated:
        fused = names.mlp_in == "mlp.gate_up_proj"
        sites["mlp.hook_pre_linear"] = mlp_in[..., config.d_mlp :] if fused else seen.outputs[layer + "mlp.up_proj"]
    return sites


def sites_of(config: Any, seen: Recorder) -> dict[str, np.ndarray]:
    """Every site's value as transformers computes it. A norm's scale and normalized stream follow from its input."""
    names = modules_of(config)
    if config.d_embed is not None:
        sites = {"hook_embed": seen.outputs["model.decoder.project_in"]}
    else:
        sites = {"hook_embed": seen.outputs[names.embed] if names.positions else seen.hidden_states[0]}
    if names.positions:
        sites["hook_pos_embed"] = seen.outputs[names.positions]
    rotations, scale = iter(seen.rotated), np.float32(config.residual_scale)
    posts = [*seen.hidden_states[1:-1], seen.inputs.get(names.ln_final, seen.hidden_states[-1])]

    def add_norm(site: str, module: str) -> None:
        x = seen.inputs[module].astype(np.float64)
        centred = x - x.mean(-1, keepdims=True) if config.norm == "layer" else x
        sites[f"{site}.hook_scale"] = np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps)
        sites[f"{site}.hook_normalized"] = centred / sites[f"{site}.hook_scale"]

    if config.embed_norm:
        add_norm("ln_embed", names.ln_embed)
    for i in range(config.n_layers):
        layer, block = f"{names.layers}.{i}.", f"blocks.{i}."
        q, k, v = qkv(config, seen, layer + names.attn)
        sites |= {block + "attn.hook_q": q, block + "attn.hook_k": k, block + "attn.hook_v": v}
        if config.rotary:
            still = i in config.unrotated
            turned = unturned(config, seen, layer + names.attn, k, q) if still else (next(rotations), next(rotations))
            for site, x in whole_heads(config, k, q, *turned).items():
                sites[block + site] = x
        z = seen.inputs[layer + names.attn_out]
        sites |= {block + site: value for site, value in mlp_sites(config, seen, layer).items()} | {
            block + "hook_resid_pre": seen.hidden_states[i],
            block + "attn.hook_attn_scores": scores_of(config, seen, i),
            block + "attn.hook_pattern": seen.attentions[i],
            block + "attn.hook_z": z.reshape(*z.shape[:2], config.n_heads, config.d_head),
            block + "hook_attn_out": seen.outputs[layer + (names.ln1_post or names.attn_out)] * scale,
            block + "hook_mlp_out": seen.outputs[layer + (names.ln2_post or names.mlp_out)] * scale,
            block + "hook_resid_post": posts[i],
        }
        if config.norm_place == "sum":
            sites |= {
                block + "hook_resid_mid": seen.inputs[layer + names.ln1],
                block + "hook_resid_post": seen.inputs[layer + names.ln2],
            }
        elif not config.parallel:
            sites[block + "hook_resid_mid"] = seen.inputs[
                layer + (names.mlp_in if config.norm_place == "post" else names.ln2)
            ]
        for norm in norms_of(config):
            add_norm(block + norm, layer + getattr(names, norm))
    if not config.final_norm:
        sites |= {"ln_final.hook_scale": np.ones_like(posts[-1][..., :1]), "ln_final.hook_normalized": posts[-1]}
    elif config.norm_place != "sum":
        add_norm("ln_final", names.ln_final)
    return {
        site: value.reshape(1, *value.shape) if site.startswith("blocks") and value.ndim == 2 else value
        for site, value in sites.items()
    }


def norms_of(config: Any) -> list[str]:
    """The norms of the stream in each layer."""
    before = [] if config.norm_place == "post" else ["ln1"] if config.shared_norm else ["ln1", "ln2"]
    return before + (["ln1_post", "ln2_post"] if config.norm_place in ("post", "both") else [])


def norm_output(lm: LanguageModel, name: str, normalized: np.ndarray) -> np.ndarray:
    """What leaves a norm, from its `hook_normalized` site."""
    *block, norm = name.split(".")
    params = (lm.params["blocks"] if block else lm.params).get(norm, {})
    gain, bias = lm.config.gain_offset + np.asarray(params.get("scale", 1)), np.asarray(params.get("bias", 0))
    if block:
        gain, bias = (x[int(block[1])] if x.ndim else x for x in (gain, bias))
    return normalized * gain + bias


@pytest.mark.parametrize("name", [*cases.CASES, *SHARED_MODELS, "bundled"])
def test_logits_and_every_site(name: str, find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find(name)
    lm, model = one_device(folder), torch_model(folder)
    tokens = cases.prompt(lm.config.vocab_size)[:, : lm.config.n_positions]
    seen = Recorder(model, tokens, monkeypatch)
    out = lm.apply(tokens, capture=list(site_shapes(lm.config)))

    assert np.abs(seen.logits).max() >= 1
    error = np.abs(np.asarray(out.logits) - seen.logits).max()
    assert error <= 1e-4

    theirs = sites_of(lm.config, seen)
    assert theirs.keys() == out.captured.keys()
    worst = 0.0
    for site, value in theirs.items():
        ours = np.asarray(out.captured[site])
        assert ours.shape == value.shape, site
        if site.endswith("attn_scores"):  # of what is not seen theirs are huge and ours infinite
            layer = int(site.split(".")[1])
            back = np.subtract.outer(np.arange(value.shape[-2]), np.arange(value.shape[-1]))
            seen_by = (back >= 0) & (back < (lm.config.windows[layer] if lm.config.windows else back.size))
            assert np.isneginf(ours[..., ~seen_by]).all()
            ours, value = ours[..., seen_by], value[..., seen_by]
        known = ~np.isnan(value)
        ours, value = ours[known], value[known]
        worst = max(worst, np.abs(ours - value).max())
        np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-4, err_msg=site)
    print(f"{name}: max |Δlogit| {error:.1e} of {np.abs(seen.logits).max():.1f}; max |Δsite| {worst:.1e}")
    if name in cases.CASES:
        MEASURED[name] = {
            "model_type": lm.config.model_type,
            "error": float(error),
            "largest": float(np.abs(seen.logits).max()),
        }

    names = modules_of(lm.config)
    for i, hidden in enumerate(seen.hidden_states[:-1]):
        np.testing.assert_allclose(out.captured[f"blocks.{i}.hook_resid_pre"], hidden, atol=1e-4)
        for norm in norms_of(lm.config):
            normalized = np.asarray(out.captured[f"blocks.{i}.{norm}.hook_normalized"])
            theirs_out = seen.outputs[f"{names.layers}.{i}.{getattr(names, norm)}"].reshape(normalized.shape)
            np.testing.assert_allclose(norm_output(lm, f"blocks.{i}.{norm}", normalized), theirs_out, atol=1e-4)
    if lm.config.norm_place != "sum" and lm.config.final_norm:
        normalized = np.asarray(out.captured["ln_final.hook_normalized"])
        np.testing.assert_allclose(norm_output(lm, "ln_final", normalized), seen.outputs[names.ln_final], atol=1e-4)


@pytest.mark.parametrize(
    "name", {cases.CASES[name]["model_type"]: name for name in cases.CASES if "long" not in name}.values()
)
def test_greedy_generation(name: str, find: Callable[[str], Path]) -> None:
    """The same tokens as transformers', for prompts of three lengths in one batch, padded on the left."""
    folder = find(name)
    rng, t, new = np.random.default_rng(0), 30, 20
    prompts = [rng.integers(1, 67, length) for length in (t, 7, 19)]
    tokens = np.stack([np.pad(prompt, (t - len(prompt), 0)) for prompt in prompts])
    mask = np.stack([np.arange(t) >= t - len(prompt) for prompt in prompts]).astype(np.int64)
    with torch.no_grad():
        theirs = torch_model(folder).generate(
            torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(mask),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
        )
    ours = one_device(folder).generate(prompts, new)
    np.testing.assert_array_equal(np.stack(ours), theirs[:, t:].numpy())


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_references(name: str, find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded references, which tests without torch rely on, are what transformers computes."""
    tokens = cases.prompt(cases.decoder(name)[0].vocab_size)
    seen = Recorder(torch_model(find(name)), tokens, monkeypatch)
    live = {
        "tokens": tokens,
        "logits": seen.logits,
        "hidden_states": np.stack(seen.hidden_states[:-1]),
        "pattern": seen.attentions[-1],
    }
    file = cases.REFERENCES / f"{name}.npz"
    if REWRITE:
        np.savez_compressed(file, **live)
    recorded = np.load(file)
    assert recorded.keys() == live.keys()
    for key, value in live.items():
        assert recorded[key].dtype == value.dtype
        # Another processor's PyTorch rounds sums otherwise, in proportion to the largest of them.
        atol = max(1e-5, 1e-6 * float(np.abs(value).max()))
        np.testing.assert_allclose(recorded[key], value, rtol=0, atol=atol, err_msg=key)


@pytest.mark.skipif(not REWRITE, reason="writes what `make parity REWRITE=1` measured")
def test_what_was_measured_is_written_down() -> None:
    assert MEASURED.keys() == cases.CASES.keys()
    facts = {"transformers": transformers.__version__, "tokens": cases.LENGTH, "cases": MEASURED}
    Path(str(supported.MEASURED)).write_text(json.dumps(facts, indent=1) + "\n")
    (Path(__file__).parents[2] / "docs" / "models.md").write_text(supported.page())


@pytest.mark.parametrize("name", {cases.CASES[name]["model_type"]: name for name in cases.CASES}.values())
def test_bfloat16_is_as_near_as_transformers_own(name: str, find: Callable[[str], Path]) -> None:
    """Run in bfloat16, our logits are about as far from the exact ones as transformers' bfloat16 logits are."""
    folder = find(name)
    tokens = cases.prompt(cases.decoder(name)[0].vocab_size)
    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        exact, theirs = (
            torch_model(folder, dtype)(ids).logits.float().numpy() for dtype in (torch.float32, torch.bfloat16)
        )
    ours = np.asarray(load(folder, mesh=make_mesh(data=1), dtype=jnp.bfloat16).apply(tokens).logits)

    # Where two experts' scores are nearly equal, rounding chooses another expert at single positions, theirs as ours.
    typical = np.median if "num_experts_per_tok" in cases.CASES[name] else np.mean

    def noise(logits: np.ndarray) -> float:
        return float(np.sqrt(typical(np.mean((logits - exact) ** 2, -1))))

    print(f"{name}: rms noise {noise(ours):.1e}, transformers' {noise(theirs):.1e}")
    assert noise(ours) <= 1.5 * noise(theirs)


def test_no_reference_is_left_over() -> None:
    assert {file.stem for file in cases.REFERENCES.glob("*.npz")} == {*cases.REFERENCED}


@pytest.mark.parametrize("name", cases.REFERENCED)
def test_what_transformers_saves_loads(name: str, find: Callable[[str], Path], tmp_path: Path) -> None:
    """All attributes that transformers itself writes into config.json are understood, and mean the same.

    So are both forms in which it writes experts.
    """
    folder, forms = find(name), [True, False] if "num_experts_per_tok" in cases.CASES[name] else [True]
    ours = one_device(folder)
    tokens = cases.prompt(ours.config.vocab_size)
    for original in forms:
        torch_model(folder).save_pretrained(tmp_path, save_original_format=original)
        again = one_device(tmp_path)
        assert again.config == ours.config
        np.testing.assert_array_equal(again.apply(tokens).logits, ours.apply(tokens).logits)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_attribute_of_a_full_dump_is_known(model_type: str) -> None:
    """Some config.json hold all attributes, not only those that differ from the defaults."""
    full = transformers.AutoConfig.for_model(model_type).to_dict()
    assert config_from_hf(full).model_type == full["model_type"] == model_type


# The text models of gemma3 and mistral3 are those of other families; GPT-OSS has one gate of its own, which sites show.
OTHERS = {"gemma3", "mistral3", "gpt_oss"}
HAVE_ACTIVATION = {
    hf["model_type"]: name for name, hf in cases.CASES.items() if hf["model_type"] not in OTHERS
}.values()


@pytest.mark.parametrize("name", HAVE_ACTIVATION)
def test_every_activation_is_that_of_transformers(name: str) -> None:
    """A name of an activation means in each family what transformers makes of it; Gemma's "gelu" is the tanh form."""
    x = np.linspace(-6, 6, 997, dtype=np.float32)
    plain = cases.CASES[name]
    names = ("activation", "activation_function", "hidden_act", "hidden_activation")
    read = [attribute for attribute in names if reads_activation(plain, attribute)]
    assert read or name.startswith(("bloom", "mpt"))
    for hf in [plain | {attribute: function} for attribute in read for function in ACTIVATIONS] or [plain]:
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**hf)).eval()
        ends = {"act", "act_fn", "activation_fn", "gelu_impl"}
        act = next(module for where, module in model.named_modules() if where.rpartition(".")[2] in ends)
        with torch.no_grad():
            expected = act(torch.from_numpy(x)).numpy()
        found = ACTIVATION[config_from_hf(hf).activation](x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=str(hf))


def reads_activation(hf: dict[str, Any], attribute: str) -> bool:
    """Whether the activation of this family is named by the attribute."""
    try:
        return {config_from_hf(hf | {attribute: name}).activation for name in ("relu", "silu")} == {"relu", "silu"}
    except InputError:
        return False
