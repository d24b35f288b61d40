"""The same tables on every mesh as on one device, and no large array that is gathered. Eight virtual devices: see conftest.py."""

import functools

import jax
import numpy as np
import pandas as pd
import pytest
from test_analyze import random_model, windows_for

from jaxconf import measure
from jaxconf.mesh import make_mesh, sharding
from jaxconf.models.families import leaves
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.leaves import nest

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MESHES = [(data, model) for data in (1, 2, 4, 8) for model in (1, 2, 4, 8) if 1 < data * model <= 8]


def on_mesh(lm: LanguageModel, data: int, model: int) -> LanguageModel:
    mesh = make_mesh(data, model)
    placed = {}
    for leaf in leaves(lm.config):
        array = functools.reduce(lambda branch, name: branch[name], leaf.path.split("/"), lm.params)
        placed[leaf.path] = jax.device_put(array, sharding(mesh, leaf.axes, array.shape))
    return LanguageModel(lm.config, nest(placed.items()), lm.name, None, lm.folder, lm.hf_config)


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert list(ours) == list(theirs)
    for column in theirs:
        off = 1e-3 if "mediated" in column else 1e-5  # a share divides by the effect, and with it its rounding
        np.testing.assert_allclose(ours[column], theirs[column], atol=off, rtol=1e-5, err_msg=column)


@functools.cache
def table(kind: str, data: int, model: int) -> measure.NeuronTable:
    lm = random_model(kind)
    engine = "adaptive" if kind.startswith("large") else "exact"
    return measure.analyze(on_mesh(lm, data, model), windows_for(lm, count=5), engine=engine, bootstrap_draws=20)


@pytest.mark.parametrize("kind", ["layer", "large", "capped"])
@pytest.mark.parametrize("mesh", MESHES)
def test_last_layer(kind: str, mesh: tuple[int, int]) -> None:
    ours, alone = table(kind, *mesh), table(kind, 1, 1)
    same(ours.frame, alone.frame)
    same(ours.positions, alone.positions)
