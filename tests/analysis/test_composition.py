"""Composition of neurons: strongest cosines against the whole matrix, and read directions against the model.

Letters: n writing neuron, m reading neuron, d width, t position.
"""

import numpy as np
import pytest
from parameters import marked
from random_models import random_model

from jaxconf.analysis.composition import BLOCK, cosines_of_pairs, reads, strongest

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_the_strongest_cosines_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(0)
    writes = rng.standard_normal((BLOCK + 300, 6)).astype(np.float32)
    read = rng.standard_normal((41, 6)).astype(np.float32)
    writes[5] = 0
    lengths = np.linalg.norm(writes, axis=1)[:, None] * np.linalg.norm(read, axis=1)
    cosine = writes @ read.T / np.where(lengths > 0, lengths, 1)
    found = strongest(writes, read)
    every, each = np.arange(len(writes)), np.arange(41)
    np.testing.assert_allclose(found.write_cosine, cosine[every, np.abs(cosine).argmax(1)], atol=1e-5)
    np.testing.assert_allclose(np.abs(cosine[every, found.reader]), np.abs(cosine).max(1), atol=1e-5)
    np.testing.assert_allclose(found.read_cosine, cosine[np.abs(cosine).argmax(0), each], atol=1e-5)
    np.testing.assert_allclose(np.abs(cosine[found.writer, each]), np.abs(cosine).max(0), atol=1e-5)
    pairs = rng.integers(0, len(writes), 20), rng.integers(0, 41, 20)
    np.testing.assert_allclose(cosines_of_pairs(writes, read, *pairs), cosine[pairs], atol=1e-5)


@pytest.mark.parametrize(
    "kind", marked(["layer", "gemma2", "olmo2", "neox", "gptj", "llama"], quick=["layer", "gemma2", "olmo2"])
)
def test_a_neuron_reads_along_its_direction(kind: str) -> None:
    """What enters the nonlinearity is ⟨stream, direction⟩/σ, up to a constant that the biases give."""
    lm = random_model(kind)
    tokens = np.random.default_rng(1).integers(1, lm.config.vocab_size, (2, 20))
    norm = {"olmo2": None, "gptj": "ln1"}.get(kind, "ln2")
    stream = f"blocks.1.hook_resid_{'pre' if lm.config.parallel else 'mid'}"
    sites = [stream, "blocks.1.mlp.hook_pre", *([f"blocks.1.{norm}.hook_scale"] if norm else [])]
    x, pre, *scale = (np.asarray(lm.apply(tokens, capture=sites).captured[site], np.float64) for site in sites)
    read = x @ np.asarray(reads(lm.config, lm.params, 1), np.float64).T / (scale[0] if scale else 1)
    apart = pre - read
    np.testing.assert_allclose(apart, np.broadcast_to(apart[:1, :1], apart.shape), atol=2e-4)
    assert read.std() > 0.1
