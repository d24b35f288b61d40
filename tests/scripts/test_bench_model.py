"""What the benchmark of a model's last layer times, by default on the model's own text."""

import bench_effects
import bench_model
import numpy as np
import pytest

import jaxconf

pytestmark = pytest.mark.usefixtures("counted_quickly")


def test_the_last_layer_at_positions_of_the_models_own_text() -> None:
    config, (readout, _, x, delta, target), _, _ = bench_model.inputs(jaxconf.BUNDLED, bench_effects.Bench().data, 32)
    assert (x.shape, delta.shape, target.shape) == ((32, config.d_model), (32, config.d_mlp), (32,))
    assert readout.W_U.shape == (config.d_model, config.vocab_size)
    assert len(np.unique(np.asarray(target))) > 1
    assert np.abs(np.asarray(delta)).max() > 0
