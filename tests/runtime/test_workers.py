"""Dask's workers: what their options may say, and what is said where they cannot be had."""

import sys
from pathlib import Path
from typing import Any

import pytest
from refusals import check_error

from jaxconf.runtime.workers import on_slurm, slurm_options, workers


def asked_for(option: str, value: Any) -> None:
    with workers(option, value, 2, Path("workers.log")):
        pass


def test_slurm_is_given_pairs() -> None:
    assert slurm_options("partition=gpu, gpus=1,max=3,exclusive=") == {
        "cpus": "8", "mem": "64GB", "max": "3", "partition": "gpu", "gpus": "1", "exclusive": "",
    }  # fmt: skip
    for text in ("gpu", "", "max=many", "max=", "max=0", "=1", "cpus=-1"):
        check_error(lambda text=text: slurm_options(text), "--slurm is", "partition=gpu")


def test_without_dask_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    check_error(lambda: asked_for("--workers", 2), "pip install 'jaxconf[cluster]'", "leave out --workers")


@pytest.mark.command
def test_a_scheduler_that_is_not_there() -> None:
    check_error(lambda: asked_for("--scheduler", "nonsense://127.0.0.1:1"), "no Dask scheduler answers")


def test_without_slurm_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    check_error(lambda: on_slurm("partition=gpu"), "there is no sbatch")
