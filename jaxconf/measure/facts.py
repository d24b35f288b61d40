"""What results state of themselves: the model, the devices, the time, the programs."""

import datetime
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxconf.analysis.ablation import Ablation
from jaxconf.models.config import DecoderConfig
from jaxconf.models.language_model import LanguageModel
from jaxconf.runtime.timing import Timing
from jaxconf.runtime.version import __version__


def facts_of(
    lm: LanguageModel,
    own: Mapping[str, Any],
    timing: Timing,
    pairs: int,
    given: Mapping[str, Any] | None,
    named: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The facts of a result, JSON-able, in the order in which files and pages show them.

    `named`: which models these are (by default `model` and `revision` of `lm`). The shape of `lm` follows; then `own`,
    what this kind of result states; then the mesh, the time (`timing`, for so many `pairs` of a token and a neuron),
    the versions and the device; last what the caller has `given`, which replaces facts of the same name.
    """
    return {
        **({"model": lm.name, "revision": lm.revision} if named is None else named),
        **shape_facts(lm.config),
        **own,
        "mesh": dict(lm.mesh.shape),
        **timing.facts(pairs),
        **made_with(),
        **(given or {}),
    }


def shape_facts(config: DecoderConfig) -> dict[str, Any]:
    """The shape of a model, and its last layer, which is measured unless another fact says so."""
    return {
        "model_type": config.model_type,
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_neurons": config.d_mlp,
        "vocab_size": config.vocab_size,
        "layer": config.n_layers - 1,
    }


def ablation_facts(ablation: Ablation) -> dict[str, Any]:
    """A kind without a value has the value 0 here."""
    return {"ablation": ablation.kind, "ablation_value": ablation.value or 0.0}


def made_with() -> dict[str, Any]:
    """The versions of programs, the kind of device, and the time."""
    return {
        "versions": {
            "jaxconf": __version__,
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        "device": jax.devices()[0].device_kind,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
