"""StarCoder2: LayerNorms, Llama's attention with biases and a window, and a plain MLP."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("residual_dropout", "embedding_dropout", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    hf.ignore("activation_function", "layer_norm_epsilon")  # its own code reads hidden_act and norm_epsilon
    for name, assumed in (("mlp_type", "default"), ("norm_type", "layer_norm"), ("scale_attn_weights", True)):
        hf.expect(name, assumed)
    shape = hf.shape(n_kv_heads=2, n_positions=4096, head_dim=0)
    bias = hf.take("use_bias", True)
    return DecoderConfig(
        model_type="starcoder2",
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("norm_epsilon", 1e-5),
        activation=hf.activation("hidden_act", "gelu_pytorch_tanh"),
        mlp_bias=bias,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        windows=hf.windows(shape["n_layers"]),
        qkv_bias=bias,
        attn_out_bias=bias,
        tied=hf.take("tie_word_embeddings", True),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    mlp = "layers.{i}.mlp."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "embed_tokens.weight"),
        *rows.norm(config, "blocks/ln1", "layers.{i}.input_layernorm"),
        *rows.attention(config),
        *rows.norm(config, "blocks/ln2", "layers.{i}.post_attention_layernorm"),
        *rows.mlp(config, w_in=mlp + "c_fc", w_out=mlp + "c_proj"),
        *rows.norm(config, "ln_final", "norm"),
        *rows.head(config),
    )
