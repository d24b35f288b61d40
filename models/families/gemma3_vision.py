"""Gemma 3's models that also read images: their text model, which is that of `gemma3_text`."""

import dataclasses

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import gemma3, rows

PREFIX = ("model.language_model.", "language_model.model.", "language_model.")
IGNORED = rows.VISION
SIZES = {  # that config.json leaves out where they are those of the 4B model
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "vocab_size": 262208,
}


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index")
    tied = hf.take("tie_word_embeddings", True)
    text = hf.text_model({**SIZES, "tie_word_embeddings": tied})
    return dataclasses.replace(gemma3.config(text), model_type="gemma3")


leaves = rows.llama
