"""A model of which it is known which neurons are entropy neurons and which are token-frequency neurons."""

from pathlib import Path

import jax
import numpy as np
from random_models import HF

from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import nest

PLANTED_ENTROPY, PLANTED_FREQUENCY = [7, 31], [12, 55, 101, 118]


def planted_model(kind: str, counts: np.ndarray | None = None, seed: int = 0) -> tuple[LanguageModel, np.ndarray]:
    """A one-layer model in which two neurons write into an exact null direction of the unembedding, and four along the
    token frequencies.

    With the token counts, int [v], that those frequencies are of: those given, or 211 that fall off as Zipf's law says.
    """
    rng = np.random.default_rng([11, seed] if seed else 11)
    if counts is None:
        counts = np.round(1e5 / rng.permutation(np.arange(1, 212))).astype(np.int64)
    hf = {**HF[kind], "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 120, "vocab_size": len(counts)}
    config = config_from_hf(hf)
    d, V, N = config.d_model, config.vocab_size, config.d_mlp
    draw = np.random.default_rng(seed).standard_normal
    fixed = {"zeros": np.zeros, "ones": np.ones}
    params = nest(
        (leaf.path, fixed[leaf.init](leaf.shape(config)) if leaf.init in fixed else 0.02 * draw(leaf.shape(config)))
        for leaf in leaves(config)
    )
    f = (counts + 1) / (counts + 1).sum()
    u = (np.log(f) - np.log(f).mean()) / np.linalg.norm(np.log(f) - np.log(f).mean())

    basis, _ = np.linalg.qr(np.column_stack([np.ones(d), rng.standard_normal((d, d - 1))]))
    null, toward_frequency = basis[:, 1], basis[:, 2]
    logits = rng.standard_normal((d, V)) @ (np.eye(V) - 1 / V - np.outer(u, u))
    W = logits - np.outer(null, null @ logits) - np.outer(toward_frequency, toward_frequency @ logits)
    params["unembed"]["w"] = 0.5 * W + 10 * np.outer(toward_frequency, u)  # random directions hardly move along u
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
    params = jax.device_put(jax.tree.map(lambda w: w.astype(np.float32), params))
    return LanguageModel(config, params, f"planted {kind}", None, Path(), hf), counts
