"""How the positions of a group of windows are put into batches."""

from hypothesis import given
from hypothesis import strategies as st

from jaxconf.analysis.ablated_softmax import BLOCK_T
from jaxconf.measure.last_layer import rows_together


@given(st.integers(1, 10**5), st.integers(1, 10**4), st.booleans())
def test_batches_are_as_few_as_fit_and_have_whole_blocks(count: int, most: int, adaptive: bool) -> None:
    block = int(BLOCK_T)
    if most >= block:  # as `rows_at_once` says it
        most = most // block * block
    elif adaptive:
        most = 2 ** (most.bit_length() - 1)
    size = rows_together(count, most, adaptive)
    assert 1 <= size <= most
    assert -(-count // size) == -(-count // most)
    assert size % block == 0 or (size < block and (not adaptive or size.bit_count() == 1))
