"""What two training runs must share to be the same run."""

from pathlib import Path

import pandas as pd

from jaxconf.training.emergence import Emergence


def assert_same(out: Path, whole: Path) -> None:
    assert (out / "losses.npy").read_bytes() == (whole / "losses.npy").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one, other = Emergence.load(out), Emergence.load(whole)
    pd.testing.assert_frame_equal(one.steps, other.steps, check_exact=True)
    pd.testing.assert_frame_equal(one.neurons, other.neurons, check_exact=True)
    assert not (out / "checkpoints").exists()
