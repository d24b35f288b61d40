"""The sites of a mixture of experts as transformers' modules and weights give them.

Letters: b batch, t position, d model width, m neuron of an expert, e expert.
"""

from typing import Any

import numpy as np

from jaxconf.models.config import DecoderConfig


def mixture_sites(config: DecoderConfig, seen: Any, mlp: str) -> dict[str, np.ndarray]:
    """The sites within the module `mlp` of a layer, from what a `Recorder` has `seen`.

    Its experts are not modules, so their activations follow from what enters `mlp` and the weights.
    """
    module, x = seen.modules[mlp], seen.inputs[mlp].astype(np.float64)
    rows = x.shape[:2]
    (name,) = {"gate", "router"} & {*dict(module.named_children())}
    _, chosen, index = (part.numpy() for part in seen.tuples[f"{mlp}.{name}"])
    router = np.zeros((rows[0] * rows[1], config.routed_experts))
    np.put_along_axis(router, index, chosen, 1)
    router = router.reshape(*rows, -1)
    experts = {name: value.detach().numpy().astype(np.float64) for name, value in module.experts.named_parameters()}
    if config.model_type == "gpt_oss":
        both = np.einsum("btd,edm->btem", x, experts["gate_up_proj"]) + experts["gate_up_proj_bias"]
        pre, linear = both[..., ::2], both[..., 1::2]
        limit, alpha = module.experts.limit, module.experts.alpha
        gate = np.minimum(pre, limit)
        post = gate / (1 + np.exp(-alpha * gate)) * (1 + np.clip(linear, -limit, limit))
    else:
        pre, linear = np.split(np.einsum("btd,emd->btem", x, experts["gate_up_proj"]), 2, -1)
        post = pre / (1 + np.exp(-pre)) * linear
    flat = {
        "mlp.hook_pre": pre.reshape(*rows, -1),
        "mlp.hook_pre_linear": linear.reshape(*rows, -1),
        "mlp.hook_post": post.reshape(*rows, -1),
        "mlp.hook_router": router,
    }
    if config.shared_expert:
        gate = seen.outputs[f"{mlp}.shared_expert_gate"].reshape(*rows, 1)
        of_shared = (
            seen.outputs[f"{mlp}.shared_expert.gate_proj"],
            seen.outputs[f"{mlp}.shared_expert.up_proj"],
            seen.inputs[f"{mlp}.shared_expert.down_proj"],
            1 / (1 + np.exp(-gate)),
        )
        for site, value in zip(flat, of_shared, strict=True):
            flat[site] = np.concatenate([flat[site], value.reshape(*rows, -1)], -1)
    return flat


def without_sinks(config: DecoderConfig, seen: Any, layer: int) -> np.ndarray:
    """The attention scores of a layer of a model with sinks, without these."""
    scores = seen.scores[layer]
    sinks = seen.modules[f"model.layers.{layer}.self_attn"].sinks.detach().numpy()[:, None, None]
    return scores[..., :-1] + (sinks - scores[..., -1:])  # the sink comes last, and all were shifted together
