"""A model of which it is known which neurons are entropy neurons and which are token-frequency neurons."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from random_models import HF

from jaxconf.models.decoder import Decoder
from jaxconf.models.families import config_from_hf
from jaxconf.models.language_model import LanguageModel

PLANTED_ENTROPY, PLANTED_FREQUENCY = [7, 31], [12, 55, 101, 118]


def planted_model(kind: str, counts: np.ndarray | None = None) -> tuple[LanguageModel, np.ndarray]:
    """A one-layer model in which two neurons write into an exact null direction of the unembedding, and four along the
    token frequencies.

    With the token counts, int [v], that those frequencies are of: those given, or 211 that fall off as Zipf's law says.
    """
    rng = np.random.default_rng(11)
    if counts is None:
        counts = np.round(1e5 / rng.permutation(np.arange(1, 212))).astype(np.int64)
    hf = {**HF[kind], "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 120, "vocab_size": len(counts)}
    config = config_from_hf(hf)
    d, V, N = config.d_model, config.vocab_size, config.d_mlp
    params = jax.jit(Decoder(config).init)(jax.random.key(0), np.zeros((1, 2), np.int32))["params"]
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    f = (counts + 1) / (counts + 1).sum()
    u = (np.log(f) - np.log(f).mean()) / np.linalg.norm(np.log(f) - np.log(f).mean())

    basis, _ = np.linalg.qr(np.column_stack([np.ones(d), rng.standard_normal((d, d - 1))]))
    null, toward_frequency = basis[:, 1], basis[:, 2]
    logits = rng.standard_normal((d, V)) @ (np.eye(V) - 1 / V - np.outer(u, u))
    W = logits - np.outer(null, null @ logits) - np.outer(toward_frequency, toward_frequency @ logits)
    params["unembed"]["w"] = 0.5 * W + 40 * np.outer(toward_frequency, u)  # far along u at little cost in norm
    params["embed"]["tokens"] = 0.5 * rng.standard_normal((V, d))
    mlp = params["blocks"]["mlp"]
    for name in ("w_in", "w_gate"):
        if name in mlp:
            mlp[name] = 2.0 * rng.standard_normal((1, d, N)) / d**0.5
    mlp["w_out"] = 0.15 * rng.standard_normal((1, N, d))
    for branch, name in ((params["embed"], "tokens"), (params["blocks"]["attn"], "wo"), (mlp, "w_out")):
        branch[name] = branch[name] - (branch[name] @ toward_frequency)[..., None] * toward_frequency
    mlp["w_out"][0, PLANTED_ENTROPY] = 4 * null
    mlp["w_out"][0, PLANTED_FREQUENCY] = np.outer([0.4, -0.4, 0.4, -0.4], toward_frequency)
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    return LanguageModel(config, params, f"planted {kind}", None, Path(), hf), counts
