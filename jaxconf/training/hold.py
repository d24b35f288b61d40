"""Neurons that are held at zero from a step of the training on, so that others must take their place. n: neuron."""

import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.neuron_sets import Neurons, masks_of
from jaxconf.measure.neuron_sets import check_once, check_places, read_option
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params
from jaxconf.models.sites import Ablate, Edit
from jaxconf.training.config import TrainConfig


def held_neurons(config: TrainConfig, decoder: DecoderConfig) -> list[tuple[int, int]]:
    """The layer and index of each neuron that `config.hold` names.

    Raises InputError for a text that names no neurons, a neuron that the model does not have, and one named twice.
    """
    neurons = read_option("--hold", config.hold) if config.hold else []
    check_places("neuron", neurons, decoder.n_layers, decoder.d_mlp)
    check_once("neuron", neurons, "--hold")
    return neurons


def hold(decoder: DecoderConfig, neurons: Neurons) -> dict[str, Edit]:
    """Edits that hold the activations of these neurons at zero."""
    masks = masks_of(decoder.d_mlp, [neurons])  # of one set: bool [1 n] for each layer
    return {f"blocks.{layer}.mlp.hook_post": Ablate(mask[0], jnp.zeros(())) for layer, mask in masks.items()}


def without_output(params: Params, neurons: Neurons) -> Params:
    """The parameters with the output weights of these neurons at zero.

    A model of them computes what the given parameters do while the neurons are held.
    """
    mlp = params["blocks"]["mlp"]
    layers, indices = np.transpose(neurons)
    return {
        **params,
        "blocks": {**params["blocks"], "mlp": {**mlp, "w_out": mlp["w_out"].at[layers, indices].set(0)}},
    }
