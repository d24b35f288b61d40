"""jaxconf finds, measures and explains the neurons with which a language model regulates its own confidence.

    import jaxconf
    lm = jaxconf.load("openai-community/gpt2")
    tokens = jaxconf.windows(jaxconf.documents("stdlib"), lm.tokenizer, n_tokens=4096)
    table = jaxconf.analyze(lm, tokens)

Exports are read on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxconf.data.documents import documents
    from jaxconf.data.statements import read_statements
    from jaxconf.data.token_counts import count_tokens, read_counts
    from jaxconf.data.windows import kept_positions, windows
    from jaxconf.measure.analyze import analyze, weight_statistics
    from jaxconf.measure.neuron_sets import ablate_sets, per_token
    from jaxconf.models.errors import InputError
    from jaxconf.models.language_model import BUNDLED, LanguageModel, load
    from jaxconf.models.mesh import make_mesh
    from jaxconf.models.sites import Ablate, Add, Dropout, Replace, Scale
    from jaxconf.results.neuron_table import NeuronTable
    from jaxconf.results.rules import Rules
    from jaxconf.studies.comparison.study import compare_models
    from jaxconf.studies.copying.study import copying
    from jaxconf.studies.induction.study import induction
    from jaxconf.studies.universal.study import universal
    from jaxconf.training.config import PRESETS, TrackConfig, TrainConfig
    from jaxconf.training.emergence import Emergence
    from jaxconf.training.grid import study
    from jaxconf.training.revisions import track_revisions
    from jaxconf.training.run import train

from jaxconf.runtime.version import __version__ as __version__

_HOMES = {
    "BUNDLED": "jaxconf.models.language_model",
    "Ablate": "jaxconf.models.sites",
    "Add": "jaxconf.models.sites",
    "Dropout": "jaxconf.models.sites",
    "Emergence": "jaxconf.training.emergence",
    "InputError": "jaxconf.models.errors",
    "LanguageModel": "jaxconf.models.language_model",
    "NeuronTable": "jaxconf.results.neuron_table",
    "PRESETS": "jaxconf.training.config",
    "Replace": "jaxconf.models.sites",
    "Rules": "jaxconf.results.rules",
    "Scale": "jaxconf.models.sites",
    "TrackConfig": "jaxconf.training.config",
    "TrainConfig": "jaxconf.training.config",
    "ablate_sets": "jaxconf.measure.neuron_sets",
    "analyze": "jaxconf.measure.analyze",
    "compare_models": "jaxconf.studies.comparison.study",
    "copying": "jaxconf.studies.copying.study",
    "count_tokens": "jaxconf.data.token_counts",
    "documents": "jaxconf.data.documents",
    "induction": "jaxconf.studies.induction.study",
    "kept_positions": "jaxconf.data.windows",
    "load": "jaxconf.models.language_model",
    "make_mesh": "jaxconf.models.mesh",
    "per_token": "jaxconf.measure.neuron_sets",
    "read_counts": "jaxconf.data.token_counts",
    "read_statements": "jaxconf.data.statements",
    "study": "jaxconf.training.grid",
    "track_revisions": "jaxconf.training.revisions",
    "train": "jaxconf.training.run",
    "universal": "jaxconf.studies.universal.study",
    "weight_statistics": "jaxconf.measure.analyze",
    "windows": "jaxconf.data.windows",
}

__all__ = [
    "BUNDLED",
    "PRESETS",
    "Ablate",
    "Add",
    "Dropout",
    "Emergence",
    "InputError",
    "LanguageModel",
    "NeuronTable",
    "Replace",
    "Rules",
    "Scale",
    "TrackConfig",
    "TrainConfig",
    "ablate_sets",
    "analyze",
    "compare_models",
    "copying",
    "count_tokens",
    "documents",
    "induction",
    "kept_positions",
    "load",
    "make_mesh",
    "per_token",
    "read_counts",
    "read_statements",
    "study",
    "track_revisions",
    "train",
    "universal",
    "weight_statistics",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxconf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
