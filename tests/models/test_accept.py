"""Attributes of config.json that a user vouches for."""

import json
from pathlib import Path
from typing import Any

import cases
import jax
import pytest
from refusals import check_error

import jaxconf
from jaxconf.models.errors import InputError
from jaxconf.models.families import accepted, config_from_hf

LLAMA = cases.CASES["llama"]
OTHER = {"mup_base": 256, "note": {"by": ["us"]}}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "beta_mid": 7}


@pytest.mark.parametrize(
    "accept", ["mup_base,note", ["mup_base", "note"], ["note,mup_base"], ("note", "mup_base", "note")]
)
def test_what_is_accepted_changes_nothing(accept: Any) -> None:
    assert config_from_hf(LLAMA | OTHER, accept) == config_from_hf(LLAMA)


@pytest.mark.parametrize(
    ("values", "accept", "parts"),
    [
        (OTHER, (), ["'mup_base' to 256", "'note' to {'by': ['us']}", "llama model", "--accept mup_base,note"]),
        (OTHER, "note", ["'mup_base' to 256", "take it with --accept mup_base "]),
        ({"rope_scaling": YARN}, (), ["'rope_scaling.beta_mid' to 7", "--accept rope_scaling.beta_mid"]),
        ({"rope_scaling": YARN}, "beta_mid", ["no attribute 'beta_mid'"]),
        ({}, "mup_base", ["no attribute 'mup_base'"]),
        ({}, ["hidden_size"], ["does not need 'hidden_size'", "leave it out"]),
        ({"use_cache": True}, "use_cache", ["does not need 'use_cache'"]),
        ({"rope_scaling": YARN}, "rope_scaling.beta_mid,rope_scaling.factor", ["'rope_scaling.factor'"]),
        ({"mlp_bias": "x"}, "mlp_bias", ["does not need"]),
        ({"sliding_window": 8}, (), ["'sliding_window' to 8"]),
        ({"long": list(range(99))}, (), ["'long' to [0, 1, 2,", "…, which"]),
    ],
)
def test_what_is_not_accepted(values: dict[str, Any], accept: Any, parts: list[str]) -> None:
    check_error(lambda: config_from_hf(LLAMA | values, accept), "config.json", *parts)


def test_rotary_settings_are_accepted() -> None:
    plain = {name: value for name, value in YARN.items() if name != "beta_mid"}
    found = config_from_hf(LLAMA | {"rope_scaling": YARN}, "rope_scaling.beta_mid")
    assert found == config_from_hf(LLAMA | {"rope_scaling": plain})
    gemma = cases.CASES["gemma3-capped"]
    nested = gemma["rope_parameters"] | {"full_attention": gemma["rope_parameters"]["full_attention"] | {"mid": 1}}
    name = "rope_parameters.full_attention.mid"
    assert config_from_hf(gemma | {"rope_parameters": nested}, name) == config_from_hf(gemma)


def test_several_models_accept_what_they_have() -> None:
    neox = cases.CASES["neox"]
    configs = [LLAMA | OTHER, neox | {"note": 1}, neox]
    assert accepted(configs, "note,mup_base") == [("note", "mup_base"), ("note",), ()]
    check_error(lambda: accepted(configs, "other"), "none of 3 config.json", "'other'")
    check_error(lambda: accepted(configs, "vocab_size"), "none of 3 config.json", "'vocab_size'")


def test_a_loaded_model_says_what_it_accepted(folder: Path, one: jax.sharding.Mesh) -> None:
    plain = jaxconf.load(folder, mesh=one)
    (folder / "config.json").write_text(json.dumps(plain.hf_config | OTHER))
    with pytest.raises(InputError, match="--accept mup_base,note"):
        jaxconf.load(folder, mesh=one)
    lm = jaxconf.load(folder, mesh=one, accept=["mup_base", "note"])
    assert (lm.config, lm.accepted) == (plain.config, ("mup_base", "note"))
    assert plain.accepted == ()
