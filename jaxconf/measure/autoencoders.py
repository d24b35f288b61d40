"""Dictionaries from files: sparse autoencoders and transcoders as SAE Lens or Gemma Scope store them, and directions.

Letters: i width of the site that is read, d model width, n latent or direction.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.dictionaries import Dictionary, Form, along, last_stream, linear
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.files import read_object
from jaxconf.models.tensor_files import read_header

CONFIG, LENS, SCOPE = "cfg.json", "sae_weights.safetensors", "params.npz"
NEEDED = ("W_enc", "b_enc", "W_dec")
FORMS: Mapping[str, Form] = {
    "standard": "relu", "topk": "top", "jumprelu": "jump",
    "transcoder": "relu", "skip_transcoder": "relu", "jumprelu_transcoder": "jump",
}  # fmt: skip
"""The architectures of SAE Lens whose latents are read here. What a skip connection writes belongs to no latent."""


class Stored(NamedTuple):
    """An autoencoder as its files have it."""

    arrays: Mapping[str, np.ndarray]
    reads: str  # the site
    form: Form
    top: int  # how many latents are left if only the largest are
    centred: bool  # whether b_dec is subtracted from what it reads
    rescaled: bool  # whether the latents count by the length of what they write

    @property
    def latents(self) -> int:
        return len(self.arrays["W_dec"])


def read_autoencoder(config: DecoderConfig, folder: str | Path) -> Dictionary:
    """The latents of a sparse autoencoder or a transcoder for the last layer of a model of this shape.

    Raises InputError as `stored_autoencoder` does.
    """
    stored = stored_autoencoder(config, folder)
    W_enc, b_enc, W_dec = (np.asarray(stored.arrays[name], np.float64) for name in NEEDED)
    if stored.centred:
        b_enc = b_enc - np.asarray(stored.arrays["b_dec"], np.float64) @ W_enc
    if stored.rescaled:  # the largest are chosen of what the latents write
        length = np.linalg.norm(W_dec, axis=1)
        W_enc, b_enc, W_dec = W_enc * length, b_enc * length, W_dec / length[:, None]
    threshold = np.asarray(stored.arrays.get("threshold", np.zeros(len(W_dec))), np.float64)
    weights = (jnp.asarray(x, jnp.float32) for x in (W_enc, b_enc, threshold, W_dec))
    return Dictionary(stored.reads, stored.form, stored.top, *weights)


def stored_autoencoder(config: DecoderConfig, folder: str | Path) -> Stored:
    """What `read_autoencoder` reads, whose numbers safetensors files have not read yet.

    `folder`: that of SAE Lens, with cfg.json and sae_weights.safetensors, or of Gemma Scope, with params.npz. A folder
    without cfg.json is taken to be of the stream that enters the final norm, with a threshold for each latent. What
    cfg.json leaves out has the value that SAE Lens gives it. Raises InputError for a folder without these files, for an
    architecture or a normalisation that is not known, and for an autoencoder of another site or width than the model
    has.
    """
    folder = Path(folder)
    arrays = _arrays(folder)
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise InputError(f"the autoencoder in {folder} has no array {missing[0]!r}; give one with {', '.join(NEEDED)}")
    of: dict[str, Any] = {"architecture": "jumprelu", "hook_name": last_stream(config), "apply_b_dec_to_input": False}
    if (folder / CONFIG).is_file():
        given = read_object(folder / CONFIG)
        of = {**given.get("metadata", {}), **given}
    reads = of.get("hook_name", of.get("hook_point"))
    if not reads:
        raise InputError(f"{folder / CONFIG} does not say which site the autoencoder reads; give hook_name")
    writes = of.get("hook_name_out") or reads
    _check_place(config, folder, reads, writes, arrays["W_enc"], arrays["W_dec"])
    form, top = _form(folder, of, arrays)
    centred = writes == reads and bool(of.get("apply_b_dec_to_input", True))
    if centred and "b_dec" not in arrays:
        raise InputError(f"the autoencoder in {folder} has no array 'b_dec', which it subtracts; give it")
    return Stored(arrays, reads, form, top, centred, bool(of.get("rescale_acts_by_decoder_norm", False)))


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    if (folder / LENS).is_file():
        return {name: tensor.map() for name, tensor in read_header(folder / LENS).items()}
    if (folder / SCOPE).is_file():
        return {name.replace("w_", "W_"): array for name, array in _npz(folder / SCOPE).items()}
    raise InputError(f"{folder} has neither {LENS} nor {SCOPE}; give the folder of an autoencoder")


def _npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a file of NumPy arrays ({error}); give an .npz file") from error


def _form(folder: Path, of: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Form, int]:
    """What is done to the latents' values, and how many are left if only the largest are."""
    architecture, kind = of.get("architecture", "standard"), of.get("activation_fn", of.get("activation_fn_str"))
    if architecture == "standard" and kind == "topk":  # as early versions of SAE Lens wrote it
        architecture = "topk"
    if architecture not in FORMS:
        raise InputError(
            f"the autoencoder in {folder} has the architecture {architecture!r}, which is not known; give one of "
            f"{', '.join(FORMS)}"
        )
    scaled = of.get("normalize_activations", "none")
    if scaled not in ("none", None, False):
        raise InputError(
            f"the autoencoder in {folder} normalises what it reads ({scaled}), which is not supported; fold that into "
            "its weights and set normalize_activations to none"
        )
    form = FORMS[architecture]
    top = int(of.get("k") or of.get("activation_fn_kwargs", {}).get("k", 0)) if form == "top" else 0
    if form == "top" and not 1 <= top <= len(arrays["W_dec"]):
        raise InputError(
            f"the autoencoder in {folder} keeps {top} latents of {len(arrays['W_dec'])}; give one that keeps some"
        )
    if form == "jump" and "threshold" not in arrays:
        raise InputError(f"the autoencoder in {folder} has no array 'threshold', which {architecture} needs; give it")
    return form, top


def _check_place(
    config: DecoderConfig, folder: Path, reads: str, writes: str, W_enc: np.ndarray, W_dec: np.ndarray
) -> None:
    """Raises InputError unless the sites are the model's, the last of them in its last layer, and the widths fit."""
    last = f"blocks.{config.n_layers - 1}."
    ends = [last + "hook_resid_post", last + "hook_mlp_out"]
    shapes = site_shapes(config)
    if writes not in ends:
        raise InputError(
            f"the autoencoder in {folder} writes to {writes}, and only what writes to {ends[0]} or {ends[1]} reaches "
            "the model's final norm directly; give an autoencoder of one of these"
        )
    if not reads.startswith(last) or reads not in shapes or len(shapes[reads]) != 3:
        raise InputError(f"the autoencoder in {folder} reads {reads}; give one that reads a stream in {last[:-1]}")
    sizes = [(reads, W_enc.shape[0], shapes[reads][-1]), (writes, W_dec.shape[1], config.d_model)]
    for site, own, models in sizes:
        if own != models:
            raise InputError(
                f"the autoencoder in {folder} has the width {own}, and {site} of the model has {models}; give an "
                "autoencoder of this model"
            )


def read_directions(config: DecoderConfig, file: str | Path) -> tuple[Dictionary, Sequence[str] | None]:
    """The directions in an .npz file, and their names, if it has some.

    Its arrays: `write`, float [n d], what is added to the last stream; `read`, float [n d], and `bias`, float [n], for
    the coefficients x·read + bias, where x is the stream that enters the final norm; without `read`, the coefficient is
    the component of x along the direction. `names`: text [n]. Raises InputError for another file, and for arrays that
    do not fit each other or the model's width.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"there is no file {file}; give an .npz file with an array 'write'")
    arrays = _npz(file)
    if "write" not in arrays:
        raise InputError(f"{file} has no array 'write'; give one with a direction on each row")
    w = np.atleast_2d(np.asarray(arrays["write"], np.float64))
    if w.ndim != 2 or w.shape[1] != config.d_model:
        raise InputError(
            f"'write' in {file} has the width {w.shape[-1]}, and the model {config.d_model}; give directions of its "
            "stream"
        )
    if not np.linalg.norm(w, axis=1).all():
        raise InputError(f"'write' in {file} has a row of zeros; leave it out")
    names = [str(name) for name in np.atleast_1d(arrays["names"])] if "names" in arrays else None
    if names is not None and len(set(names)) < len(names):
        raise InputError(f"'names' in {file} has {max(names, key=names.count)!r} more than once; give different names")
    if "bias" in arrays and "read" not in arrays:
        raise InputError(f"{file} has 'bias' without 'read', to which it belongs; give both, or neither")
    bias = np.asarray(arrays.get("bias", np.zeros(len(w))), np.float64)
    read = np.atleast_2d(np.asarray(arrays.get("read", w), np.float64))
    if read.shape != w.shape or bias.shape != (len(w),) or (names is not None and len(names) != len(w)):
        raise InputError(
            f"'read', 'bias' and 'names' in {file} do not have one entry for each of its {len(w)} directions; give as "
            "many"
        )
    if "read" not in arrays:
        return along(config, w), names
    return linear(last_stream(config), read.T, bias, w), names
