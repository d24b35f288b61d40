"""What the families with mixtures of experts share: the sizes of the experts, and the names of their tensors."""

from typing import Any

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

MOST_EXPERTS = 10_000  # a corrupt number of experts must not fill the memory

# The tensors that newer versions of transformers can save, which hold all experts of a layer.
FUSED = {
    "mlp.experts.gate_up_proj": ("mlp.experts.{e}.gate_proj.weight", "mlp.experts.{e}.up_proj.weight"),
    "mlp.experts.down_proj": ("mlp.experts.{e}.down_proj.weight",),
}


def sizes(hf: Attributes, width: int, n_experts: int, per_token: int, shared: int = 0) -> dict[str, Any]:
    """The settings of `DecoderConfig` about the experts, which are `width` wide; the shared one is `shared` wide.

    `n_experts`, `per_token`: the defaults of these two attributes. Raises InputError for numbers that do not fit.
    """
    hf.ignore("output_router_logits", "router_aux_loss_coef")
    local = hf.take("num_local_experts", n_experts)  # older versions of transformers write the other name
    count, per_token = hf.take("num_experts", local), hf.take("num_experts_per_tok", per_token)
    if not (1 <= per_token <= count <= MOST_EXPERTS and width >= 1 and shared >= 0):
        raise InputError(
            f"config.json gives a layer {count} experts {width} wide, of which each token uses {per_token}, and a "
            f"shared expert {shared} wide, which is not possible; correct it from the model's original config.json"
        )
    widths = (width,) * count + (shared,) * (shared > 0)
    return {"experts": widths, "d_mlp": sum(widths), "experts_per_token": per_token, "shared_expert": shared > 0}


def check_every_layer(hf: Attributes) -> None:
    """Raises InputError for a model with experts in some layers only."""
    if hf.take("decoder_sparse_step", 1) != 1 or hf.take("mlp_only_layers", []):
        raise InputError(
            "config.json gives some layers a plain MLP and others experts (mlp_only_layers, decoder_sparse_step), "
            "which is not supported; use a model with experts in all layers"
        )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    return rows.llama(config, rows.experts(config))
