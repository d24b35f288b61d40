"""Training: it learns, repeats itself to the bit, decays only matrices, and is the same side by side and split."""

import dataclasses
import itertools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import MESHES, gathered
from parameters import marked
from tiny_training import NO_TRACK, TINY, corpus_of_text, held_out_loss, text

from jaxconf.data.corpus import train_tokenizer
from jaxconf.models.decoder import abstract_params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import load
from jaxconf.models.mesh import make_mesh
from jaxconf.runtime.placement import bytes_of_weights
from jaxconf.training.config import PRESETS
from jaxconf.training.model_config import ARCHITECTURES, decoder_config, hf_config
from jaxconf.training.run import train
from jaxconf.training.side_by_side import microbatch_size, start_all, state_shardings, training_program
from jaxconf.training.step import Hyperparameters, dropout, hyperparameters, objective, optimizer, schedule, train_step
from jaxconf.training.trainer import Training, train_models

pytestmark = pytest.mark.usefixtures("compiled_quickly")

run = jax.jit(forward, static_argnames=("config", "capture"))


@pytest.fixture(scope="module")
def corpus():
    return corpus_of_text()


def started(decoder):
    """The parameters before the first step."""
    state = start_all(decoder, make_mesh(data=1), hyperparameters([TINY]))
    return jax.tree.map(lambda a: np.array(a)[0], state.params)


def of_one(config):
    """The hyperparameters of a single model."""
    return jax.tree.map(lambda array: array[0], hyperparameters([config]))


@pytest.mark.device
def test_the_loss_falls_and_what_is_saved_is_what_was_trained(trained, corpus):
    folder, reports, result = trained
    assert [step for step, _ in reports] == [50, 60]
    assert reports[-1][1]["loss"] < 0.6 * np.log(TINY.vocab_size)
    lm = load(folder)
    assert held_out_loss(lm, corpus) == pytest.approx(result["held_out_loss"], rel=1e-5)
    losses = np.load(folder / "losses.npy")
    assert losses.shape == (60,)
    assert losses[-50:].mean() == pytest.approx(result["loss"], rel=1e-6)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt_neox"
    assert lm.tokenizer.bos_id == lm.tokenizer.eos_id == 0
    assert lm.tokenizer.decode(lm.tokenizer.encode("x = é\n")) == "x = é\n"
    assert not (folder / "checkpoints").exists()


def test_hyperparameters_are_those_of_the_recipes():
    found = hyperparameters([TINY, dataclasses.replace(TINY, seed=2**32 - 1, clip=0.5)])
    for name in (field.name for field in dataclasses.fields(Hyperparameters)):
        array = getattr(found, name)
        assert array.dtype == (np.uint32 if name == "seed" else np.float32)
        assert array[0] == np.asarray(getattr(TINY, name), array.dtype)
    assert found.seed[1] == 2**32 - 1
    assert found.clip.tolist() == [1.0, 0.5]


def test_the_same_seed_gives_the_same_weights(trained, tmp_path):
    for name, seed in (("b", 0), ("c", 1)):
        train(dataclasses.replace(TINY, seed=seed), text, tmp_path / name, track=NO_TRACK)
    a, b, c = (
        (folder / "model.safetensors").read_bytes() for folder in (trained.folder, tmp_path / "b", tmp_path / "c")
    )
    assert a == b
    assert a != c


PLAIN = dataclasses.replace(TINY, dropout=0.0, seed=5, learning_rate=3e-3, weight_decay=0.7, clip=0.1)
EXTRA = dataclasses.replace(TINY, dropout=0.3, z_loss=0.1, label_smoothing=0.2)


@pytest.mark.device
def test_models_side_by_side_are_the_models_trained_alone(trained, corpus, tmp_path):
    """Also those without an extra that a neighbour has, which their own programs leave out."""
    together = [tmp_path / f"together{i}" for i in range(3)]
    train_models([TINY, PLAIN, EXTRA], corpus, together, tmp_path / "checkpoints")
    train_models([PLAIN], corpus, [tmp_path / "alone"], tmp_path / "checkpoints")
    tiny, plain, extra = (np.load(folder / "losses.npy") for folder in together)
    off = (
        1e-5 if jax.default_backend() == "cpu" else 1e-4
    )  # accelerators multiply many matrices by other kernels than one
    for beside, alone in ((tiny, trained.folder), (plain, tmp_path / "alone")):
        np.testing.assert_allclose(beside[:12], np.load(alone / "losses.npy")[:12], rtol=off)
    assert len({tiny[11], plain[11], extra[11]}) == 3
    np.testing.assert_array_equal(tiny[0], np.load(trained.folder / "losses.npy")[0])
    assert abs(extra[11] - tiny[11]) > 1e-3


@pytest.mark.parametrize(
    ("models", "sizes"),
    marked(itertools.product((1, 2, 8), MESHES), quick=[(1, (2, 4))]),
)
def test_devices_share_the_work_and_change_nothing(models, sizes, corpus):
    """One device against several: the batch is split if there is one model, else the models; weights over `model`."""
    configs = [dataclasses.replace(TINY, batch=8, seed=seed, dropout=0.0) for seed in range(models)]
    decoder, hyper = decoder_config(TINY), hyperparameters(configs)
    tokens = np.stack([corpus.batch(c.seed, 1, c.batch, c.context) for c in configs])
    assert configs[0].vocab_size % sizes[1] == 0  # the vocabulary is split too
    found = []
    for of in ((1, 1), sizes):
        mesh = make_mesh(*of)
        state = start_all(decoder, mesh, hyper)
        program = training_program(configs, decoder, mesh).lower(state, hyper, tokens, 1).compile()
        for step in (1, 2):
            state, loss = program(state, hyper, tokens, step)
        found.append((state.params, loss))
        held = sum(w.addressable_shards[0].data.nbytes for w in jax.tree.leaves(state))
    assert len(loss.sharding.device_set) == sizes[0] * sizes[1]
    assert gathered(program) < configs[0].context * decoder.vocab_size  # no logits, nor of a sequence
    split = state_shardings(decoder, mesh, models, state)
    assert held == sum(
        np.prod(place.shard_shape(w.shape)) * w.itemsize
        for w, place in zip(*map(jax.tree.leaves, (state, split)), strict=True)
    )
    of_a_device = models // sizes[0] if models % sizes[0] == 0 else models
    assert held < 3.2 * bytes_of_weights(decoder, sizes[1]) * of_a_device
    chex.assert_trees_all_close(
        *[jax.tree.map(np.asarray, each) for each in found], atol=2e-4
    )  # Adam makes large steps of small differences


@pytest.mark.device
def test_gradients_are_averaged_over_microbatches(corpus):
    decoder, one = decoder_config(TINY), of_one(TINY)
    states = start_all(decoder, make_mesh(data=1), hyperparameters([TINY]))
    state, tokens = jax.tree.map(lambda a: np.asarray(a)[0], states), corpus.batch(0, 1, 8, TINY.context)
    step = jax.jit(train_step, static_argnums=range(5))
    whole, parts = (step(TINY, decoder, frozenset(), parts, None, state, one, tokens, np.int32(1)) for parts in (1, 4))
    chex.assert_trees_all_close(whole, parts, rtol=1e-3, atol=1e-6)
    assert microbatch_size(dataclasses.replace(TINY, microbatch=4), 8) == 4
    assert (
        microbatch_size(dataclasses.replace(TINY, context=128), 6) == 3
    )  # 512 tokens would be four, which does not divide
    assert microbatch_size(dataclasses.replace(TINY, context=4096), 6) == 1
    with pytest.raises(InputError, match=r"3 sequences.*microbatches of 2"):
        microbatch_size(dataclasses.replace(TINY, microbatch=2), 3)


def test_the_step_compiles_once(corpus):
    mesh = make_mesh(data=1)
    for learning_rate in (1e-2, 1.0):  # numbers of a model are no part of its program
        training = Training([dataclasses.replace(TINY, learning_rate=learning_rate)], corpus, mesh)
        for _ in range(3):
            training.take_step()
    assert training_program([TINY], decoder_config(TINY), mesh)._cache_size() == 1


def test_weight_decay_touches_matrices_only():
    decoder = decoder_config(TINY)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), abstract_params(decoder))
    adamw = optimizer(decoder, of_one(dataclasses.replace(TINY, weight_decay=0.5)), 0.1)
    updates, _ = jax.jit(adamw.update)(jax.tree.map(np.zeros_like, params), jax.jit(adamw.init)(params), params)
    decayed = jax.tree.map(lambda u: np.allclose(u, -0.05), updates)
    kept = jax.tree.map(lambda u: not np.any(u), updates)
    assert decayed["embed"]["tokens"]
    assert all(decayed["blocks"]["attn"][name] for name in ("wq", "wk", "wv", "wo"))
    assert all(decayed["blocks"]["mlp"][name] for name in ("w_in", "w_out"))
    assert all(kept["blocks"]["attn"][name] for name in ("bq", "bk", "bv", "bo"))
    assert all(kept["blocks"]["mlp"][name] for name in ("b_in", "b_out"))
    assert all(jax.tree.leaves([kept["ln_final"], kept["blocks"]["ln1"], kept["blocks"]["ln2"]]))


@pytest.mark.device
def test_the_objective(corpus):
    """z-loss and label smoothing against their definitions, and the loss that is reported stays the plain one."""
    config = dataclasses.replace(TINY, z_loss=0.3, label_smoothing=0.2)
    decoder, one = decoder_config(config), of_one(config)
    params = started(decoder)
    params["embed"]["tokens"] *= 20
    tokens = corpus.batch(0, 1, 4, TINY.context)
    of = jax.jit(objective, static_argnums=range(3))
    minimised, loss = of(
        config, decoder, frozenset({"z_loss", "label_smoothing"}), params, one, tokens, jax.random.key(0)
    )
    logits = np.asarray(run(decoder, params, tokens[:, :-1]).logits, np.float64)
    z = np.log(np.exp(logits).sum(-1))
    target = 0.8 * np.eye(264)[tokens[:, 1:]] + 0.2 / 264
    assert float(minimised) == pytest.approx(
        (-(target * (logits - z[..., None])).sum(-1) + 0.3 * z**2).mean(), rel=1e-5
    )
    plain = z - np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    assert float(loss) == pytest.approx(plain.mean(), rel=1e-5)
    half = of(
        dataclasses.replace(config, precision="bfloat16"), decoder, frozenset(), params, one, tokens, jax.random.key(0)
    )[1]
    assert float(half) == pytest.approx(plain.mean(), rel=2e-2)
    assert float(half) != float(loss)


def test_dropout_is_on_the_path_and_differs_between_sites_and_layers(corpus):
    config = dataclasses.replace(TINY, layers=2, width=64, heads=2)
    decoder = decoder_config(config)
    params = started(decoder)
    tokens = corpus.batch(0, 1, 16, config.context)[:, :-1]
    names = (
        "hook_embed",
        *(f"blocks.{i}.{site}" for i in (0, 1) for site in ("attn.hook_pattern", "hook_attn_out", "hook_mlp_out")),
    )
    edits = dropout(decoder, jnp.float32(0.25), jax.random.key(3))
    assert set(edits) == set(names)
    captured = run(decoder, params, tokens, edits, names).captured
    masks = {name: np.asarray(value == 0) for name, value in captured.items()}
    causal = np.tril(np.ones((24, 24), bool))
    for name, mask in masks.items():
        share = mask[..., causal].mean() if "pattern" in name else mask.mean()
        assert share == pytest.approx(0.25, abs=0.02), name
    plain = run(decoder, params, tokens, capture=("hook_embed",))
    kept = ~masks["hook_embed"]
    np.testing.assert_allclose(
        np.asarray(captured["hook_embed"])[kept], np.asarray(plain.captured["hook_embed"])[kept] / 0.75, rtol=1e-6
    )
    same_shape = [masks[name] for name in names if "pattern" not in name]
    assert all((a != b).mean() > 0.3 for i, a in enumerate(same_shape) for b in same_shape[:i])
    nothing = dropout(decoder, jnp.float32(0), jax.random.key(3))
    chex.assert_trees_all_close(run(decoder, params, tokens, nothing, names).logits, plain.logits, rtol=1e-6)


def test_the_learning_rate():
    config = dataclasses.replace(TINY, steps=100, warmup=0.1)
    cosine, constant = schedule(config), schedule(dataclasses.replace(config, schedule="constant"))
    np.testing.assert_allclose([cosine(s) for s in (1, 5, 10)], [0.1, 0.5, 1], rtol=1e-6)
    assert float(cosine(55)) == pytest.approx(0.1 + 0.9 * 0.5)
    assert float(cosine(100)) == pytest.approx(0.1)
    np.testing.assert_allclose([constant(s) for s in (1, 10, 60, 100)], [0.1, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 0.3), ("small", 10), ("gpt2-small-shape", 124.4)])
def test_presets_have_the_size_that_they_promise(preset, millions):
    PRESETS[preset].check()
    sizes = jax.tree.map(lambda a: a.size, abstract_params(decoder_config(PRESETS[preset])))
    assert sum(jax.tree.leaves(sizes)) == pytest.approx(millions * 1e6, rel=0.1)


FAMILIES = [(name, ()) for name in ARCHITECTURES]
NO_FINAL_NORM = ("opt", ("_remove_final_layer_norm=true",))


@pytest.mark.parametrize(
    ("model_type", "attributes"),
    # TINY is a gpt_neox.
    marked([*FAMILIES, NO_FINAL_NORM], devices=[("llama", ())], quick=[("llama", ()), NO_FINAL_NORM]),
)
def test_every_family_trains(model_type, attributes, corpus, tmp_path):
    config = dataclasses.replace(TINY, model_type=model_type, layers=2, steps=15, tied=False, attributes=attributes)
    [result] = train_models([config], corpus, [tmp_path / "model"], tmp_path / "checkpoints")
    losses = np.load(tmp_path / "model" / "losses.npy")
    assert losses[-1] < losses[0] - 1
    lm = load(tmp_path / "model")
    assert lm.config.model_type == model_type
    assert lm.config.final_norm == ("ln_final" in lm.params) == (not attributes)
    assert held_out_loss(lm, corpus) == pytest.approx(result["held_out_loss"], rel=1e-5)


def test_further_attributes_reach_the_model():
    config = dataclasses.replace(TINY, attributes=("use_parallel_residual=true", "hidden_act=relu", "rotary_pct=0.5"))
    decoder = decoder_config(config)
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
        ({"context": 10_000}, "held out do not fill"),
    ],
)
def test_what_does_not_fit_is_refused(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        train(dataclasses.replace(TINY, **change), text, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_has_the_size_asked_for():
    assert train_tokenizer(text(), 262).get_vocab_size() == 262
