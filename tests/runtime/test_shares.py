"""The devices of a machine, dealt out to processes."""

import sys
from typing import Any

import jax
import pytest
from refusals import check_error

from jaxconf.runtime.placement import memory_of_a_device
from jaxconf.runtime.shares import Seen, seen, shares


def shown(name: str, found: Seen, count: int, environment: dict[str, str]) -> list[str]:
    return [share.environment[name] for share in shares(found, count, environment)]


@pytest.mark.parametrize("count", range(1, 9))
def test_each_gpu_goes_to_one_process(count: int) -> None:
    for environment in ({}, {"CUDA_VISIBLE_DEVICES": "7,6,GPU-5f,4,3,2,1,0"}):
        dealt = shown("CUDA_VISIBLE_DEVICES", Seen("gpu", 8, 80e9), count, environment)
        assert ",".join(dealt) == environment.get("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
        sizes = [text.count(",") + 1 for text in dealt]
        assert max(sizes) - min(sizes) <= 1
        assert [share.memory for share in shares(Seen("gpu", 8, 80e9), count)] == [80e9 * size for size in sizes]


def test_chips_of_a_tpu_lie_beside_each_other() -> None:
    found = Seen("tpu", 4, 16e9)
    assert shares(found, 2, {})[1].environment == {
        "TPU_VISIBLE_CHIPS": "2,3",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }
    assert shown("TPU_VISIBLE_CHIPS", found, 4, {}) == ["0", "1", "2", "3"]
    check_error(lambda: shares(Seen("tpu", 8, 16e9), 1, {}), "8 TPU chips", "one, two or four")


def test_processes_share_a_cpu() -> None:
    assert shares(Seen("cpu", 2, 10e9), 5, {}) == [({}, 1, 4e9)] * 5


@pytest.mark.parametrize("found", [Seen("gpu", 2, 1.0), Seen("cpu", 2, 1.0)])
def test_there_is_no_process_without_a_device(found: Any) -> None:
    check_error(lambda: shares(found, 0), "--workers is 0", "at least 1")
    if found.backend == "gpu":
        check_error(lambda: shares(found, 3), "--workers is 3; give a number from 1 to 2")


@pytest.mark.command
def test_another_process_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    found = seen()
    assert found[:2] == (jax.default_backend(), 3)
    assert found.memory == pytest.approx((memory_of_a_device() or 0) * jax.local_device_count() / 3)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    check_error(seen, "JAX cannot use the devices of this machine")
