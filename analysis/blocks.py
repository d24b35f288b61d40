"""The sizes of the blocks that the engines work on. They depend on the backend, and change no result but by rounding.

Letters: t position, n neuron, v vocabulary; U tokens that are summed in one elementwise loop, so that the loop has all
of them in its body. A cell is a pair (t, n).
"""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The sizes for a backend."""

    predicted: int  # rows of logits whose predictions are measured together
    exact_t: int  # positions of a tile of the exact engine
    exact_n: int  # neurons of it
    exact_v: int  # tokens whose sums have one total, to which the totals of the other blocks are added
    exact_unroll: int  # U of it
    adaptive_t: int  # positions of a block of the adaptive engine
    adaptive_v: int  # tokens whose share in the tail's sums is formed together
    adaptive_unroll: int  # U of it
    matrix: int  # entries of M that are held at once,
    lanes: int  # but at least those of so many neurons
    cells: int  # cells of a tile of the heads
    pairs: int  # cells that are computed again together,
    abreast: int  # and how many tokens of each are summed side by side; a power of 2
    set_v: int  # tokens of a block of the sums of neuron sets, at most 2^11 (see `jaxconf.analysis.set_effects`)
    set_cells: int  # positions × sets that are summed together where the layers above are run again


# Tuned by scripts/tune_blocks.py on two cores. Of what gained more than 5%, only set_v was confirmed in a second run.
CPU = Blocks(
    predicted=16,  # XLA's sums over more logits take several times as long, and are less exact
    exact_t=256,
    exact_n=64,
    exact_v=1024,
    exact_unroll=16,  # programs with 32 run as fast, but take a fifth longer to compile
    adaptive_t=256,
    adaptive_v=2048,
    adaptive_unroll=16,  # programs with 32 run as fast, but take a third longer to compile
    matrix=2**25,
    lanes=256,
    cells=2**14,
    pairs=64,
    abreast=128,
    set_v=256,
    set_cells=1024,
)
# Not measured. A tile has half as many cells as a large GPU runs threads, because an accelerator is idle in smaller
# ones. Loops are shorter, because compilers for accelerators take long for large bodies. As many sets are run together
# as the memory allows.
ACCELERATOR = dataclasses.replace(
    CPU,
    predicted=2**62,
    exact_n=512,
    exact_unroll=8,
    adaptive_unroll=8,
    cells=2**17,
    pairs=1024,
    set_v=1024,
    set_cells=2**62,
)
ROWS = {"cpu": CPU, "gpu": ACCELERATOR, "tpu": ACCELERATOR}


class Size:
    """A field of the backend's row. `int(size)` reads it, while a program is traced: importing starts no backend."""

    def __init__(self, field: str):
        self.field = field

    def __int__(self) -> int:
        return getattr(ROWS.get(jax.default_backend(), ACCELERATOR), self.field)
