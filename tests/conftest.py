"""Eight virtual CPU devices for the tests of meshes, and the way to the shared material."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data that are not part of the project; a test that asks for them is skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the shared material is not here")
    return SHARED
