"""Mistral Small 3.1, Ministral 3 and others that also read images: their text model, a `mistral` or a `ministral3`."""

import dataclasses

from jaxconf.models.attributes import Attributes
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import ministral3, mistral, rows

PREFIX = ("model.language_model.", "language_model.model.", "language_model.")
IGNORED = rows.VISION
TEXT = {"mistral": mistral, "ministral3": ministral3}


def config(hf: Attributes) -> DecoderConfig:
    hf.ignore("vision_config", "image_token_index", "projector_hidden_act", "vision_feature_layer")
    hf.ignore("multimodal_projector_bias", "spatial_merge_size")
    tied = hf.take("tie_word_embeddings", False)
    text = hf.text_model({"model_type": "mistral", "tie_word_embeddings": tied})
    kind = text.model_type
    if kind not in TEXT:
        raise InputError(
            f"text_config of config.json has the model_type {kind!r}, but in a mistral3 only {' and '.join(TEXT)} are "
            "supported; use another model"
        )
    return dataclasses.replace(TEXT[kind].config(text), model_type="mistral3")


leaves = rows.llama
