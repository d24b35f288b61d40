"""Rows of the leaf table that several families share. Letters of the views: d width, h head, g key/value head, k head width, m neuron, v token."""

from jaxconf.models.config import DecoderConfig
from jaxconf.models.leaves import Leaf

ROTARY = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # the frequencies, stored by old versions


def norm(config: DecoderConfig, path: str, source: str) -> list[Leaf]:
    """Gain and bias of a norm of the stream; of all layers where the source names a layer."""
    axes = ("layers", "embed") if "{i}" in source else ("embed",)
    gain = Leaf(f"{path}/scale", axes, f"{source}.weight", init="zeros" if config.gain_offset else "ones")
    bias = Leaf(f"{path}/bias", axes, f"{source}.bias", init="zeros")
    return [gain] * config.norm_gain + [bias] * config.norm_bias


def attention(config: DecoderConfig, source: str = "layers.{i}.self_attn.", out: str = "o_proj") -> list[Leaf]:
    """Projections to and from the heads, a tensor each."""
    kv = ("layers", "embed", "kv_heads", "head_dim")
    rows = [
        Leaf("blocks/attn/wq", ("layers", "embed", "heads", "head_dim"), source + "q_proj.weight", "(h k) d -> d h k"),
        Leaf("blocks/attn/wk", kv, source + "k_proj.weight", "(g k) d -> d g k"),
        Leaf("blocks/attn/wv", kv, source + "v_proj.weight", "(g k) d -> d g k"),
        Leaf("blocks/attn/wo", ("layers", "heads", "head_dim", "embed"), f"{source}{out}.weight", "d (h k) -> h k d", init="residual"),
    ]
    if config.qkv_bias:
        rows += [
            Leaf("blocks/attn/bq", ("layers", "heads", "head_dim"), source + "q_proj.bias", "(h k) -> h k", init="zeros"),
            Leaf("blocks/attn/bk", ("layers", "kv_heads", "head_dim"), source + "k_proj.bias", "(g k) -> g k", init="zeros"),
            Leaf("blocks/attn/bv", ("layers", "kv_heads", "head_dim"), source + "v_proj.bias", "(g k) -> g k", init="zeros"),
        ]
    if config.attn_out_bias:
        rows.append(Leaf("blocks/attn/bo", ("layers", "embed"), f"{source}{out}.bias", init="zeros"))
    if config.qk_norm:
        rows += [Leaf(f"blocks/attn/{x}_norm", ("layers", "head_dim"), f"{source}{x}_norm.weight", init="ones") for x in "qk"]
    return rows


def mlp(config: DecoderConfig, **sources: str) -> list[Leaf]:
    """The MLP's projections: `w_in`, `w_out` and, if it is gated, `w_gate` name their modules."""
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


def head(config: DecoderConfig, source: str = "lm_head") -> list[Leaf]:
    """The unembedding, unless it is the embedding, and its bias."""
    weight = Leaf("unembed/w", ("embed", "vocab"), f"{source}.weight", "v d -> d v")
    bias = Leaf("unembed/b", ("vocab",), f"{source}.bias", init="zeros")
    return [weight] * (not config.tied) + [bias] * config.head_bias


def llama(config: DecoderConfig) -> tuple[Leaf, ...]:
    """The whole table in Llama's layout, which many families share."""
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *norm(config, "blocks/ln1", "layers.{i}.input_layernorm"),
        *attention(config),
        *([] if config.shared_norm else norm(config, "blocks/ln2", "layers.{i}.post_attention_layernorm")),
        *gated_mlp(config),
        *norm(config, "ln_final", "norm"),
        *head(config),
    )
