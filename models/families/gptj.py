"""GPT-J: parallel attention and MLP after one LayerNorm, rotary pairs of neighbouring entries, a bias on the logits."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import gpt2, rows
from jaxconf.models.frequencies import Rotary, geometric
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."


def config(hf: Attributes, model_type: str = "gptj") -> DecoderConfig:
    hf.expect("rotary", True)
    hf.expect("scale_attn_weights", True)
    shape = gpt2.shape(hf, n_layers=28, d_model=4096, n_heads=16, vocab_size=50400, n_positions=2048)
    return DecoderConfig(
        model_type=model_type,
        **shape,
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation_function", "gelu_new"),
        parallel=True,
        shared_norm=True,
        mlp_bias=True,
        rotary=Rotary(tuple(geometric(hf.take("rotary_dim", 64), 10000.0).tolist()), pairs=True),
        attn_scale=shape["d_head"] ** -0.5,
        head_bias=True,
        tied=hf.take("tie_word_embeddings", False),
    )


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    return table(config, rows.attention(config, "h.{i}.attn.", "out_proj"))


def table(config: DecoderConfig, attention: list[Leaf]) -> tuple[Leaf, ...]:
    """The leaf table with these rows of attention."""
    h = "h.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "wte.weight"),
        *rows.norm(config, "blocks/ln1", h + "ln_1"),
        *attention,
        *rows.mlp(config, w_in=h + "mlp.fc_in", w_out=h + "mlp.fc_out"),
        *rows.norm(config, "ln_final", "ln_f"),
        *rows.head(config),
    )
