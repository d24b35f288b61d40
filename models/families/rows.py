"""Rows of the leaf table that several families share.

Letters of the views: d width, h head, g key/value head, k head width, m neuron, v token, a the axis of a stored tensor
that several leaves share (`Part`).
"""

from collections.abc import Sequence
from typing import Any

from jaxconf.models.config import DecoderConfig
from jaxconf.models.leaves import Leaf, Part

# The tensors of what reads images.
VISION = r"(model\.)?(vision_tower|multi_modal_projector)\..*"

W_Q, B_Q = ("layers", "embed", "heads", "head_dim"), ("layers", "heads", "head_dim")
W_KV, B_KV = ("layers", "embed", "kv_heads", "head_dim"), ("layers", "kv_heads", "head_dim")


def norm(config: DecoderConfig, path: str, source: str) -> list[Leaf]:
    """Gain and bias of a norm of the stream, if the norm has them; of all layers if the source contains "{i}"."""
    axes = ("layers", "embed") if "{i}" in source else ("embed",)
    gain = Leaf(f"{path}/scale", axes, f"{source}.weight", init="zeros" if config.gain_offset else "ones")
    bias = Leaf(f"{path}/bias", axes, f"{source}.bias", init="zeros")
    return [gain] * config.norm_gain + [bias] * config.norm_bias


def attention(config: DecoderConfig, source: str = "layers.{i}.self_attn.", out: str = "o_proj") -> list[Leaf]:
    """The projections of queries, keys, values and output, each a tensor of its own."""
    rows = [
        Leaf("blocks/attn/wq", W_Q, source + "q_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wk", W_KV, source + "k_proj.weight", "(g k) d -> d g k"),
        Leaf("blocks/attn/wv", W_KV, source + "v_proj.weight", "(g k) d -> d g k"),
    ]
    if config.qkv_bias:
        rows += [
            Leaf("blocks/attn/bq", B_Q, source + "q_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bk", B_KV, source + "k_proj.bias", "(g k) -> g k", init="zeros"),
            Leaf("blocks/attn/bv", B_KV, source + "v_proj.bias", "(g k) -> g k", init="zeros"),
        ]
    return rows + attention_out(config, source + out)


def grouped_attention(config: DecoderConfig, fused: str, out: str) -> list[Leaf]:
    """As `attention`, from one tensor for queries, keys and values.

    It holds, for each key/value head in turn, the queries that use that head, its key and its value.
    """
    r = config.n_heads // config.n_kv_heads
    rows = []
    for x, part in (("q", Part(0, r, r + 2)), ("k", Part(r, r + 1, r + 2)), ("v", Part(r + 1, r + 2, r + 2))):
        rows.append(
            Leaf(f"blocks/attn/w{x}", W_Q if x == "q" else W_KV, f"{fused}.weight", "(g a k) d -> d (g a) k", part)
        )
        if config.qkv_bias:
            rows.append(
                Leaf(
                    f"blocks/attn/b{x}",
                    B_Q if x == "q" else B_KV,
                    f"{fused}.bias",
                    "(g a k) -> (g a) k",
                    part,
                    init="zeros",
                )
            )
    return rows + attention_out(config, out)


def attention_out(config: DecoderConfig, source: str) -> list[Leaf]:
    weight = Leaf(
        "blocks/attn/wo",
        ("layers", "heads", "head_dim", "embed"),
        f"{source}.weight",
        "d (h k) -> h k d",
        init="residual",
    )
    bias = Leaf("blocks/attn/bo", ("layers", "embed"), f"{source}.bias", init="zeros")
    return [weight] + [bias] * config.attn_out_bias


def head_norms(
    config: DecoderConfig, source: str = "layers.{i}.self_attn.{x}_norm", of_heads: bool = False
) -> list[Leaf]:
    """Gains and biases of the norms of queries and keys, if the model has them.

    In `source`, "{x}" stands for q or k. `of_heads`: each head has a gain of its own.
    """
    rows: list[Leaf] = []
    if config.qk_norm == "none":
        return rows
    together = config.qk_norm == "all"
    for x, heads, view in (("q", "heads", "(h k) -> h k"), ("k", "kv_heads", "(g k) -> g k")):
        axes = ("layers", heads, "head_dim") if of_heads or together else ("layers", "head_dim")
        name, view = source.replace("{x}", x), view if together else ""
        rows.append(
            Leaf(f"blocks/attn/{x}_norm", axes, f"{name}.weight", view, init="zeros" if config.gain_offset else "ones")
        )
        if config.qk_norm_bias:
            rows.append(Leaf(f"blocks/attn/{x}_norm_bias", axes, f"{name}.bias", view, init="zeros"))
    return rows


def mlp(config: DecoderConfig, **sources: str) -> list[Leaf]:
    """The MLP's projections. `sources`: the modules of `w_in`, `w_out` and, if the MLP is gated, `w_gate`."""
    rows = []
    for name, source in sources.items():
        out = name == "w_out"
        axes = ("layers", "mlp", "embed") if out else ("layers", "embed", "mlp")
        view = "d m -> m d" if out else "m d -> d m"
        rows.append(Leaf(f"blocks/mlp/{name}", axes, f"{source}.weight", view, init="residual" if out else "normal"))
        if config.mlp_bias:
            bias = ("layers", "embed") if out else ("layers", "mlp")
            rows.append(Leaf(f"blocks/mlp/b{name[1:]}", bias, f"{source}.bias", init="zeros"))
    return rows


def gated_mlp(config: DecoderConfig, source: str = "layers.{i}.mlp.") -> list[Leaf]:
    return mlp(config, w_gate=source + "gate_proj", w_in=source + "up_proj", w_out=source + "down_proj")


def fused_gate(source: str) -> list[Leaf]:
    """The gate and the input projection of a gated MLP without biases, from one tensor that holds both."""
    axes, view = ("layers", "embed", "mlp"), "(a m) d -> d (a m)"
    return [
        Leaf("blocks/mlp/w_gate", axes, source, view, Part(0, 1, 2)),
        Leaf("blocks/mlp/w_in", axes, source, view, Part(1, 2, 2)),
    ]


def experts(
    config: DecoderConfig,
    source: str = "layers.{i}.mlp.",
    w_gate: str = "gate_proj",
    w_in: str = "up_proj",
    w_out: str = "down_proj",
) -> list[Leaf]:
    """A mixture of gated experts: the router, the experts' projections, and the gate of a shared expert, if any.

    `w_gate`, `w_in`, `w_out`: the modules within an expert.
    """
    rows = [Leaf("blocks/mlp/router", ("layers", "embed", "experts"), source + "gate.weight", "e d -> d e")]
    for name, module in (("w_gate", w_gate), ("w_in", w_in), ("w_out", w_out)):
        out = name == "w_out"
        rows.append(
            Leaf(
                f"blocks/mlp/{name}",
                ("layers", "mlp", "embed") if out else ("layers", "embed", "mlp"),
                f"{source}experts.{{e}}.{module}.weight",
                "d m -> m d" if out else "m d -> d m",
                init="residual" if out else "normal",
                shared=f"{source}shared_expert.{module}.weight",
            )
        )
    gate = Leaf("blocks/mlp/shared_gate", ("layers", "embed"), source + "shared_expert_gate.weight", "1 d -> d")
    return rows + [gate] * config.shared_expert


def head(config: DecoderConfig, source: str = "lm_head") -> list[Leaf]:
    """The unembedding, unless it is tied to the embedding, and its bias, if it has one."""
    weight = Leaf("unembed/w", ("token_embed", "vocab"), f"{source}.weight", "v d -> d v")
    bias = Leaf("unembed/b", ("vocab",), f"{source}.bias", init="zeros")
    return [weight] * (not config.tied) + [bias] * config.head_bias


def llama(config: DecoderConfig, mlp: Sequence[Leaf] = (), **norms: Any) -> tuple[Leaf, ...]:
    """The whole leaf table in Llama's layout, which many families share.

    `mlp`: the rows of the MLP, if they are others than those of `gated_mlp`. `norms`: arguments of `head_norms`.
    """
    layer = "layers.{i}."
    before, after = config.norm_place in ("pre", "both"), config.norm_place in ("post", "both")
    ln2 = layer + ("pre_feedforward_layernorm" if after else "post_attention_layernorm")
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *(norm(config, "blocks/ln1", layer + "input_layernorm") if before else []),
        *attention(config),
        *head_norms(config, **norms),
        *(norm(config, "blocks/ln1_post", layer + "post_attention_layernorm") if after else []),
        *(norm(config, "blocks/ln2", ln2) if before and not config.shared_norm else []),
        *(mlp or gated_mlp(config)),
        *(norm(config, "blocks/ln2_post", layer + "post_feedforward_layernorm") if after else []),
        *norm(config, "ln_final", "norm"),
        *head(config),
    )
