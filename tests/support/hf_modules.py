"""How transformers names the modules of its models, as the parity tests look for them."""

from typing import Any, NamedTuple


class Modules(NamedTuple):
    """The modules of a transformers model, those of a layer by their names within it."""

    embed: str = "model.embed_tokens"
    layers: str = "model.layers"
    ln_final: str = "model.norm"
    ln1: str = "input_layernorm"
    ln2: str = "post_attention_layernorm"
    attn: str = "self_attn"
    attn_out: str = "self_attn.o_proj"
    mlp_in: str = "mlp.gate_proj"
    mlp_out: str = "mlp.down_proj"
    positions: str = ""
    ln1_post: str = ""
    ln2_post: str = ""
    ln_embed: str = ""


GPT2 = Modules(
    "transformer.wte",
    "transformer.h",
    "transformer.ln_f",
    "ln_1",
    "ln_2",
    "attn",
    "attn.c_proj",
    "mlp.c_fc",
    "mlp.c_proj",
    "transformer.wpe",
)
NEOX = Modules(
    embed="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    ln_final="gpt_neox.final_layer_norm",
    attn="attention",
    attn_out="attention.dense",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
)
BLOOM = NEOX._replace(
    embed="transformer.word_embeddings",
    layers="transformer.h",
    ln_final="transformer.ln_f",
    attn="self_attention",
    attn_out="self_attention.dense",
)
LLAMA = Modules()
POST = LLAMA._replace(
    ln1_post="post_attention_layernorm", ln2_post="post_feedforward_layernorm", ln2="pre_feedforward_layernorm"
)
OPT = Modules(
    "model.decoder.embed_tokens",
    "model.decoder.layers",
    "model.decoder.final_layer_norm",
    "self_attn_layer_norm",
    "final_layer_norm",
    "self_attn",
    "self_attn.out_proj",
    "fc1",
    "fc2",
    "model.decoder.embed_positions",
)
TOWER = Modules("model.language_model.embed_tokens", "model.language_model.layers", "model.language_model.norm")
MIXTURE = LLAMA._replace(mlp_in="", mlp_out="mlp")
MODULES = {
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neo": GPT2._replace(attn="attn.attention", attn_out="attn.attention.out_proj"),
    "gptj": GPT2._replace(attn_out="attn.out_proj", mlp_in="mlp.fc_in", mlp_out="mlp.fc_out", positions=""),
    "gpt_neox": NEOX,
    "bloom": BLOOM._replace(ln_embed="transformer.word_embeddings_layernorm"),
    "falcon": BLOOM,
    "opt": OPT,
    "phi": LLAMA._replace(
        ln_final="model.final_layernorm", attn_out="self_attn.dense", mlp_in="mlp.fc1", mlp_out="mlp.fc2"
    ),
    "phi3": LLAMA._replace(mlp_in="mlp.gate_up_proj"),
    "starcoder2": LLAMA._replace(mlp_in="mlp.c_fc", mlp_out="mlp.c_proj"),
    "olmo2": POST,
    "gemma2": POST,
    "gemma3_text": POST,
    "gemma3": TOWER._replace(ln1_post=POST.ln1_post, ln2_post=POST.ln2_post, ln2=POST.ln2),
    "mistral3": TOWER,
    "olmo3": POST,
    "exaone4": POST,
    "glm4": LLAMA._replace(
        ln1_post="post_self_attn_layernorm", ln2_post="post_mlp_layernorm", mlp_in="mlp.gate_up_proj"
    ),
    "nemotron": LLAMA._replace(mlp_in="mlp.up_proj"),
    "persimmon": LLAMA._replace(
        ln_final="model.final_layernorm",
        attn_out="self_attn.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
    ),
    "codegen": GPT2._replace(attn_out="attn.out_proj", mlp_in="mlp.fc_in", mlp_out="mlp.fc_out", positions=""),
    "mpt": Modules(
        "transformer.wte",
        "transformer.blocks",
        "transformer.norm_f",
        "norm_1",
        "norm_2",
        "attn",
        "attn.out_proj",
        "ffn.up_proj",
        "ffn.down_proj",
    ),
    "xglm": OPT._replace(
        embed="model.embed_tokens",
        layers="model.layers",
        ln_final="model.layer_norm",
        positions="model.embed_positions",
    ),
    "mixtral": MIXTURE,
    "gpt_oss": MIXTURE,
    "olmoe": MIXTURE,
    "qwen2_moe": MIXTURE,
    "qwen3_moe": MIXTURE,
}


def modules_of(config: Any) -> Modules:
    modules = MODULES.get(config.model_type, LLAMA)
    if config.model_type == "falcon" and config.parallel and not config.shared_norm:
        return modules._replace(ln1="ln_attn", ln2="ln_mlp")
    return modules
