"""jaxconf finds, measures and explains the neurons with which a language model regulates its own confidence.

    import jaxconf
    lm = jaxconf.load("openai-community/gpt2")
    windows = jaxconf.windows(jaxconf.documents("stdlib"), lm.tokenizer, n_tokens=4096)
    table = jaxconf.analyze(lm, windows)

Each export is imported when it is first used, so that `import jaxconf` itself is fast.
"""

import functools
import importlib
from typing import TYPE_CHECKING, Any

from jaxconf.runtime.version import __version__ as __version__

# Each line is one export. Type checkers and editors read these imports; at run time `_homes` parses this file for them.
if TYPE_CHECKING:
    from jaxconf.analysis.ablation import Ablation as Ablation
    from jaxconf.data.documents import documents as documents
    from jaxconf.data.own_text import source_for as source_for
    from jaxconf.data.questions import read_questions as read_questions
    from jaxconf.data.statements import read_statements as read_statements
    from jaxconf.data.token_counts import count_tokens as count_tokens
    from jaxconf.data.token_counts import read_counts as read_counts
    from jaxconf.data.windows import kept_positions as kept_positions
    from jaxconf.data.windows import windows as windows
    from jaxconf.data.worlds import world_of as world_of
    from jaxconf.measure.analyze import analyze as analyze
    from jaxconf.measure.neuron_sets import ablate_sets as ablate_sets
    from jaxconf.measure.neuron_sets import per_token as per_token
    from jaxconf.measure.optimum import beside_optimum as beside_optimum
    from jaxconf.measure.options import AnalyzeOptions as AnalyzeOptions
    from jaxconf.measure.run import run as run
    from jaxconf.measure.unigram import unigram as unigram
    from jaxconf.measure.weights import weight_statistics as weight_statistics
    from jaxconf.models.errors import InputError as InputError
    from jaxconf.models.language_model import BUNDLED as BUNDLED
    from jaxconf.models.language_model import LanguageModel as LanguageModel
    from jaxconf.models.language_model import load as load
    from jaxconf.models.mesh import make_mesh as make_mesh
    from jaxconf.models.sites import Ablate as Ablate
    from jaxconf.models.sites import Add as Add
    from jaxconf.models.sites import AddFrom as AddFrom
    from jaxconf.models.sites import Dropout as Dropout
    from jaxconf.models.sites import Replace as Replace
    from jaxconf.models.sites import Scale as Scale
    from jaxconf.models.supported import supported as supported
    from jaxconf.report.run import draw as draw
    from jaxconf.results.exports import export as export
    from jaxconf.results.neuron_table import NeuronTable as NeuronTable
    from jaxconf.results.publish import pull as pull
    from jaxconf.results.publish import push as push
    from jaxconf.results.rules import Rules as Rules
    from jaxconf.studies.carry.study import carry as carry
    from jaxconf.studies.comparison.study import compare as compare
    from jaxconf.studies.copying.study import copying as copying
    from jaxconf.studies.induction.study import induction as induction
    from jaxconf.studies.steering.study import steer as steer
    from jaxconf.studies.tasks.study import tasks as tasks
    from jaxconf.studies.universal.study import universal as universal
    from jaxconf.sweeps.plan import plan as plan
    from jaxconf.sweeps.report import sweep_report as sweep_report
    from jaxconf.sweeps.run import sweep as sweep
    from jaxconf.sweeps.run import sweep_status as sweep_status
    from jaxconf.training.config import PRESETS as PRESETS
    from jaxconf.training.config import TrackConfig as TrackConfig
    from jaxconf.training.config import TrainConfig as TrainConfig
    from jaxconf.training.emergence import Emergence as Emergence
    from jaxconf.training.grid import grid as grid
    from jaxconf.training.run import train as train
    from jaxconf.training.track import track as track


@functools.cache
def _homes() -> dict[str, str]:
    """Name of an export → the module that defines it."""
    import ast
    from pathlib import Path

    nodes = ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    if name not in _homes():
        raise AttributeError(f"module 'jaxconf' has no attribute {name!r}")
    return getattr(importlib.import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
