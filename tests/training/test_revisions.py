"""Revisions of one model on the stand-in for the hub: what is measured, what stays, what is asked for twice."""

import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hub import Hub, hub
from hub_models import HF, NAME, TEXT, build, text
from huggingface_hub import constants, snapshot_download
from parameters import marked
from refusals import check_error
from world_text import model_of

import jaxconf
from jaxconf.models.language_model import LanguageModel
from jaxconf.results.files import read_parquet, write_parquet
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.training import revisions
from jaxconf.training.emergence import FILE, Emergence
from jaxconf.training.measurements import DRAWS, NEURON_COLUMNS, measure_predictions
from jaxconf.training.revisions import track_revisions

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("compiled_quickly", "counted_quickly")]

TOKENS = 80


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Revision → folder."""
    parent = tmp_path_factory.mktemp("models")
    return {f"step{step}": build(parent / str(step), step) for step in (0, 20, 100)}


@pytest.fixture
def server(models, tmp_path) -> Iterator[Hub]:
    with hub({f"models/{NAME}": dict(models)}, tmp_path / "cache") as server:
        yield server


def track(out: Path, names: str, **options) -> Emergence:
    return track_revisions(NAME, names.split(","), **{"data": text, "out": out, "tokens": TOKENS, **options})


def rows(out: Path) -> list[dict[str, Any]]:
    """Equal where they have NaN too, since those are strings here."""
    return [{name: str(value) for name, value in row.items()} for row in pq.read_table(out / FILE).to_pylist()]


def weights_asked(server: Hub) -> int:
    """How often the weights of any revision were downloaded."""
    return sum(request.startswith("GET") and request.endswith("model.safetensors") for request in server.requests)


def cached(name: str = NAME) -> list[str]:
    """The revisions of a model in the cache that have their weights."""
    return sorted(file.parent.name for file in repo(name).glob("snapshots/*/model.safetensors"))


def repo(name: str = NAME) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def contents(folder: Path) -> dict[str, bytes]:
    """What lies below a folder, but for the hub's lists of files, which are not part of any revision."""
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: data for name, data in files.items() if not name.startswith("trees/")}


class Alone(NamedTuple):
    """A revision that is analysed by itself."""

    lm: LanguageModel
    tokens: np.ndarray
    table: NeuronTable


@pytest.fixture(scope="module")
def alone(models) -> dict[str, Alone]:
    made = {}
    for name, folder in models.items():
        lm = jaxconf.load(folder, mesh=jaxconf.make_mesh())  # as a track puts it
        windows = jaxconf.windows(text(), lm.tokenizer, TOKENS, 40)
        counts = jaxconf.count_tokens(text(), lm.tokenizer, 262)
        made[name] = Alone(lm, windows.tokens, jaxconf.analyze(lm, windows, counts=counts, k=2, bootstrap_draws=DRAWS))
    return made


@pytest.mark.parametrize("effects", [False, True])
def test_rows_are_those_of_each_revision_alone(server, alone, tmp_path, effects):
    e = track(tmp_path / "out", "step100,step0,step20", effects=effects, components="null" * effects, k=2)
    every = [(step, name) for step in (0, 20, 100) for name in ("null.0", "null.1")]
    assert (
        list(e.components.get(["step", "name"], pd.DataFrame()).itertuples(index=False, name=None)) == every * effects
    )
    assert e.steps["step"].tolist() == [0, 20, 100]
    assert e.steps["revision"].tolist() == ["step0", "step20", "step100"]
    for index, (name, (lm, tokens, table)) in enumerate(alone.items()):
        neurons = e.neurons[e.neurons["step"] == int(name.removeprefix("step"))]
        np.testing.assert_array_equal(neurons["neuron"], np.arange(56))
        weights = ["w_norm", "logit_var", "rho", "cos_freq", "weight_cost"]
        for column in NEURON_COLUMNS if effects else weights:
            # Cosines near zero keep the rounding of sums of order one.
            atol = 1e-7 if column == "cos_freq" else 0
            np.testing.assert_allclose(neurons[column], table.frame[column], rtol=1e-6, atol=atol, err_msg=column)
        assert neurons["loss_delta"].isna().all() != effects
        np.testing.assert_allclose(e.singular_values[index], table.singular_values, rtol=1e-6)
        row = e.steps.iloc[index]
        assert row["rho_chance"] == table.frame["rho_chance"][0]
        assert ("loss" in row) == effects
        if effects:
            kept = jaxconf.kept_positions(tokens, lm.special_ids)
            expected = measure_predictions(lm.config, lm.params, tokens, kept)
            assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
            assert row["loss"] == pytest.approx(table.facts["loss"], rel=1e-5)
            assert e.facts["data_sha256"] == table.facts["data_sha256"]
            assert e.facts["tokens"] == tokens.size == TOKENS
        facts = ("model_type", "n_layers", "d_model", "n_neurons", "vocab_size", "layer", "k", "rules")
        assert {name: e.facts[name] for name in facts} == {name: table.facts[name] for name in facts}
    assert e.facts["model"] == NAME
    assert e.facts["versions"] == {"jaxconf": jaxconf.__version__, "jax": jax.__version__}
    assert len(cached()) == 3


@pytest.mark.parametrize(
    ("names", "expected"),
    {
        "step1000,step20": {"step20": 20, "step1000": 1000},
        "step1000,main,step20": {"step1000": 0, "main": 1, "step20": 2},
        "b1,a1": {"b1": 0, "a1": 1},
        "step1-tokens2B,step5": {"step1-tokens2B": 0, "step5": 1},
        f"{'9' * 25},step5": {"9" * 25: 0, "step5": 1},
        f"{'a' * 38}17,{'b' * 39}2": {f"{'a' * 38}17": 0, f"{'b' * 39}2": 1},
    }.items(),
)
def test_steps(names, expected):
    assert list(revisions.steps_of(names.split(",")).items()) == list(expected.items())


def test_one_revision_at_a_time(server, tmp_path, monkeypatch):
    """In memory as on the disk."""
    seen, alive = [], []

    def find(*arguments, **options):
        seen.append((len(cached()), len(list(repo().glob("blobs/*"))), sum(ref() is not None for ref in alive)))
        return original_find(*arguments, **options)

    def load(*arguments, **options):
        lm = original_load(*arguments, **options)
        assert len(cached()) == 1
        alive.extend(weakref.ref(leaf) for leaf in jax.tree.leaves(lm.params))
        return lm

    original_find, original_load = revisions.find, revisions.load
    monkeypatch.setattr(revisions, "find", find)
    monkeypatch.setattr(revisions, "load", load)
    reports = []

    def progress(what, done, total):
        if what == "revisions":
            assert cached() == []
            reports.append((done, total))

    e = track(tmp_path / "out", "step0,step20", effects=True, delete=True, progress=progress)
    assert len(e.steps) == 2
    assert len(alive) > 20
    assert seen == [(0, 0, 0)] * 2
    assert reports == [(0, 2), (1, 2), (2, 2)]
    assert not repo().exists()


def test_what_was_cached_before_survives(server, models, tmp_path):
    """A whole revision, a part of another that shares the tokenizer with it, and the same commits under other names."""
    names = [f"owner/renamed{i}" for i in range(4)]
    server.repos |= {f"models/{name}": dict(models) for name in names}
    for name in names:
        snapshot_download(name, revision="step0")
    snapshot_download(NAME, revision="step20")
    snapshot_download(NAME, revision="step100", allow_patterns="config.json")
    before = {name: contents(repo(name)) for name in (NAME, *names)}
    assert all(len(files) > 8 for files in before.values())
    track(tmp_path / "out", "step0,step20,step100", delete=True)
    assert {name: contents(repo(name)) for name in before} == before
    assert weights_asked(server) == len(names) + 3


def test_a_failed_measurement_is_deleted_too(server, tmp_path, monkeypatch):
    def measure_effects(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(revisions, "measure_effects", measure_effects)
    with pytest.raises(KeyboardInterrupt):
        track(tmp_path / "out", "step0", effects=True, delete=True)
    assert weights_asked(server) == 1
    assert cached() == []
    assert not (tmp_path / "out").exists()


def test_a_cache_that_cannot_be_tidied_is_named(server, tmp_path):
    """A download that failed early leaves a branch without its commit, which hides the model from the hub's library."""
    (repo() / "refs").mkdir(parents=True)
    (repo() / "refs" / "other").write_text("0" * 40)
    check_error(lambda: track(tmp_path / "out", "step0,step20", delete=True), str(repo()), "could not be deleted")
    assert weights_asked(server) == 1
    assert len(rows(tmp_path / "out")) == 1


@pytest.mark.parametrize("delete", marked([False, True], quick=[True]))
def test_going_on_downloads_nothing_twice(server, tmp_path, delete):
    out, options = tmp_path / "out", {"effects": True, "delete": delete}
    check_error(lambda: track(out, "step0,step300", **options), NAME, "no revision step300")
    first = rows(out)
    assert [row["revision"] for row in first] == ["step0"]
    assert weights_asked(server) == 1

    e = track(out, "step0,step20", **options)
    assert rows(out)[:1] == first
    assert e.steps["revision"].tolist() == ["step0", "step20"]
    assert weights_asked(server) == 2
    whole = track(tmp_path / "whole", "step0,step20", effects=True)
    assert rows(out) == rows(tmp_path / "whole")
    assert whole.facts == e.facts

    server.requests.clear()
    again = track(out, "step0,step20", **options)
    assert server.requests == []
    assert again.steps.equals(e.steps)
    assert len(track(out, "step20", **options, k=1).steps) == 2  # 1 is what k is by default, at this width
    assert server.requests == []


def test_earlier_revisions_cannot_be_added(server, tmp_path):
    """Adding a row drops later ones, so this is refused before anything is downloaded."""
    out = tmp_path / "out"
    track(out, "step0,step100")
    before = (out / FILE).read_bytes()
    server.requests.clear()
    check_error(lambda: track(out, "step0,step20,step100"), "ends with step100 at step 100", "step20", "--force")
    check_error(lambda: track(out, "step0,step100,main"), "step100 at step 1 ")  # no numbers any more, but places
    check_error(lambda: track(out, "main,step0"), "main at step 0")
    assert server.requests == []
    assert (out / FILE).read_bytes() == before
    assert track(out, "step0,step20,step100", force=True).steps["step"].tolist() == [0, 20, 100]


OTHER: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "effects": ({"effects": False}, ("effects is True there and False here",)),
    "tokens": ({"tokens": 90}, ("tokens_asked is 80 there and 90 here",)),
    "k": ({"k": 3}, ("k is 1 there and 3 here",)),
    "text": ({"data": lambda: iter([*TEXT, "more"])}, ("its text is not the same",)),
    "counts": ({"counts": np.ones(262, int)}, ("its token counts are not the same",)),
}


@pytest.fixture(scope="module")
def measured(models, tmp_path_factory) -> Path:
    """A track of one revision."""
    folder = tmp_path_factory.mktemp("measured")
    with hub({f"models/{NAME}": dict(models)}, folder / "cache"):
        track(folder / "out", "step0", effects=True)
    return folder / "out" / FILE


@pytest.mark.parametrize("name", OTHER)
def test_another_track_in_the_folder(measured, server, tmp_path, name):
    options, parts = OTHER[name]
    shutil.copy(measured, tmp_path)
    asked = {"effects": True, **options}
    check_error(lambda: track(tmp_path, "step0,step20", **asked), str(tmp_path), "--force", *parts)
    assert server.requests == []
    assert (tmp_path / FILE).read_bytes() == measured.read_bytes()


def test_a_track_that_does_not_say_what_was_counted_goes_on(measured, server, tmp_path):
    table, facts = read_parquet(measured, "track", "")
    del facts["counts_sha256"]
    write_parquet(table, facts, tmp_path / FILE)
    e = track(tmp_path, "step0,step20", effects=True)
    assert e.steps["revision"].tolist() == ["step0", "step20"]


def test_another_track_is_replaced_by_force(measured, server, tmp_path):
    """By one that differs in all that is refused without."""
    shutil.copy(measured, tmp_path)
    asked = {name: value for options, _ in OTHER.values() for name, value in options.items()}
    e = track(tmp_path, "step20", **asked, force=True)
    assert e.steps["revision"].tolist() == ["step20"]
    assert (e.facts["effects"], e.facts["k"], e.facts["tokens_asked"]) == (False, 3, None)


def test_another_model_in_the_folder(server, tmp_path):
    out = tmp_path / "out"
    track(out, "step0")
    call: Callable[[], object] = lambda: track_revisions("owner/other", ["step0"], text, out)  # noqa: E731
    check_error(call, "model is 'owner/name' there and 'owner/other' here")


def test_force_keeps_the_old_track_until_there_is_a_new_one(server, tmp_path):
    out = tmp_path / "out"
    track(out, "step0")
    before = (out / FILE).read_bytes()
    check_error(lambda: track(out, "step300", force=True), "no revision step300")
    assert (out / FILE).read_bytes() == before
    check_error(lambda: track(out, "step20,step300", k=2, force=True), "no revision step300")
    assert [row["revision"] for row in rows(out)] == ["step20"]


def test_a_revision_of_another_shape(server, models, tmp_path):
    folder = build(tmp_path / "other", 0, HF | {"hidden_size": 32})
    server.repos[f"models/{NAME}"]["step50"] = folder
    out = tmp_path / "out"
    check_error(lambda: track(out, "step0,step50"), "d_model is 24 there and 32 here")
    assert [row["revision"] for row in rows(out)] == ["step0"]


def test_the_default_text_is_that_of_the_world_that_the_revisions_name(tmp_path: Path) -> None:
    source = "noise:words=16,levels=2"
    models = {f"step{step}": model_of(source, tmp_path / str(step), step) for step in (0, 20)}
    with hub({f"models/{NAME}": models}, tmp_path / "cache"):
        e = track(tmp_path / "out", "step0,step20", data="own", delete=True, effects=True)
        assert e.facts["data"] == source
        assert e.facts["counts"].startswith(f"{source}, its first")
        assert cached() == []
        assert rows(tmp_path / "out") == rows_of_named(tmp_path / "named", source)
        check_error(lambda: track(tmp_path / "other", "step0", data="stdlib"), "trained on", f"give --data {source}")


def rows_of_named(out: Path, source: str) -> list[dict[str, Any]]:
    track(out, "step0,step20", data=source, effects=True)
    return rows(out)


def test_refusals(server, models, tmp_path):
    out = tmp_path / "out"
    folder = models["step0"]
    local = str(folder)
    check_error(
        lambda: track_revisions(local, ["step0"], text, out), local, "is a local folder, which has no revisions"
    )
    check_error(lambda: track_revisions(NAME, [], text, out), "no revisions")
    check_error(lambda: track(out, "step0,step20,step0"), "step0 is given twice")
    check_error(lambda: track(out, "step0", tokens=0, effects=True), "tokens is 0")
    check_error(lambda: track(folder / "config.json", "step0"), "config.json", "is a file, not a folder")
    assert server.requests == []
    check_error(lambda: track_revisions("owner/nothing", ["step0"], text, out), "no model owner/nothing")
    check_error(lambda: track(out, "step7"), NAME, "no revision step7")
    for k in (0, 24):
        check_error(lambda k=k: track(out, "step0", k=k), f"k is {k}", "1 to 23")
    assert not out.exists()
