"""Neurons that are held at zero from a step on: what is trained, measured and saved, resumed and refused."""

import dataclasses
from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest
from meshes import make_mesh
from refusals import check_error
from safetensors.numpy import load_file
from tiny_training import NO_TRACK, TINY, TRACK, Trained, corpus_of_text, held_out_loss, options, text, text_file
from training_runs import assert_same

from jaxconf.cli import main
from jaxconf.models.decoder import forward
from jaxconf.models.language_model import load
from jaxconf.training import checkpoints
from jaxconf.training.emergence import Emergence
from jaxconf.training.grid import grid
from jaxconf.training.model_config import decoder_config
from jaxconf.training.run import train
from jaxconf.training.side_by_side import training_program
from jaxconf.training.step import hyperparameters, objective, optimizer, schedule
from jaxconf.training.trainer import Training
from jaxconf.training.vary import parse_vary

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NEURONS = list(range(1, 24, 2))  # half of the layer, so that it matters
HOLD = ",".join(f"0.{n}" for n in NEURONS)
FROM = 20
HELD = dataclasses.replace(TINY, hold=HOLD, hold_from=FROM)
DEEP = dataclasses.replace(TINY, model_type="llama", layers=3, dropout=0.0, hold="2.5,0.7,2.1,2.0", hold_from=3)
KEPT = np.ones((3, 24, 1), bool)
KEPT[[2, 0, 2, 2], [5, 7, 1, 0]] = False


def numbers(tree):
    return jax.tree.map(np.asarray, tree)


def hyper_of(config):
    """The hyperparameters of a single model."""
    return jax.tree.map(lambda array: array[0], hyperparameters([config]))


def without(params):
    """The parameters with the output weights of the neurons of DEEP times 0, which stops the gradients through them."""
    mlp = params["blocks"]["mlp"]
    return {**params, "blocks": {**params["blocks"], "mlp": {**mlp, "w_out": mlp["w_out"] * KEPT}}}


@jax.jit
def step_without(state, tokens, rate):
    """A step of DEEP without the neurons, written out: mean cross-entropy, all sequences at once, and AdamW."""

    def loss_of(params):
        logits = forward(decoder_config(DEEP), without(params), tokens[:, :-1]).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    updates, moments = optimizer(decoder_config(DEEP), hyper_of(DEEP), rate).update(
        grads, state.optimizer, state.params
    )
    return state._replace(params=optax.apply_updates(state.params, updates), optimizer=moments), loss


@pytest.fixture(scope="module")
def held(compiled_quickly, tmp_path_factory) -> Trained:
    """A tracked run that nothing interrupts, whose track has steps before and after FROM."""
    folder = tmp_path_factory.mktemp("held") / "run"
    return Trained(folder, [], train(HELD, text, folder, track=TRACK))


def test_before_the_step_a_run_is_the_plain_run_to_the_bit_and_from_it_on_another(trained, held):
    plain, ours = (np.load(of.folder / "losses.npy") for of in (trained, held))
    np.testing.assert_array_equal(ours[: FROM - 1], plain[: FROM - 1])
    assert abs(ours[FROM - 1] - plain[FROM - 1]) > 1e-3
    assert (ours[FROM:] != plain[FROM:]).all()
    before, after = Emergence.load(trained.folder), Emergence.load(held.folder)
    assert after.steps["step"].tolist() == [0, 1, 4, 15, 60]
    earlier = [e.neurons[e.neurons["step"] < FROM].reset_index(drop=True) for e in (before, after)]
    assert earlier[0].equals(earlier[1])


def test_a_plain_run_and_all_that_hold_share_the_plain_program():
    decoder, mesh = decoder_config(TINY), make_mesh(data=1)
    plain, ours = training_program([TINY], decoder, mesh), partial(training_program, decoder=decoder, mesh=mesh)
    assert ours([HELD]) is plain
    assert ours([TINY], held=True) is plain
    assert ours([HELD], held=True) is not plain
    assert ours([dataclasses.replace(HELD, hold_from=3)], held=True) is ours([HELD], held=True)


def test_from_the_step_on_training_is_that_of_a_model_without_the_neurons():
    corpus = corpus_of_text()
    plain, ours = (
        Training([config], corpus, make_mesh(data=1))
        for config in (dataclasses.replace(DEEP, hold="", hold_from=1), DEEP)
    )
    for _ in range(DEEP.hold_from - 1):
        plain.take_step()
        ours.take_step()
    chex.assert_trees_all_equal(*(numbers(training.params(0)) for training in (plain, ours)))
    assert np.asarray(ours.params(0)["blocks"]["mlp"]["w_out"]).all()
    state, losses = jax.tree.map(lambda array: np.array(array)[0], plain._state), []
    for step in range(DEEP.hold_from, DEEP.hold_from + 4):
        ours.take_step()
        tokens = corpus.batch(DEEP.seed, step, DEEP.batch, DEEP.context)
        state, loss = step_without(state, tokens, DEEP.learning_rate * schedule(DEEP)(step))
        losses.append(loss)
    ours.read_losses()
    np.testing.assert_allclose(ours.losses[0, DEEP.hold_from - 1 : ours.step], losses, rtol=1e-5)
    found = jax.tree.map(lambda array: np.asarray(array)[0], ours._state)
    # Adam makes large steps of small differences.
    chex.assert_trees_all_close(found.params, numbers(state.params), atol=2e-4)
    assert not np.array_equal(found.params["blocks"]["mlp"]["w_out"] * KEPT, found.params["blocks"]["mlp"]["w_out"])
    chex.assert_trees_all_equal(numbers(ours.params(0)), numbers(without(found.params)))


def test_dropout_goes_on_beside_the_hold():
    config, extras, key = dataclasses.replace(DEEP, dropout=0.3), frozenset({"dropout"}), jax.random.key(0)
    decoder, corpus = decoder_config(config), corpus_of_text()
    params, tokens = Training([config], corpus, make_mesh(data=1)).params(0), corpus.batch(0, 1, 4, config.context)

    def of(config, change=lambda params: params, extras=extras):
        def loss_of(params):
            return objective(config, decoder, extras, change(params), hyper_of(config), tokens, key)[0]

        return jax.jit(jax.value_and_grad(loss_of))(params)

    plain = dataclasses.replace(config, hold="")
    chex.assert_trees_all_close(of(config), of(plain, without), rtol=1e-4, atol=1e-6)
    assert len({float(loss) for loss, _ in (of(config), of(plain), of(config, extras=frozenset()))}) == 3


@pytest.mark.device
def test_what_is_saved_and_measured_is_what_was_trained(held):
    lm = load(held.folder)
    assert held_out_loss(lm, corpus_of_text()) == pytest.approx(held.result["held_out_loss"], rel=1e-5)
    w_out = np.asarray(lm.params["blocks"]["mlp"]["w_out"])[0]
    assert np.flatnonzero(~w_out.any(1)).tolist() == NEURONS
    files = load_file(held.folder / "model.safetensors")
    [w_out] = [w for name, w in files.items() if name.endswith("dense_4h_to_h.weight")]
    assert np.flatnonzero(~w_out.any(0)).tolist() == NEURONS
    lengths = Emergence.load(held.folder).neurons.pivot(index="step", columns="neuron", values="w_norm")
    assert (lengths.loc[lengths.index < FROM] > 0).all(axis=None)
    assert np.flatnonzero(lengths.loc[60] == 0).tolist() == NEURONS


@pytest.mark.parametrize("first", [FROM, 40])  # the checkpoint is of a later step, or of an earlier one
def test_an_interrupted_run_is_resumed_to_the_bit(first, tmp_path):
    class Killed(Exception):
        pass

    def killed(step: int, measured: dict[str, float]) -> None:
        raise Killed

    config = dataclasses.replace(HELD, hold_from=first)
    out, again = tmp_path / "run", {"track": TRACK, "resume": True}
    with pytest.raises(Killed):
        train(config, text, out, track=TRACK, checkpoint_every=25, report=killed)
    assert checkpoints.steps(out / "checkpoints") == [25]
    check_error(lambda: train(TINY, text, out, **again), "another run: hold is '0.1,0.3", "and '' here")
    later = dataclasses.replace(config, hold_from=first + 1)
    check_error(lambda: train(later, text, out, **again), f"hold_from is {first} there and {first + 1} here")
    train(config, text, out, **again)
    train(config, text, tmp_path / "whole", track=TRACK)
    assert_same(out, tmp_path / "whole")


@pytest.mark.slow
def test_devices_that_split_the_weights_hold_the_same_neurons():
    config = dataclasses.replace(DEEP, batch=8, hold_from=2)
    found = []
    for sizes in ((1, 1), (2, 2)):
        training = Training([config], corpus_of_text(), make_mesh(*sizes))
        for _ in range(3):
            training.take_step()
        training.read_losses()
        w_out = training.params(0)["blocks"]["mlp"]["w_out"]
        assert len(w_out.sharding.device_set) == sizes[0] * sizes[1]
        np.testing.assert_array_equal(np.asarray(w_out).any(-1), KEPT[..., 0])
        found.append(training.losses[0, :3])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.command
def test_the_command_and_all_models_of_a_grid_hold(held, tmp_path):
    given = ["--hold", HOLD, "--from", str(FROM), "--data", str(text_file(tmp_path)), "--out", str(tmp_path / "run")]
    main(["train", "tiny", *options(), *given])
    assert_same(tmp_path / "run", held.folder)
    base, out = dataclasses.replace(HELD, steps=12, hold_from=4), tmp_path / "grid"
    table = grid(base, {"dropout": [0.0, 0.1]}, 1, text, out, track=dataclasses.replace(TRACK, points=1))
    assert len(table) == 2
    for name in table["model"]:
        w_out = np.asarray(load(out / "models" / name).params["blocks"]["mlp"]["w_out"])[0]
        assert np.flatnonzero(~w_out.any(1)).tolist() == NEURONS


def test_each_model_of_a_grid_must_fit_what_is_held(tmp_path):
    for vary, part in (({"steps": [12, 60]}, "from 1 to 12"), ({"neurons": [23, 24]}, "no neuron 0.23")):
        check_error(lambda vary=vary: grid(HELD, vary, 1, text, tmp_path / "grid"), part)
    check_error(lambda: parse_vary(["hold=0.1"]), "no 'hold' to vary")
    check_error(lambda: parse_vary(["hold_from=1,2"]), "no 'hold_from' to vary")
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"hold": "0.24"}, ("no neuron 0.24", "1 layer of 24 neurons", "from 0.0 to 0.23")),
        ({"hold": "1.0"}, ("no neuron 1.0",)),
        ({"hold": "0.-1"}, ("no neuron 0.-1",)),
        ({"hold": "0.3,0.4,0.3"}, ("neuron 0.3 is named more than once in --hold", "give each neuron once")),
        ({"hold": "0.3;0.4"}, ("--hold is '0.3;0.4'", "give LAYER.NEURON")),
        ({"hold": "3"}, ("--hold is '3'", "give LAYER.NEURON")),
        ({"hold": "0.3,"}, ("--hold is '0.3,'", "give LAYER.NEURON")),
        ({"hold": "0.3", "hold_from": 0}, ("hold_from (--from) is 0", "from 1 to 60")),
        ({"hold": "0.3", "hold_from": 61}, ("hold_from (--from) is 61", "from 1 to 60")),
        ({"hold_from": 2}, ("hold_from (--from) is 2, but no neurons are held", "--hold")),
    ],
)
def test_what_cannot_be_held_is_refused_before_any_work(change, parts, tmp_path):
    check_error(lambda: train(dataclasses.replace(TINY, **change), text, tmp_path / "out", track=NO_TRACK), *parts)
    assert not (tmp_path / "out").exists()
