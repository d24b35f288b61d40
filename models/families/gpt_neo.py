"""GPT-Neo: GPT-2 with matrices stored as [out, in], scores that are not scaled, and a window in every other layer."""

import itertools

from jaxconf.models.attributes import MOST_LAYERS, Attributes
from jaxconf.models.config import NO_WINDOW, DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import rows
from jaxconf.models.leaves import Leaf

PREFIX = "transformer."


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("resid_dropout", "embed_dropout", "attention_layers")  # attention_layers follows from attention_types
    d_model, n_heads, n_layers = hf.take("hidden_size", 2048), hf.take("num_heads", 16), hf.take("num_layers", 24)
    d_head = hf.split(d_model, n_heads)
    return DecoderConfig(
        model_type="gpt_neo",
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        d_mlp=hf.take("intermediate_size", 4 * d_model),
        vocab_size=hf.take("vocab_size", 50257),
        n_positions=hf.take("max_position_embeddings", 2048),
        norm="layer",
        norm_bias=True,
        norm_eps=hf.take("layer_norm_epsilon", 1e-5),
        activation=hf.activation("activation_function", "gelu_new"),
        learned_positions=True,
        attn_scale=1.0,
        windows=_windows(hf, n_layers),
        attn_out_bias=True,
        mlp_bias=True,
        tied=hf.take("tie_word_embeddings", True),
    )


def _windows(hf: Attributes, n_layers: int) -> tuple[int, ...]:
    types, size = hf.take("attention_types", [[["global", "local"], 12]]), hf.take("window_size", 256)
    fits = sum(len(pattern) * times for pattern, times in types) == n_layers <= MOST_LAYERS
    kinds = list(itertools.chain.from_iterable(pattern * times for pattern, times in types)) if fits else []
    if not kinds or not {*kinds} <= {"global", "local"}:
        raise InputError(
            f"config.json sets attention_types to {types!r}; give global or local for each of {n_layers} layers"
        )
    return tuple(size if kind == "local" else NO_WINDOW for kind in kinds) if "local" in kinds else ()


def leaves(config: DecoderConfig) -> tuple[Leaf, ...]:
    h = "h.{i}."
    return (
        Leaf("embed/tokens", ("vocab", "embed"), "wte.weight"),
        Leaf("embed/positions", ("positions", "embed"), "wpe.weight"),
        *rows.norm(config, "blocks/ln1", h + "ln_1"),
        *rows.attention(config, h + "attn.attention.", "out_proj"),
        *rows.norm(config, "blocks/ln2", h + "ln_2"),
        *rows.mlp(config, w_in=h + "mlp.c_fc", w_out=h + "mlp.c_proj"),
        *rows.norm(config, "ln_final", "ln_f"),
        *rows.head(config),
    )
