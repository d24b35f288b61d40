"""Settings for all tests: eight virtual CPU devices for the tests of meshes, fast compilation, a cache of compiled
programs, and the path of the shared data.
"""

import functools
import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# jaxlib 0.10 still has an older loop compiler, which is faster; later versions exit at a flag that they do not know.
# Compiling one program on several threads would take longer, since each processor is already running tests.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
# Compiled programs are kept from one run to the next, and shared by all test processes and the processes they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# PyTorch's threads wait for each other in a loop, which with tiny models takes longer than their work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir
from matplotlib.figure import Figure
from matplotlib.image import imsave

from jaxconf.analysis import ablated_softmax, adaptive_softmax
from jaxconf.data import token_counts

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_traceback_in_locations_limit", 0)  # the source locations of operations are not used here
# One MLIR context for all programs: JAX makes a new one for each, which takes longer than lowering a small program.
mlir.make_ir_context = functools.cache(mlir.make_ir_context)
hypothesis.settings.register_profile("jaxconf", deadline=None)  # an example's time depends mostly on the machine
hypothesis.settings.load_profile("jaxconf")

SHARED = Path(__file__).parents[2] / "shared"
KEPT = 2 * 10**9  # bytes; a process that holds more drops its compiled programs
UNROLLED = {module: module.UNROLL for module in (ablated_softmax, adaptive_softmax)}
SAVE, DRAW = Figure.savefig, Figure.draw_without_rendering
BLANK = np.ones((2, 2, 3))  # a white picture


def pytest_collection_finish() -> None:
    """Run the garbage collector less often, and not over what is imported.

    Tracing makes many objects and hardly any garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data that are not part of the project; a test that asks for them is skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the shared material is not here")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """Drop the compiled programs after a test file if the process holds more than KEPT bytes.

    Otherwise the next test file can use them.
    """
    yield
    held = Path("/proc/self/statm")
    if not held.exists() or int(held.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") > KEPT:
        jax.clear_caches()


def compile_all(quickly: bool) -> None:
    """Set whether all programs are compiled quickly from now on, also in the processes that tests start."""
    jax.clear_caches()
    quickly_here = quickly and jax.default_backend() == "cpu"  # other backends' compilers hardly ever run that way
    jax.config.update("jax_disable_most_optimizations", quickly_here)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quickly_here))
    for module, unroll in UNROLLED.items():
        module.UNROLL = 2 if quickly else unroll  # shorter programs


@pytest.fixture(scope="session", autouse=True)
def compiled_quickly() -> None:
    """Compile programs quickly, without most optimizations: most programs run once, for a millisecond."""
    compile_all(quickly=True)


@pytest.fixture(scope="module")
def compiled_well(compiled_quickly: None) -> Iterator[None]:
    """For tests of compiled programs: compile with all optimizations, as for users."""
    compile_all(quickly=False)
    yield
    compile_all(quickly=True)


@pytest.fixture(scope="module")
def counted_quickly() -> Iterator[None]:
    """For tests in which a world's text or that of Python's library is counted: 10**5 characters of it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(token_counts, "COUNTED", 10**5)
        patched.setattr(token_counts.first_documents, "__defaults__", (10**5,))
        yield


@pytest.fixture(scope="module")
def drawn_quickly() -> Iterator[None]:
    """For tests that save many figures without checking how they look: each figure is made, but not drawn.

    A blank picture is saved in its place, and labels stand where no layout has been.
    """

    def save(figure: Figure, file: Any, *, format: str, **how: Any) -> None:
        imsave(file, BLANK, format=format)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        patched.setattr(Figure, "draw_without_rendering", lambda figure: None)
        yield


@pytest.fixture
def drawn_truly(drawn_quickly: None) -> Iterator[None]:
    """For the tests, beside those, that draw each figure."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", SAVE)
        patched.setattr(Figure, "draw_without_rendering", DRAW)
        yield
