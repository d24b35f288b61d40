"""Every site and every logit against transformers (`make parity`; `make parity REWRITE=1` records the references anew).

Letters: b batch, t position, s source position, d model width, h head, k head width.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest

from jaxconf.mesh import make_mesh
from jaxconf.models.decoder import site_shapes
from jaxconf.models.families import FAMILIES, config_from_hf
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.run import BUNDLED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SHARED_MODELS = ("stories260K", "random-gpt2", "random-gpt-neox")
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


def torch_model(folder: Path) -> Any:
    """transformers' model, which reads every tensor of our file and finds every tensor it wants."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval()


class Recorder:
    """Runs a transformers model and keeps what enters and leaves its modules, its softmaxes and its rotations."""

    def __init__(self, model: Any, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch):
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.scores: list[np.ndarray] = []
        self.rotated: list[tuple[np.ndarray, np.ndarray]] = []
        for name, module in model.named_modules():
            module.register_forward_hook(self.hook(name))
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, **kw: (self.scores.append(x.numpy()), softmax(x, **kw))[1])
        code = sys.modules[type(model).__module__]
        if hasattr(code, "apply_rotary_pos_emb"):
            rotate = code.apply_rotary_pos_emb

            def recorded(*args: Any, **kwargs: Any) -> Any:
                q, k = rotate(*args, **kwargs)
                self.rotated.append((q.numpy().swapaxes(1, 2), k.numpy().swapaxes(1, 2)))
                return q, k

            monkeypatch.setattr(code, "apply_rotary_pos_emb", recorded)
        with torch.no_grad():
            out = model(torch.from_numpy(tokens).long(), output_hidden_states=True, output_attentions=True)
        self.logits = out.logits.numpy()
        self.hidden_states = [x.numpy() for x in out.hidden_states]  # of all layers; the last one after the final norm
        self.attentions = [x.numpy() for x in out.attentions]

    def hook(self, name: str) -> Callable[..., None]:
        def keep(_: Any, args: tuple, output: Any) -> None:
            if args and torch.is_tensor(args[0]):
                self.inputs[name] = args[0].detach().numpy()
            if torch.is_tensor(output):
                self.outputs[name] = output.detach().numpy()

        return keep


# For each family the modules that stand for: token embedding, layers; within a layer: norms, what reads and writes attention and MLP; final norm.
MODULES = {
    "gpt2": ("transformer.wte", "transformer.h", "ln_1", "ln_2", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "transformer.ln_f"),
    "gpt_neox": (
        "gpt_neox.embed_in",
        "gpt_neox.layers",
        "input_layernorm",
        "post_attention_layernorm",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
        "gpt_neox.final_layer_norm",
    ),
    "llama": (
        "model.embed_tokens",
        "model.layers",
        "input_layernorm",
        "post_attention_layernorm",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
        "model.norm",
    ),
}
LLAMA_KIN = ("llama", "stablelm", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo", "gemma", "cohere")
MODULES |= dict.fromkeys(LLAMA_KIN, MODULES["llama"])
MODULES["starcoder2"] = (*MODULES["llama"][:5], "mlp.c_fc", "mlp.c_proj", "model.norm")
MODULES["phi"] = (*MODULES["llama"][:4], "self_attn.dense", "mlp.fc1", "mlp.fc2", "model.final_layernorm")


def qkv(config: Any, seen: Recorder, layer: str) -> tuple[np.ndarray, ...]:
    """Queries, keys and values, each [b t h k], before the rotation."""
    if config.model_type == "gpt2":
        fused = seen.outputs[f"{layer}.attn.c_attn"]
        return tuple(np.moveaxis(fused.reshape(*fused.shape[:2], 3, config.n_heads, config.d_head), 2, 0))
    if config.model_type == "gpt_neox":
        fused = seen.outputs[f"{layer}.attention.query_key_value"]
        return tuple(np.moveaxis(fused.reshape(*fused.shape[:2], config.n_heads, 3, config.d_head), 3, 0))
    flat = [seen.outputs[f"{layer}.self_attn.{name}_proj"] for name in "qkv"]
    if config.qkv_clip:
        flat = [np.clip(x, -config.qkv_clip, config.qkv_clip) for x in flat]
    return tuple(x.reshape(*x.shape[:2], -1, config.d_head) for x in flat)


def sites_of(config: Any, seen: Recorder) -> dict[str, np.ndarray]:
    """Every site's value as transformers computes it. A norm's scale and normalized stream follow from what enters it."""
    embed, layers, ln1, ln2, attn_out, mlp_in, mlp_out, ln_final = MODULES[config.model_type]
    sites = {"hook_embed": seen.outputs[embed] if config.learned_positions else seen.hidden_states[0]}
    if config.learned_positions:
        sites["hook_pos_embed"] = seen.outputs["transformer.wpe"]
    rotations = iter(seen.rotated)

    def add_norm(site: str, module: str) -> None:
        x = seen.inputs[module].astype(np.float64)
        centred = x - x.mean(-1, keepdims=True) if config.norm == "layer" else x
        sites[f"{site}.hook_scale"] = np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps)
        sites[f"{site}.hook_normalized"] = centred / sites[f"{site}.hook_scale"]

    for i in range(config.n_layers):
        layer, block = f"{layers}.{i}", f"blocks.{i}."
        q, k, v = qkv(config, seen, layer)
        sites |= {block + "attn.hook_q": q, block + "attn.hook_k": k, block + "attn.hook_v": v}
        if config.rotary:
            rotated_q, rotated_k = (q, k) if i in config.unrotated else next(rotations)
            for site, rotated, x in (("attn.hook_rot_q", rotated_q, q), ("attn.hook_rot_k", rotated_k, k)):
                sites[block + site] = np.concatenate([rotated, x[..., rotated.shape[-1] :]], -1)  # StableLM turns only what it has cut off
        z = seen.inputs[f"{layer}.{attn_out}"]
        sites |= {
            block + "hook_resid_pre": seen.inputs[f"{layer}.{ln1}"],
            block + "attn.hook_attn_scores": seen.scores[i],
            block + "attn.hook_pattern": seen.attentions[i],
            block + "attn.hook_z": z.reshape(*z.shape[:2], config.n_heads, config.d_head),
            block + "hook_attn_out": seen.outputs[f"{layer}.{attn_out}"] * np.float32(config.residual_scale),
            block + "mlp.hook_pre": seen.outputs[f"{layer}.{mlp_in}"],
            block + "mlp.hook_post": seen.inputs[f"{layer}.{mlp_out}"],
            block + "hook_mlp_out": seen.outputs[f"{layer}.{mlp_out}"] * np.float32(config.residual_scale),
            block + "hook_resid_post": seen.inputs[ln_final if i == config.n_layers - 1 else f"{layers}.{i + 1}.{ln1}"],
        }
        if not config.parallel:
            sites[block + "hook_resid_mid"] = seen.inputs[f"{layer}.{ln2}"]
        if config.gated:
            sites[block + "mlp.hook_pre_linear"] = seen.outputs[f"{layer}.mlp.up_proj"]
        add_norm(block + "ln1", f"{layer}.{ln1}")
        if not config.shared_norm:
            add_norm(block + "ln2", f"{layer}.{ln2}")
    add_norm("ln_final", ln_final)
    return sites


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
    tokens = cases.prompt(lm.config.vocab_size)
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
        worst = max(worst, np.abs(ours - value).max())
        np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-4, err_msg=site)
    print(f"{name}: max |Δlogit| {error:.1e} of {np.abs(seen.logits).max():.1f}; max |Δsite| {worst:.1e}")

    ln_final = MODULES[lm.config.model_type][-1]
    np.testing.assert_allclose(
        norm_output(lm, "ln_final", np.asarray(out.captured["ln_final.hook_normalized"])), seen.outputs[ln_final], atol=1e-4
    )
    np.testing.assert_array_equal(seen.hidden_states[-1], seen.outputs[ln_final])
    for i, hidden in enumerate(seen.hidden_states[:-1]):
        np.testing.assert_allclose(out.captured[f"blocks.{i}.hook_resid_pre"], hidden, atol=1e-4)
        norms = ("ln1",) if lm.config.shared_norm else ("ln1", "ln2")
        for ln, module in zip(norms, MODULES[lm.config.model_type][2:], strict=False):
            normalized = np.asarray(out.captured[f"blocks.{i}.{ln}.hook_normalized"])
            layer = f"{MODULES[lm.config.model_type][1]}.{i}.{module}"
            np.testing.assert_allclose(norm_output(lm, f"blocks.{i}.{ln}", normalized), seen.outputs[layer], atol=1e-4)


@pytest.mark.parametrize("name", cases.CASES)
def test_references(name: str, find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded references, which tests without torch rely on, are what transformers computes."""
    tokens = cases.prompt(cases.CASES[name]["vocab_size"])
    seen = Recorder(torch_model(find(name)), tokens, monkeypatch)
    # The last hidden state of transformers is after the final norm; the stream before it is not kept.
    live = {
        "tokens": tokens,
        "logits": seen.logits,
        "hidden_states": np.stack(seen.hidden_states),
        "pattern": seen.attentions[-1],
    }
    file = cases.REFERENCES / f"{name}.npz"
    if REWRITE:
        np.savez_compressed(file, **live)
    recorded = np.load(file)
    assert recorded.keys() == live.keys()
    for key, value in live.items():
        assert recorded[key].dtype == value.dtype
        np.testing.assert_allclose(recorded[key], value, rtol=0, atol=1e-5, err_msg=key)


def test_no_reference_is_left_over() -> None:
    assert {file.stem for file in cases.REFERENCES.glob("*.npz")} == cases.CASES.keys()


@pytest.mark.parametrize("name", cases.CASES)
def test_what_transformers_saves_loads(name: str, find: Callable[[str], Path], tmp_path: Path) -> None:
    """All attributes that transformers itself writes into config.json are understood, and mean the same."""
    folder = find(name)
    torch_model(folder).save_pretrained(tmp_path)
    ours, again = one_device(folder), one_device(tmp_path)
    assert again.config == ours.config
    tokens = cases.prompt(ours.config.vocab_size)
    np.testing.assert_array_equal(again.apply(tokens).logits, ours.apply(tokens).logits)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_attribute_of_a_full_dump_is_known(model_type: str) -> None:
    """Some config.json hold all attributes, not only those that differ from the defaults."""
    full = transformers.AutoConfig.for_model(model_type).to_dict()
    assert config_from_hf(full).model_type == full["model_type"] == model_type
