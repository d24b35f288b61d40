"""A neuron's effects by their definitions: the whole model runs again for every neuron, in float64 where it can.

Letters: s window, t position, n neuron, v vocabulary. Losses, entropies and divergences in nats.
"""

import functools

import jax
import numpy as np
import pandas as pd

from jaxconf.models.decoder import final_norm_name, forward
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.sites import Replace


def metrics(logits: np.ndarray, target: np.ndarray, f: np.ndarray) -> dict[str, np.ndarray]:
    logits = np.asarray(logits, np.float64)
    lp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    own = np.take_along_axis(lp, target[..., None], -1)
    return {
        "loss": -own[..., 0],
        "entropy": -(np.exp(lp) * lp).sum(-1),
        "kl": (f * (np.log(f) - lp)).sum(-1),
        "top": lp.argmax(-1),
        "rr": 1 / (1 + (lp > own).sum(-1)),
    }


whole_run = jax.jit(forward, static_argnames=("config", "capture"))


@functools.partial(jax.jit, static_argnames="config")
def edited_runs(config, params, tokens, edits, scales) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits [c s t v] of each edit, and those with the norms' scales as they were; and the final norm's scale
    [c s t 1] where it may move.

    `edits`: site → the values that replace its own, with an axis c in front.
    """
    final = f"{final_norm_name(config)}.hook_scale"

    def one(values):
        edit = {site: Replace(value) for site, value in values.items()}
        norms = {norm: Replace(scale) for norm, scale in scales.items()}
        free = forward(config, params, tokens, edits=edit, capture=(final,))
        return free.logits, forward(config, params, tokens, edits={**edit, **norms}).logits, free.captured[final]

    return jax.vmap(one)(edits)


def rerun(
    lm: LanguageModel,
    tokens: np.ndarray,
    kept: np.ndarray,
    counts: np.ndarray,
    replaced,
    layer: int = -1,
    frozen=(),
    sets=None,
) -> pd.DataFrame:
    """The table's effect columns by the definitions: set one neuron (or a set of them), run the whole model again,
    subtract.

    `frozen`: norms that keep their scale beside the final one.
    """
    config, last = lm.config, f"blocks.{layer % lm.config.n_layers}.mlp.hook_post"
    sets = np.eye(config.d_mlp, dtype=bool) if sets is None else sets
    h = lm.apply(tokens, capture=[last]).captured[last]
    counted = np.asarray(h)
    if config.experts:  # statistics are taken where the expert is chosen
        router = last.replace("hook_post", "hook_router")
        router = lm.apply(tokens, capture=[router]).captured[router]
        counted = np.where(np.repeat(router, config.experts, -1) > 0, counted, np.nan)
    values = np.nan_to_num(replaced(counted)).astype(counted.dtype)
    return rerun_edits(lm, tokens, kept, counts, {last: np.where(sets[:, None, None], values, h)}, frozen)


def rerun_edits(
    lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, counts: np.ndarray, edits: dict[str, np.ndarray], frozen=()
) -> pd.DataFrame:
    """As `rerun`, for any edits: site → the values that replace its own, with an axis in front, one edit after the
    other.
    """
    config, (target, mask) = lm.config, (tokens[:, 1:], kept[:, :-1] & True)
    f = (counts + 1) / (counts + 1).sum()
    v_freq = np.log(f) - np.log(f).mean()
    u = v_freq / np.linalg.norm(v_freq)
    norms = (f"{final_norm_name(config)}.hook_scale", *frozen)
    before = whole_run(config, lm.params, tokens, capture=norms)
    scales = {norm: before.captured[norm] for norm in norms}
    totals, frozens, moved = edited_runs(config, lm.params, tokens, edits, scales)
    was, moved = np.asarray(scales[norms[0]], np.float64)[..., 0], np.asarray(moved, np.float64)[..., 0]
    logits0 = np.asarray(before.logits, np.float64)[:, :-1]
    base = metrics(logits0, target, f)
    rows = []
    of_sets = np.asarray(totals, np.float64)[:, :, :-1], np.asarray(frozens)[:, :, :-1], moved[:, :, :-1]
    for total, frozen, scale in zip(*of_sets, strict=True):
        coordinate = (logits0 - total) @ u
        found = {
            name: metrics(z, target, f)
            for name, z in (("te", total), ("ln", frozen), ("fr", total + coordinate[..., None] * u))
        }
        d = {
            name: {m: (value[m] - base[m])[mask] for m in ("loss", "entropy", "kl", "rr")}
            for name, value in found.items()
        }
        rows.append(
            {
                "loss_delta": d["te"]["loss"].mean(),
                "loss_abs_delta": np.abs(d["te"]["loss"]).mean(),
                "loss_abs_delta_ln_frozen": np.abs(d["ln"]["loss"]).mean(),
                "loss_abs_delta_freq_frozen": np.abs(d["fr"]["loss"]).mean(),
                "entropy_delta": d["te"]["entropy"].mean(),
                "entropy_abs_delta": np.abs(d["te"]["entropy"]).mean(),
                "entropy_abs_delta_ln_frozen": np.abs(d["ln"]["entropy"]).mean(),
                "scale_delta": (scale / was[:, :-1] - 1)[mask].mean(),
                "norm_delta": (scale - was[:, :-1])[mask].mean() * np.sqrt(config.d_model),
                "kl_freq_delta": d["te"]["kl"].mean(),
                "kl_freq_abs_delta": np.abs(d["te"]["kl"]).mean(),
                "top1_change": (found["te"]["top"] != base["top"])[mask].mean(),
                "rr_abs_delta": np.abs(d["te"]["rr"]).mean(),
            }
        )
    return pd.DataFrame(rows)
