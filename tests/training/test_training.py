"""Training: it learns, repeats itself to the bit, decays only matrices, does as asked side by side and split over devices, and is saved whole."""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import MESHES, gathered

from jaxconf.data.corpus import read_corpus, train_tokenizer
from jaxconf.models.decoder import Decoder, abstract_params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh
from jaxconf.runtime.placement import bytes_of_weights
from jaxconf.training.config import ARRAYS, PRESETS, TrackConfig, TrainConfig
from jaxconf.training.run import train
from jaxconf.training.trainer import (
    Numbers,
    _dropout,
    _loss,
    _microbatch,
    _optimizer,
    _program,
    _schedule,
    _shardings,
    _start,
    _step,
    hf_config,
    train_models,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TEXT = [f"value_{i % 3} = {i % 5} + {i % 3}\n" * 20 for i in range(60)]
# A batch that the test session's eight devices do not divide is worked on by one of them.
TINY = TrainConfig(layers=1, width=16, heads=2, neurons=32, vocab_size=264, context=24, steps=60, batch=7, learning_rate=1e-2)
NO_TRACK = TrackConfig(points=0)

run = jax.jit(forward, static_argnames=("config", "capture"))


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(TINY.vocab_size, TINY.context, lambda: iter(TEXT))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, reports = tmp_path_factory.mktemp("trained"), []
    figures = train(TINY, lambda: iter(TEXT), folder, track=NO_TRACK, report=lambda step, found: reports.append((step, found["loss"])))
    return folder, reports, figures


def numbers(*configs: TrainConfig) -> Numbers:
    return Numbers(**{name: np.array([getattr(c, name) for c in configs], np.uint32 if name == "seed" else np.float32) for name in ARRAYS})


def test_the_loss_falls_and_what_is_saved_is_what_was_trained(trained, corpus):
    folder, reports, figures = trained
    assert [step for step, _ in reports] == [50, 60]
    assert reports[-1][1] < 0.6 * np.log(TINY.vocab_size)
    lm = load(folder)
    windows = corpus.held_out_windows(10**9, TINY.context)
    loss = optax.softmax_cross_entropy_with_integer_labels(lm.apply(windows[:, :-1]).logits, windows[:, 1:]).mean()
    assert float(loss) == pytest.approx(figures["held_out_loss"], rel=1e-5)
    losses = np.load(folder / "losses.npy")
    assert losses.shape == (60,)
    assert losses[-50:].mean() == pytest.approx(figures["loss"], rel=1e-6)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_neox"
    assert lm.tokenizer.bos_id == lm.tokenizer.eos_id == 0
    assert lm.tokenizer.decode(lm.tokenizer.encode("x = é\n")) == "x = é\n"
    assert not (folder / "checkpoints").exists()


def test_the_same_seed_gives_the_same_weights(tmp_path):
    short = dataclasses.replace(TINY, steps=3, dropout=0.1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(dataclasses.replace(short, seed=seed), lambda: iter(TEXT), tmp_path / name, track=NO_TRACK)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


SHORT = dataclasses.replace(TINY, steps=12)


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """The losses of a model that is trained by itself."""

    @functools.cache
    def losses(config: TrainConfig) -> np.ndarray:
        folder = tmp_path_factory.mktemp("alone")
        train_models([config], corpus, [folder], folder / "checkpoints")
        return np.load(folder / "losses.npy")

    return losses


def test_models_side_by_side_are_the_models_trained_alone(corpus, alone, tmp_path):
    changes = [{}, {"seed": 5}, {"learning_rate": 3e-3, "weight_decay": 0.7, "clip": 0.1}]
    configs = [dataclasses.replace(SHORT, **change) for change in changes]
    together = [tmp_path / f"together{i}" for i in range(3)]
    train_models(configs, corpus, together, tmp_path / "checkpoints")
    for config, folder in zip(configs, together, strict=True):
        np.testing.assert_allclose(np.load(folder / "losses.npy"), alone(config), rtol=1e-5)
    assert len({np.load(folder / "losses.npy")[-1] for folder in together}) == 3


def test_a_model_without_an_extra_is_not_touched_by_its_neighbours(corpus, alone, tmp_path):
    configs = [SHORT, dataclasses.replace(SHORT, dropout=0.3, z_loss=0.1, label_smoothing=0.2)]
    train_models(configs, corpus, [tmp_path / "plain", tmp_path / "extra"], tmp_path / "checkpoints")
    plain, extra = (np.load(tmp_path / name / "losses.npy") for name in ("plain", "extra"))
    np.testing.assert_allclose(plain, alone(SHORT), rtol=1e-5)
    assert abs(extra[-1] - plain[-1]) > 1e-3


IN_EVERY_RUN = [(8, (8, 1)), (1, (2, 4))]


@pytest.mark.parametrize(
    ("models", "sizes"),
    [
        *IN_EVERY_RUN,
        *(pytest.param(m, sizes, marks=pytest.mark.slow) for m in (1, 2, 8) for sizes in MESHES if (m, sizes) not in IN_EVERY_RUN),
    ],
)
def test_devices_share_the_work_and_change_nothing(models, sizes, corpus):
    """One device against several: with one model the batch is split, with more the models are; and the weights over `model`."""
    configs = [dataclasses.replace(TINY, steps=5, batch=8, seed=seed) for seed in range(models)]
    decoder = config_from_hf(hf_config(TINY))
    tokens = np.stack([corpus.batch(c.seed, 1, c.batch, c.context) for c in configs])
    assert configs[0].vocab_size % sizes[1] == 0  # the vocabulary is split too
    found = []
    for of in ((1, 1), sizes):
        mesh = make_mesh(*of)
        state = _start(decoder, mesh, models, numbers(*configs))
        program = _program(configs[0], decoder, frozenset(), mesh, models)
        for step in (1, 2):
            state, loss = program(state, numbers(*configs), tokens, step)
        found.append((state.params, loss))
        held = sum(w.addressable_shards[0].data.nbytes for w in jax.tree.leaves(state))
    assert len(loss.sharding.device_set) == sizes[0] * sizes[1]
    compiled = program.lower(state, numbers(*configs), tokens, step).compile()
    assert gathered(compiled) < configs[0].context * decoder.vocab_size  # no logits, nor of a sequence
    split = _shardings(decoder, mesh, models, state)
    assert held == sum(
        np.prod(place.shard_shape(w.shape)) * w.itemsize for w, place in zip(*map(jax.tree.leaves, (state, split)), strict=True)
    )
    of_a_device = models // sizes[0] if models % sizes[0] == 0 else models
    assert held < 3.2 * bytes_of_weights(decoder, sizes[1]) * of_a_device
    chex.assert_trees_all_close(
        *[jax.tree.map(np.asarray, each) for each in found], atol=2e-4
    )  # Adam makes large steps of small differences


def test_gradients_are_summed_over_microbatches(corpus):
    decoder = config_from_hf(hf_config(TINY))
    one = jax.tree.map(lambda a: a[0], numbers(TINY))
    state = jax.tree.map(lambda a: a[0], _start(decoder, make_mesh(data=1), 1, numbers(TINY)))
    tokens = jnp.asarray(corpus.batch(0, 1, 8, TINY.context))
    step = jax.jit(_step, static_argnums=range(5))
    whole, parts = (step(TINY, decoder, frozenset(), parts, None, state, one, tokens, jnp.array(1)) for parts in (1, 4))
    chex.assert_trees_all_close(whole, parts, rtol=1e-3, atol=1e-6)
    assert _microbatch(dataclasses.replace(TINY, microbatch=4), 8) == 4
    assert _microbatch(dataclasses.replace(TINY, context=128), 6) == 3  # 512 tokens would be four, which does not divide
    assert _microbatch(dataclasses.replace(TINY, context=4096), 6) == 1
    with pytest.raises(InputError, match=r"3 sequences.*microbatches of 2"):
        _microbatch(dataclasses.replace(TINY, microbatch=2), 3)


def test_the_step_compiles_once(corpus):
    decoder, mesh = config_from_hf(hf_config(TINY)), make_mesh(data=1)
    program = _program(TINY, decoder, frozenset(), mesh, 1)
    state = _start(decoder, mesh, 1, numbers(TINY))
    for step in (1, 2, 3):
        state, _ = program(state, numbers(dataclasses.replace(TINY, learning_rate=step)), corpus.batch(0, step, 7, 24)[None], step)
    assert program._cache_size() == 1


def test_weight_decay_touches_matrices_only():
    decoder = config_from_hf(hf_config(TINY))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_params(decoder))
    one = jax.tree.map(lambda a: a[0], numbers(dataclasses.replace(TINY, weight_decay=0.5)))
    optimizer = _optimizer(decoder, one, 0.1)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(np.zeros_like, params), jax.jit(optimizer.init)(params), params)
    decayed = jax.tree.map(lambda u: np.allclose(u, -0.05), updates)
    kept = jax.tree.map(lambda u: not np.any(u), updates)
    assert decayed["embed"]["tokens"]
    assert all(decayed["blocks"]["attn"][name] for name in ("wq", "wk", "wv", "wo"))
    assert all(decayed["blocks"]["mlp"][name] for name in ("w_in", "w_out"))
    assert all(kept["blocks"]["attn"][name] for name in ("bq", "bk", "bv", "bo"))
    assert all(kept["blocks"]["mlp"][name] for name in ("b_in", "b_out"))
    assert all(jax.tree.leaves([kept["ln_final"], kept["blocks"]["ln1"], kept["blocks"]["ln2"]]))


def test_the_objective(corpus):
    """z-loss and label smoothing against their definitions, and the loss that is reported stays the plain one."""
    config = dataclasses.replace(TINY, z_loss=0.3, label_smoothing=0.2)
    decoder, one = config_from_hf(hf_config(config)), jax.tree.map(lambda a: a[0], numbers(config))
    params = jax.jit(Decoder(decoder).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    params["embed"]["tokens"] *= 20
    tokens = jnp.asarray(corpus.batch(0, 1, 4, TINY.context))
    of = jax.jit(_loss, static_argnums=range(3))
    objective, loss = of(config, decoder, frozenset({"z_loss", "label_smoothing"}), params, one, tokens, jax.random.key(0))
    logits = np.asarray(run(decoder, params, tokens[:, :-1]).logits, np.float64)
    z = np.log(np.exp(logits).sum(-1))
    target = 0.8 * np.eye(264)[np.asarray(tokens[:, 1:])] + 0.2 / 264
    assert float(objective) == pytest.approx((-(target * (logits - z[..., None])).sum(-1) + 0.3 * z**2).mean(), rel=1e-5)
    plain = z - np.take_along_axis(logits, np.asarray(tokens)[:, 1:, None], -1)[..., 0]
    assert float(loss) == pytest.approx(plain.mean(), rel=1e-5)
    half = of(dataclasses.replace(config, precision="bfloat16"), decoder, frozenset(), params, one, tokens, jax.random.key(0))[1]
    assert float(half) == pytest.approx(plain.mean(), rel=2e-2)
    assert float(half) != float(loss)


def test_dropout_is_on_the_path_and_differs_between_sites_and_layers(corpus):
    config = dataclasses.replace(TINY, layers=2, width=64, heads=2)
    decoder = config_from_hf(hf_config(config))
    params = jax.jit(Decoder(decoder).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    tokens = jnp.asarray(corpus.batch(0, 1, 16, config.context))[:, :-1]
    names = ("hook_embed", *(f"blocks.{i}.{site}" for i in (0, 1) for site in ("attn.hook_pattern", "hook_attn_out", "hook_mlp_out")))
    edits = _dropout(decoder, jnp.float32(0.25), jax.random.key(3))
    assert set(edits) == set(names)
    captured = run(decoder, params, tokens, edits, names).captured
    masks = {name: np.asarray(value == 0) for name, value in captured.items()}
    causal = np.tril(np.ones((24, 24), bool))
    for name, mask in masks.items():
        share = mask[..., causal].mean() if "pattern" in name else mask.mean()
        assert share == pytest.approx(0.25, abs=0.02), name
    plain = run(decoder, params, tokens, capture=("hook_embed",))
    kept = ~masks["hook_embed"]
    np.testing.assert_allclose(np.asarray(captured["hook_embed"])[kept], np.asarray(plain.captured["hook_embed"])[kept] / 0.75, rtol=1e-6)
    same_shape = [masks[name] for name in names if "pattern" not in name]
    assert all((a != b).mean() > 0.3 for i, a in enumerate(same_shape) for b in same_shape[:i])
    nothing = _dropout(decoder, jnp.float32(0), jax.random.key(3))
    chex.assert_trees_all_close(run(decoder, params, tokens, nothing, names).logits, plain.logits, rtol=1e-6)


def test_the_learning_rate():
    config = dataclasses.replace(TINY, steps=100, warmup=0.1)
    cosine, constant = _schedule(config), _schedule(dataclasses.replace(config, schedule="constant"))
    np.testing.assert_allclose([cosine(s) for s in (1, 5, 10)], [0.1, 0.5, 1], rtol=1e-6)
    assert float(cosine(55)) == pytest.approx(0.1 + 0.9 * 0.5)
    assert float(cosine(100)) == pytest.approx(0.1)
    np.testing.assert_allclose([constant(s) for s in (1, 10, 60, 100)], [0.1, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 0.3), ("small", 10), ("gpt2-small-shape", 124.4)])
def test_presets_have_the_size_that_they_promise(preset, millions):
    PRESETS[preset].check()
    sizes = jax.tree.map(lambda a: a.size, abstract_params(config_from_hf(hf_config(PRESETS[preset]))))
    assert sum(jax.tree.leaves(sizes)) == pytest.approx(millions * 1e6, rel=0.1)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "stablelm", pytest.param("gpt_neox", marks=pytest.mark.slow)])  # as TINY is
def test_every_family_trains(model_type, corpus, tmp_path):
    config = dataclasses.replace(TINY, model_type=model_type, steps=15, tied=False, attributes=())
    train_models([config], corpus, [tmp_path / "model"], tmp_path / "checkpoints")
    losses = np.load(tmp_path / "model" / "losses.npy")
    assert losses[-1] < losses[0] - 1
    assert load(tmp_path / "model").config.model_type == model_type


def test_further_attributes_reach_the_model():
    config = dataclasses.replace(TINY, attributes=("use_parallel_residual=true", "hidden_act=relu", "rotary_pct=0.5"))
    decoder = config_from_hf(hf_config(config))
    assert (decoder.parallel, decoder.activation, len(decoder.rotary.frequencies)) == (True, "relu", 2)
    with pytest.raises(InputError, match="NAME=VALUE"):
        hf_config(dataclasses.replace(TINY, attributes=("oops",)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "width of 16 does not divide into 3 heads"),
        ({"layers": 0}, "layers is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"seed": 2**32}, f"seed is {2**32}"),
        ({"microbatch": 3}, "batch of 7 does not divide into microbatches of 3"),
        ({"attributes": ("twist=1",)}, "'twist'"),
        ({"vocab_size": 256}, "bytes alone need 257"),
        ({"vocab_size": 5000}, "vocabulary of only"),
        ({"context": 10_000}, "too few"),
    ],
)
def test_what_does_not_fit_is_refused(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        train(dataclasses.replace(TINY, **change), lambda: iter(TEXT), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_has_the_size_asked_for():
    assert train_tokenizer(iter(TEXT), 262).get_vocab_size() == 262
