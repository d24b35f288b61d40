"""Gemma: Llama with norms whose gain is 1 plus the parameter, and an embedding scaled by √d."""

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows

PREFIX = "model."


def config(hf: Attributes) -> DecoderConfig:
    hf.expect("use_bidirectional_attention", False)
    shape = hf.shape(n_kv_heads=16, n_positions=8192, head_dim=256)
    # The first releases say "gelu" and mean the tanh form, which the weights were trained with.
    activation = hf.activation("hidden_act", "gelu_pytorch_tanh", gelu="gelu_tanh")
    if hf.activation("hidden_activation", activation, gelu_tanh="gelu_tanh") != activation:
        raise InputError(
            "config.json sets 'hidden_act' and 'hidden_activation' to different functions, and versions of "
            "transformers differ in which of them they use; leave out the one that the model was not trained with"
        )
    return DecoderConfig(
        model_type="gemma",
        **shape,
        norm="rms",
        gain_offset=1.0,
        norm_eps=hf.take("rms_norm_eps", 1e-6),
        activation=activation,
        gated=True,
        rotary=hf.rotary(shape),
        attn_scale=shape["d_head"] ** -0.5,
        **hf.attention_biases(),
        embed_scale=shape["d_model"] ** 0.5,
        tied=hf.take("tie_word_embeddings", True),
    )


leaves = rows.llama
