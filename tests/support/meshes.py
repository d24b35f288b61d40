"""Meshes of the virtual devices, models on them, and what may differ between one mesh and another."""

import functools
import re

import jax
import numpy as np
import pandas as pd

from jaxconf.models.families import leaves
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import nest
from jaxconf.models.mesh import make_mesh, sharding

MESHES = [(data, model) for data in (1, 2, 4, 8) for model in (1, 2, 4, 8) if 1 < data * model <= 8]

ACROSS = [
    *(("layer", mesh) for mesh in MESHES),
    *((kind, mesh) for kind in ("rms", "capped") for mesh in ((2, 4), (4, 1))),
]


def on_mesh(lm: LanguageModel, data: int, model: int) -> LanguageModel:
    mesh = make_mesh(data, model)
    placed = {}
    for leaf in leaves(lm.config):
        array = functools.reduce(lambda branch, name: branch[name], leaf.path.split("/"), lm.params)
        placed[leaf.path] = jax.device_put(np.asarray(array), sharding(mesh, leaf.axes, array.shape))
    return LanguageModel(lm.config, nest(placed.items()), lm.name, None, lm.folder, lm.hf_config)


def gathered(compiled: jax.stages.Compiled) -> int:
    """Entries of the largest array that comes of an all-gather."""
    sizes = [0]
    for shapes in re.findall(r"= (.*?) all-gather(?:-start)?\(", compiled.as_text()):
        sizes += [
            int(np.prod([int(size) for size in shape.split(",") if size]))
            for shape in re.findall(r"\[([\d,]*)\]", shapes)
        ]
    return max(sizes)


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert list(ours) == list(theirs)
    for column in theirs:
        np.testing.assert_allclose(ours[column], theirs[column], atol=off_by(column), rtol=1e-5, err_msg=column)


def agree(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    numbers = theirs.select_dtypes("number")
    pd.testing.assert_frame_equal(ours.drop(columns=numbers), theirs.drop(columns=numbers))
    for column in numbers:
        np.testing.assert_allclose(ours[column], theirs[column], atol=off_by(column), rtol=1e-4, err_msg=column)


def off_by(column: str) -> float:
    if column in ("temperature", "explained"):  # the minimum of a flat curve
        return 2e-2
    if column.endswith("_p"):  # a rank among 200 nulls, which may turn on rounding
        return 1 / 200
    # A share divides by the effect, and with it its rounding; a rank may turn on a tie between tokens that are equally
    # likely.
    return 1e-3 if "mediated" in column or column.startswith(("rr_", "top1_")) else 1e-5
