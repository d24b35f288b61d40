"""The published selection, against its definition one neuron at a time; and the papers' k. Letters: n neuron."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxconf.analysis.selection import candidates, published_k, scaled_k
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import config_from_hf

SIZES = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
# What the models' own config.json say.
GPT2 = {"model_type": "gpt2", **SIZES}
PHI = {
    "model_type": "phi",
    "num_hidden_layers": 24,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 51200,
}
PYTHIA = {**PHI, "model_type": "gpt_neox", "num_attention_heads": 16, "vocab_size": 50304}
MISTRAL = {
    "model_type": "mistral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
}
LLAMA3 = {**MISTRAL, "model_type": "llama", "vocab_size": 128256}
LLAMA2 = {**MISTRAL, "model_type": "llama", "num_key_value_heads": 32, "intermediate_size": 11008}


def one_by_one(logit_var: np.ndarray, rho: np.ndarray, least_rho: float, count: int) -> list[int]:
    """The definition: again and again, the neuron of the lowest LogitVar that is left."""
    left = [n for n in range(len(rho)) if rho[n] >= least_rho and logit_var[n] == logit_var[n]]
    chosen: list[int] = []
    while left and len(chosen) < count:
        chosen.append(left.pop(min(range(len(left)), key=lambda i: (logit_var[left[i]], i))))
    return chosen


values = arrays(np.float64, 12, elements=st.sampled_from([np.nan, 0.1, 0.25, 0.4, 0.7, 1.0]))


@given(values, values, st.sampled_from([0.25, 0.4, 0.5]), st.integers(1, 14))
def test_candidates_are_those_of_the_definition(
    logit_var: np.ndarray, rho: np.ndarray, least_rho: float, count: int
) -> None:
    assert candidates(logit_var, rho, least_rho, count).tolist() == one_by_one(logit_var, rho, least_rho, count)


def test_a_planted_selection() -> None:
    logit_var = np.array([0.5, 0.1, np.nan, 0.2, 0.05, 0.3])
    rho = np.array([0.9, 0.4, 0.9, 0.8, 0.39, np.nan])
    assert candidates(logit_var, rho).tolist() == [1, 3, 0]
    assert candidates(logit_var, np.zeros(6)).tolist() == []
    many = np.linspace(1, 2, 30)
    assert candidates(many[::-1], many).tolist() == list(range(29, 19, -1))


@pytest.mark.parametrize(
    ("hf", "tighidet", "stolfo"),
    [
        (GPT2, 40, 11),
        (PHI, 48, None),
        (PYTHIA, 48, None),
        (MISTRAL, 96, None),
        (LLAMA3, 96, None),
        (LLAMA2, None, 40),
    ],
)
def test_the_papers_k(hf: dict, tighidet: int | None, stolfo: int | None) -> None:
    config = config_from_hf(hf)
    assert published_k(config) == tighidet
    assert published_k(config, "stolfo") == stolfo


@pytest.mark.parametrize("field", ["model_type", "n_layers", "d_model", "d_mlp", "vocab_size"])
def test_a_model_of_another_shape_has_none(field: str) -> None:
    config: DecoderConfig = config_from_hf(GPT2)
    other = "gpt_neo" if field == "model_type" else getattr(config, field) + 1
    assert published_k(dataclasses.replace(config, **{field: other})) is None


def test_k_of_other_models_is_the_same_share_of_the_width() -> None:
    assert [scaled_k(d) for d in (4096, 2048, 768, 64, 8)] == [96, 48, 18, 2, 1]
