"""Training: it learns, it repeats itself, it decays only matrices, and what it saves is what it trained."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconf.models.decoder import Decoder
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import load
from jaxconf.train_config import TrainConfig
from jaxconf.training import _optimizer, hf_config, train, train_tokenizer

TEXT = [f"value_{i % 3} = {i % 5} + {i % 3}\n" * 20 for i in range(60)]
TINY = TrainConfig(layers=1, width=16, heads=2, neurons=32, vocab_size=264, context=24, steps=60, batch=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, reports = tmp_path_factory.mktemp("trained"), []
    figures = train(TINY, lambda: iter(TEXT), folder, lambda step, found: reports.append((step, found["loss"])))
    return folder, reports, figures


def test_the_loss_falls_and_what_is_saved_is_what_was_trained(trained):
    folder, reports, figures = trained
    assert [step for step, _ in reports] == [50, 60]
    assert reports[-1][1] < 0.6 * np.log(TINY.vocab_size)
    lm = load(folder)
    tokens = np.concatenate([lm.tokenizer.encode(text) for text in TEXT[-3:]])[: 8 * TINY.context].reshape(8, -1)
    batch = np.pad(tokens, ((0, 0), (1, 0)))
    logits = lm.apply(batch[:, :-1]).logits
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()
    assert float(loss) == pytest.approx(figures["held_out_loss"], abs=0.15)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_neox"
    assert lm.tokenizer.bos_id == lm.tokenizer.eos_id == 0
    assert lm.tokenizer.decode(lm.tokenizer.encode("x = é\n")) == "x = é\n"


def test_the_same_seed_gives_the_same_weights(tmp_path):
    short = dataclasses.replace(TINY, steps=3)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(dataclasses.replace(short, seed=seed), lambda: iter(TEXT), tmp_path / name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_weight_decay_touches_matrices_only():
    decoder = config_from_hf(hf_config(TINY))
    params = Decoder(decoder).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    params = jax.tree.map(jnp.ones_like, params)
    optimizer = _optimizer(dataclasses.replace(TINY, weight_decay=0.5, steps=50), decoder)
    state, nothing = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):  # the first step has a learning rate of 0
        updates, state = optimizer.update(nothing, state, params)
    decayed = jax.tree.map(lambda u: bool((u < 0).all()), updates)
    kept = jax.tree.map(lambda u: bool((u == 0).all()), updates)
    assert decayed["embed"]["tokens"]
    assert all(decayed["blocks"]["attn"][name] for name in ("wq", "wk", "wv", "wo"))
    assert all(decayed["blocks"]["mlp"][name] for name in ("w_in", "w_out"))
    assert all(kept["blocks"]["attn"][name] for name in ("bq", "bk", "bv", "bo"))
    assert all(kept["blocks"]["mlp"][name] for name in ("b_in", "b_out"))
    assert all(jax.tree.leaves([kept["ln_final"], kept["blocks"]["ln1"], kept["blocks"]["ln2"]]))


def test_too_little_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="vocabulary"):
        train(TINY, lambda: iter(["aa"]), tmp_path / "out")
    with pytest.raises(InputError, match="bytes alone need 257"):
        train(dataclasses.replace(TINY, vocab_size=256), lambda: iter(TEXT), tmp_path / "out")
    with pytest.raises(InputError, match="does not divide"):
        train(dataclasses.replace(TINY, heads=3), lambda: iter(TEXT), tmp_path / "out")
    with pytest.raises(InputError, match="too few"):
        train(dataclasses.replace(TINY, vocab_size=257), lambda: iter(["some words"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_has_the_size_asked_for():
    assert train_tokenizer(iter(TEXT), 262).get_vocab_size() == 262
