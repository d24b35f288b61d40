"""What the tests of checkpoints begin with."""

from pathlib import Path

import cases
import jax
import pytest

from jaxconf.models.mesh import make_mesh


@pytest.fixture(scope="module")
def one() -> jax.sharding.Mesh:
    return make_mesh(data=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cases.build("gpt2", tmp_path / "model")
