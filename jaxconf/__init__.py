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
    from jaxconf.comparison import compare_models
    from jaxconf.context_copying import copying
    from jaxconf.emergence import Emergence
    from jaxconf.measure import analyze, weight_statistics
    from jaxconf.mesh import make_mesh
    from jaxconf.models.errors import InputError
    from jaxconf.models.language_model import LanguageModel, load
    from jaxconf.models.sites import Ablate, Add, Dropout, Replace, Scale
    from jaxconf.repeated_text import induction
    from jaxconf.revisions import track_revisions
    from jaxconf.run import BUNDLED
    from jaxconf.sets import ablate_sets, per_token
    from jaxconf.statements import read_statements
    from jaxconf.studies import study
    from jaxconf.table import NeuronTable, Rules
    from jaxconf.text import count_tokens, documents, kept_positions, read_counts, windows
    from jaxconf.train_config import PRESETS, TrackConfig, TrainConfig
    from jaxconf.train_run import train
    from jaxconf.universality import universal

__version__ = "0.1.0"

_HOMES = {
    "BUNDLED": "jaxconf.run",
    "Ablate": "jaxconf.models.sites",
    "Add": "jaxconf.models.sites",
    "Dropout": "jaxconf.models.sites",
    "Emergence": "jaxconf.emergence",
    "InputError": "jaxconf.models.errors",
    "LanguageModel": "jaxconf.models.language_model",
    "NeuronTable": "jaxconf.table",
    "PRESETS": "jaxconf.train_config",
    "Replace": "jaxconf.models.sites",
    "Rules": "jaxconf.table",
    "Scale": "jaxconf.models.sites",
    "TrackConfig": "jaxconf.train_config",
    "TrainConfig": "jaxconf.train_config",
    "ablate_sets": "jaxconf.sets",
    "analyze": "jaxconf.measure",
    "compare_models": "jaxconf.comparison",
    "copying": "jaxconf.context_copying",
    "count_tokens": "jaxconf.text",
    "documents": "jaxconf.text",
    "induction": "jaxconf.repeated_text",
    "kept_positions": "jaxconf.text",
    "load": "jaxconf.models.language_model",
    "make_mesh": "jaxconf.mesh",
    "per_token": "jaxconf.sets",
    "read_counts": "jaxconf.text",
    "read_statements": "jaxconf.statements",
    "study": "jaxconf.studies",
    "track_revisions": "jaxconf.revisions",
    "train": "jaxconf.train_run",
    "universal": "jaxconf.universality",
    "weight_statistics": "jaxconf.measure",
    "windows": "jaxconf.text",
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
