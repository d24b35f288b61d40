"""One tiny recipe for all tests that train: a model that learns a little, in seconds."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxconf.data.corpus import Corpus, read_corpus
from jaxconf.models.language_model import LanguageModel
from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.run import train

TEXT = [f"value_{i % 3} = {i % 5} + {i % 3}\n" * 20 for i in range(60)]

# Seven sequences do not divide over several devices, so one device has all of them, however many there are.
TINY = TrainConfig(
    layers=1,
    width=16,
    heads=2,
    neurons=24,
    vocab_size=264,
    context=24,
    steps=60,
    batch=7,
    learning_rate=1e-2,
    dropout=0.1,
)
TRACK = TrackConfig(points=4, effects_every=5, tokens=100)  # effects at the last step only
NO_TRACK = TrackConfig(points=0)


def text() -> Iterator[str]:
    return iter(TEXT)


def text_file(folder: Path) -> Path:
    """The same text in a file that a command can read."""
    file = folder / "code.jsonl"
    file.write_text("".join(json.dumps({"text": document}) + "\n" for document in TEXT))
    return file


def options(config: TrainConfig = TINY, track: TrackConfig = TRACK) -> list[str]:
    """What `jaxconf train` is given for a recipe."""
    given = []
    for prefix, of in (("", config), ("track.", track)):
        for field in dataclasses.fields(of):
            if (value := getattr(of, field.name)) != field.default:
                given += [f"--{prefix}{field.name.replace('_', '-')}", str(value)]
    return given


@functools.cache
def corpus_of_text() -> Corpus:
    return read_corpus(TINY.vocab_size, TINY.context, text)


def held_out_loss(lm: LanguageModel, corpus: Corpus) -> float:
    """Nats per token on the held-out text, in float64 from the logits."""
    windows = corpus.held_out_windows(10**9, TINY.context)
    logits = np.asarray(lm.apply(windows[:, :-1]).logits, np.float64)
    right = np.take_along_axis(logits, windows[:, 1:, None], -1)[..., 0]
    return float((np.log(np.exp(logits).sum(-1)) - right).mean())


class Trained(NamedTuple):
    """A run that nothing interrupted."""

    folder: Path
    reports: list[tuple[int, dict[str, float]]]
    result: dict[str, Any]


@pytest.fixture(scope="module")
def trained(compiled_quickly: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tracked run of the tiny recipe, made once in each process that tests; not to be changed."""
    return _trained(tmp_path_factory.getbasetemp() / "trained")


@functools.cache
def _trained(folder: Path) -> Trained:
    reports: list[tuple[int, dict[str, float]]] = []
    result = train(TINY, text, folder, track=TRACK, report=lambda *report: reports.append(report))
    return Trained(folder, reports, result)
