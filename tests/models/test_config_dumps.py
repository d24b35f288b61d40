"""Configs as people have them: saved in full by many versions of transformers, or with what other tools add."""

from typing import Any

import cases
import pytest
from config_dumps import dumps
from refusals import refused
from test_published import PUBLISHED

from jaxconf.models.attributes import IRRELEVANT
from jaxconf.models.families import FAMILIES, config_from_hf

GIVEN = {name: hf for name, (_, hf) in PUBLISHED.items()}
CASE = {hf["model_type"]: hf for hf in reversed(cases.CASES.values())}  # the first of each family


def test_every_version_of_transformers_saves_what_is_read_the_same() -> None:
    seen: dict[str, set[str]] = {}
    for version, name, dump in dumps(GIVEN):
        config = config_from_hf(dump)
        assert config.model_type == dump["model_type"], (version, name)
        if name in GIVEN:
            assert config == config_from_hf(GIVEN[name]), (version, name)
        seen.setdefault(name, set()).add(version)
    assert min(len(versions) for versions in seen.values()) >= 2
    assert len(seen["gpt2"]) == 7


# The function that each published config asks for, where it does not bear the name that the config uses.
MEANT = {
    "openai-community/gpt2": "gelu_tanh",
    "EleutherAI/pythia-410m": "gelu",
    "bigscience/bloom-560m": "gelu_tanh",
    "tiiuae/falcon-7b": "gelu",
    "microsoft/phi-2": "gelu_tanh",
    "google/gemma-2b": "gelu_tanh",  # saved as "gelu"
    "google/gemma-2-2b": "gelu_tanh",
    "google/gemma-3-1b-pt": "gelu_tanh",
    "bigcode/starcoderbase": "gelu",
    "bigcode/starcoder2-3b": "gelu_tanh",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_published_model_has_its_activation(name: str) -> None:
    assert config_from_hf(GIVEN[name]).activation == MEANT[name]


@pytest.mark.parametrize(
    ("values", "activation"),
    [
        ({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, "gelu_tanh"),
        ({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": None}, "gelu_tanh"),
        ({"hidden_act": "gelu_python"}, "gelu"),
        ({"hidden_act": "relu", "hidden_activation": "relu"}, "relu"),
    ],
)
def test_gemma_has_one_activation(values: dict[str, Any], activation: str) -> None:
    assert config_from_hf(CASE["gemma"] | values).activation == activation


# What does not change the outputs of a family that does not read it.
HARMLESS: dict[str, Any] = {
    "_attn_implementation": "flash_attention_2",
    "attn_implementation": "sdpa",
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_causal": True,
    "is_decoder": False,
    "max_window_layers": 21,
    "neftune_noise_alpha": 5.0,
    "pretraining_tp": 2,
    "pruned_heads": {},
    "transformers.js_config": {"dtype": "q4"},
    "use_sliding_window": False,
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_changes_nothing_is_read_over(model_type: str) -> None:
    hf = CASE[model_type] | {"sliding_window": None}
    config = config_from_hf(hf)
    harmless = HARMLESS | {"layer_types": ["full_attention"] * config.n_layers}
    if config.windows:  # GPT-Neo, whose windows are given otherwise; what else is said of windows is not understood
        harmless = {name: value for name, value in harmless.items() if "window" not in name and name != "layer_types"}
    assert config_from_hf(harmless | hf) == config
    assert config_from_hf(dict.fromkeys(IRRELEVANT - {"model_type", "pad_token_id"}, "x") | hf) == config


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("name", "value"),
    [("add_cross_attention", True), ("is_causal", False), ("pruned_heads", {"0": [1]}), ("attention_sinks", 4)],
)
def test_what_would_change_the_outputs_is_refused(model_type: str, name: str, value: Any) -> None:
    refused_config({**CASE[model_type], name: value}, repr(name))


def refused_config(hf: dict[str, Any], *parts: str) -> None:
    # The sentence begins with the name of the file.
    message = refused(lambda: config_from_hf(hf), *parts)
    assert message.startswith(("config.json", "the rotary settings"))


@pytest.mark.parametrize(
    ("model_type", "values", "parts"),
    [
        ("gpt_neox", {"rotary_pct": 0.25, "partial_rotary_factor": 0.5}, ["'partial_rotary_factor'", "0.25"]),
        ("gpt_neox", {"rotary_emb_base": 500, "rope_theta": 10000.0}, ["'rope_theta'", "500"]),
        ("gpt_neox", {"head_dim": 3}, ["'head_dim'", "only 12"]),
        ("llama", {"sliding_window": 16}, ["'sliding_window' to 16"]),
        ("llama", {"layer_types": ["sliding_attention", "full_attention"]}, ["'layer_types'", "sliding_attention"]),
        ("llama", {"sliding_window": 16, "use_sliding_window": True}, ["'sliding_window'", "'use_sliding_window'"]),
        ("mistral", {"use_sliding_window": False}, ["'use_sliding_window' to False"]),
        ("gemma", {"hidden_act": "gelu", "hidden_activation": "gelu"}, ["'hidden_act'", "'hidden_activation'"]),
    ],
)
def test_attributes_that_contradict_each_other(model_type: str, values: dict[str, Any], parts: list[str]) -> None:
    refused_config(CASE[model_type] | values, *parts)


def test_gpt_neox_saved_under_both_names() -> None:
    hf = CASE["gpt_neox"] | {"rotary_pct": 0.5, "rotary_emb_base": 500}
    both = hf | {"partial_rotary_factor": 0.5, "rope_theta": 500}
    assert config_from_hf(both) == config_from_hf(hf)
    # A version that does not know rope_parameters saves its own defaults beside them.
    nested = CASE["gpt_neox"] | {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}}
    stale = {"rotary_emb_base": 10000, "rope_theta": 10000, "rotary_pct": 0.25, "partial_rotary_factor": 0.25}
    assert config_from_hf(nested | stale) == config_from_hf(hf)


@pytest.mark.parametrize("model_type", ["qwen2", "phi", "phi3", "smollm3", "starcoder2", "mistral", "cohere"])
def test_heads_of_another_width(model_type: str) -> None:
    assert config_from_hf(CASE[model_type] | {"head_dim": 24}).d_head == 24


def test_what_transformers_ignores_in_rotary_settings() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
    hf = CASE["llama"]
    plain = config_from_hf(hf | {"rope_scaling": yarn})
    assert config_from_hf(hf | {"rope_scaling": yarn | {"finetuned": True, "attn_factor": 3.0}}) == plain
    assert config_from_hf(hf | {"rope_scaling": yarn | {"attention_factor": 3.0}}) != plain
