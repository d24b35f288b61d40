"""The facts of a result, which say how it was made: the model, the devices, the time, the versions."""

import datetime
import itertools
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxconf.analysis.ablation import Ablation
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import leaves
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

    First come the facts that name the model or the models, `named` (by default those of `names`), then
    the shape of `lm`; then `own`, the facts of this kind of result; then the mesh, the time (of `timing`, for so many
    `pairs` of a token and a neuron), the versions and the device; last the facts that the caller has `given`. A later
    fact replaces an earlier one of the same name.
    """
    return {
        **(names(lm) if named is None else named),
        **accepted_facts(lm.accepted),
        **shape_facts(lm.config),
        "parameters": sum(math.prod(leaf.shape(lm.config)) for leaf in leaves(lm.config)),
        **own,
        "mesh": dict(lm.mesh.shape),
        **timing.facts(pairs),
        **made_with(),
        **(given or {}),
    }


def names(lm: LanguageModel) -> dict[str, str | None]:
    """A model and its revision; for an adapter also the base model that it was merged into."""
    base = {"base_model": lm.base.name, "base_revision": lm.base.revision} if lm.base else {}
    return {"model": lm.name, "revision": lm.revision, **base}


def accepted_facts(*accepted: Sequence[str]) -> dict[str, Any]:
    """The attributes of config.json that models `accepted`, if there are any."""
    names = list(dict.fromkeys(itertools.chain(*accepted)))
    return {"accepted": names} if names else {}


def shape_facts(config: DecoderConfig) -> dict[str, Any]:
    """The shape of a model; `layer` is its last layer, which is the measured one unless a later fact replaces it.

    Only mixtures have the facts about experts.
    """
    mixture = {"experts": list(config.experts), "experts_per_token": config.experts_per_token}
    return {
        "model_type": config.model_type,
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_neurons": config.d_mlp,
        **(mixture if config.experts else {}),
        "vocab_size": config.vocab_size,
        "layer": config.n_layers - 1,
    }


def ablation_facts(ablation: Ablation) -> dict[str, Any]:
    """The kind and the value of an ablation; the value is 0 for kinds that take none."""
    return {"ablation": ablation.kind, "ablation_value": ablation.value or 0.0}


def made_with() -> dict[str, Any]:
    """The versions of the software, the kind of device, and the current time."""
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
