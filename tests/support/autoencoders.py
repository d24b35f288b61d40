"""Autoencoders and directions in files, with what they read and write by numpy.

Letters: i width of the site that is read, d model width, n latent.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jaxconf.models.config import DecoderConfig


def lens(folder: Path, config: dict, **arrays: np.ndarray) -> str:
    """An autoencoder in the layout of SAE Lens, as the value of a component."""
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: x.astype(np.float32) for name, x in arrays.items()}, folder / "sae_weights.safetensors")
    return f"sae={folder}"


def weights(rng: np.random.Generator, i: int, n: int, d: int) -> dict[str, np.ndarray]:
    shapes = {"W_enc": (i, n), "b_enc": (n,), "W_dec": (n, d), "b_dec": (d,)}
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def transcoder(
    folder: Path, config: DecoderConfig, n: int = 9
) -> tuple[str, str, Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A transcoder of the last layer: the component's value, the site that it reads, its latents, and what they write.

    It reads another site than the one that it writes to.
    """
    last, d = f"blocks.{config.n_layers - 1}.", config.d_model
    of = weights(np.random.default_rng(3), d, n, d)
    sites = {"hook_name": last + "ln2.hook_normalized", "hook_name_out": last + "hook_mlp_out"}
    component = lens(folder, {"architecture": "transcoder", **sites}, **of)
    return component, sites["hook_name"], lambda x: np.maximum(x @ of["W_enc"] + of["b_enc"], 0), of["W_dec"]
