"""Training against PyTorch: the same steps from the same start; what a run leaves loads in transformers."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxconf.data.corpus import Corpus
from jaxconf.models.checkpoint import save_params
from jaxconf.models.families import FAMILIES, config_from_hf
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.model_config import ARCHITECTURES, hf_config
from jaxconf.training.run import train
from jaxconf.training.side_by_side import params_of_one, start_all
from jaxconf.training.step import hyperparameters
from jaxconf.training.trainer import train_models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

TRAINED = [model_type for model_type in ARCHITECTURES if model_type in FAMILIES]
BASE = TrainConfig(width=48, neurons=96, vocab_size=264, context=32, steps=6, batch=16, warmup=0.34, learning_rate=3e-3)
CASES: dict[str, TrainConfig] = {
    "gpt_neox": BASE,
    # Nine sequences do not divide over the devices, so one has all of them, in three parts; sixteen do.
    "gpt2": dataclasses.replace(
        BASE, model_type="gpt2", tied=False, label_smoothing=0.1, z_loss=1e-2, batch=9, microbatch=3, weight_decay=0.5
    ),
    "llama": dataclasses.replace(BASE, model_type="llama", clip=0.2, schedule="constant", weight_decay=0.5),
    "opt": dataclasses.replace(BASE, model_type="opt", attributes=("_remove_final_layer_norm=true",)),
}


def corpus(vocab_size: int) -> Corpus:
    """Random tokens, the lower the more frequent, so that there is something to learn."""
    tokens = (vocab_size * np.random.default_rng(0).random(6000) ** 3).astype(np.int32)
    return Corpus(tokens[:5000], tokens[5000:], 0, 0, {})


def torch_model(folder: Path) -> Any:
    """In evaluation mode, for GPT-2 drops out by default."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


def write_start(config: TrainConfig, hf: dict[str, Any], folder: Path) -> None:
    """The model as jaxconf begins to train it."""
    decoder = config_from_hf(hf)
    mesh = make_mesh(data=1)
    params = params_of_one(decoder, mesh, start_all(decoder, mesh, hyperparameters([config])).params, 0)
    folder.mkdir()
    save_params(decoder, params, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Up in a line, then down to a tenth along a cosine at the last step."""
    warmup = 2
    assert warmup == round(config.warmup * config.steps)
    if step <= warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


def train_torch(config: TrainConfig, model: Any, corpus: Corpus) -> tuple[list[float], list[float]]:
    """The plain losses and the gradients' norms before they were clipped."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for step in range(1, config.steps + 1):
        tokens = torch.from_numpy(corpus.batch(config.seed, step, config.batch, config.context)).long()
        logits = model(tokens[:, :-1], use_cache=False).logits.flatten(0, 1)
        target = tokens[:, 1:].flatten()
        smoothed = torch.nn.functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        (smoothed + config.z_loss * logits.logsumexp(-1).square().mean()).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip).item())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.step()
        losses.append(torch.nn.functional.cross_entropy(logits, target).item())
    return losses, norms


@pytest.mark.parametrize("name", CASES)
def test_the_steps_are_those_of_torch(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    text = corpus(config.vocab_size)
    write_start(config, hf_config(config, text.begin, text.end), tmp_path / "start")
    model = torch_model(tmp_path / "start")
    start = {key: value.clone() for key, value in model.state_dict().items()}
    losses, norms = train_torch(config, model, text)
    train_models([config], text, [tmp_path / "ours"], tmp_path / "checkpoints")

    ours = np.load(tmp_path / "ours" / "losses.npy")
    error = np.abs(ours - losses).max()
    assert error <= 1e-4
    if name == "llama":
        assert min(norms) > 2 * config.clip
    exported = torch_model(tmp_path / "ours").state_dict()
    moved, apart = [], []
    for key, value in model.state_dict().items():
        difference = (exported[key] - value).abs()
        # Adam divides by the size of the gradient, so where that is next to nothing rounding shows in single weights.
        assert float(difference.max()) <= 1e-4, key
        assert float(difference.mean()) <= 1e-6, key
        if not key.endswith("k_proj.bias"):  # it shifts all scores of a query alike, which the softmax ignores
            moved.append(float((value - start[key]).abs().mean()))
        apart.append(float(difference.max()))
    assert min(moved) > 1e-3
    print(
        f"{name}: max |Δloss| {error:.1e}; max |Δweight| {max(apart):.1e}, of tensors that moved "
        f"{min(moved):.1e} or more"
    )


TEXT = [f"def f_{i % 7}(x):\n    return x * {i % 5} + {i % 3}  # né 日本\n" * 20 for i in range(60)]


@pytest.mark.parametrize("model_type", TRAINED)
def test_what_a_run_leaves_loads_in_transformers(model_type: str, tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, model_type=model_type, steps=3, batch=8)
    train(config, lambda: iter(TEXT), tmp_path, track=TrackConfig(points=0))
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == ARCHITECTURES[model_type]
    ours, tokenizer = load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)

    for text in (TEXT[0], " x\n\n\ty", "don't é 日本 🙂", "a<|endoftext|>b", ""):
        ids = ours.tokenizer.encode(text)
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.decode(ids) == ours.tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id == ours.tokenizer.bos_id == model.config.bos_token_id == 0
    assert tokenizer.eos_token_id == ours.tokenizer.eos_id == model.config.eos_token_id == 0

    tokens = np.concatenate([[0], ours.tokenizer.encode(TEXT[0])[: config.context - 1]])[None]
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(tokens)).logits.numpy()
    logits = np.asarray(ours.apply(tokens).logits)
    assert np.abs(logits).max() > 0.1
    error = np.abs(logits - theirs).max()
    assert error <= 1e-4
    print(f"{model_type}: max |Δlogit| {error:.1e} of {np.abs(theirs).max():.1f}")
