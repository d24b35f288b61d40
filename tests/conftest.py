"""Eight virtual CPU devices for the tests of meshes, a cache of compiled programs, and the way to the shared material."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# jaxlib 0.10 also has an older compiler of loops, the faster one; later ones end at a flag they do not know.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# Kept from one run to the next, and shared by all processes that test and those that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest
from matplotlib.figure import Figure

from jaxconf.analysis import ablated_softmax, adaptive_softmax

jax.config.update("jax_num_cpu_devices", 8)
hypothesis.settings.register_profile("jaxconf", deadline=None)  # how long an example takes says more of the machine
hypothesis.settings.load_profile("jaxconf")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data that are not part of the project; a test that asks for them is skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the shared material is not here")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """Programs of one file are not kept for the next: together they take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """For tests that compile much: programs are shorter, and on a CPU compiled quickly rather than well.

    Also in the processes that tests start.
    """
    quickly = jax.default_backend() == "cpu"  # others' compilers are hardly ever run that way
    jax.config.update("jax_disable_most_optimizations", quickly)
    with pytest.MonkeyPatch.context() as patched:
        if quickly:
            patched.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        for module in (ablated_softmax, adaptive_softmax):
            patched.setattr(module, "UNROLL", 4)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def drawn_quickly() -> Iterator[None]:
    """For tests that save many figures without looking at them: with few pixels, and nothing moved to where it would fit."""
    whole = Figure.savefig

    def save(figure: Figure, file: Any, **how: Any) -> None:
        figure.set_layout_engine("none")
        whole(figure, file, **{**how, "dpi": 30})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        yield
