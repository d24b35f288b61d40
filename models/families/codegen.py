"""CodeGen: GPT-J with queries, values and keys in one tensor, which is cut into four parts."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import gptj, rows
from jaxconf.models.leaves import Leaf, Part

PREFIX = "transformer."
PARTS = 4  # the model was trained on four devices, and each held queries, values and keys of a quarter of the heads


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("n_ctx")
    found = gptj.config(hf, "codegen")
    if found.n_heads % PARTS:
        raise InputError(f"config.json gives {found.n_heads} heads, which do not divide by {PARTS}; correct n_head")
    return found


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    fused, order = "h.{i}.attn.qkv_proj.weight", {"q": 0, "v": 1, "k": 2}
    attention = [
        Leaf(
            f"blocks/attn/w{x}",
            rows.W_Q if x == "q" else rows.W_KV,
            fused,
            "(p a h k) d -> d (p a h) k",
            Part(order[x], order[x] + 1, 3, PARTS),
        )
        for x in "qkv"
    ]
    return gptj.table(config, [*attention, *rows.attention_out(config, "h.{i}.attn.out_proj")])
