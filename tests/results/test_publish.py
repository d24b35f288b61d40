"""Runs that go to the hub and come back. The hub is a stand-in on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import refusal, run
from hub import Hub, hub, point_at
from huggingface_hub import DatasetCard, constants, snapshot_download
from planted_table import planted_table
from refusals import refused

import jaxconf
from jaxconf.analysis.metrics import METRICS
from jaxconf.report.run import save_run
from jaxconf.results.card import dataset_card
from jaxconf.results.columns import meanings

NAME = "someone/some-run"
TOKEN = "hf_of_someone"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A run folder with a site and files of other commands, not to be changed."""
    folder, table = tmp_path_factory.mktemp("written") / "run", planted_table(positions=20)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxconf.report.run._draw", lambda table, folder: (folder / "report.html").write_text("<p>"))
        save_run(table, np.zeros((2, 8), int), np.ones((2, 8), bool), folder, {})
    of_run = ("play.html", "site/index.html", "site/neurons/3.5.html")
    for name in (*of_run, "model.safetensors", "config.json", "site/.hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Hub]:
    with hub({}, tmp_path / "cache", writer=TOKEN) as server:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_a_run_comes_back_as_it_was(written, served, tmp_path):
    jaxconf.push(written, NAME)
    back = jaxconf.pull(NAME, tmp_path / "back")
    first = jaxconf.NeuronTable.load(written)
    pd.testing.assert_frame_equal(back.frame, first.frame)
    assert back.facts == first.facts
    sent = {file.relative_to(written).as_posix(): file.read_bytes() for file in written.rglob("*") if file.is_file()}
    for other in ("model.safetensors", "config.json", "site/.hidden"):
        del sent[other]
    folder = tmp_path / "back"
    came = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert came.keys() == {*sent, "README.md"}
    assert {name: came[name] for name in sent} == sent
    pd.testing.assert_frame_equal(jaxconf.NeuronTable.load(folder).frame, first.frame)


def test_a_push_is_one_commit_which_replaces_the_run_before(written, served, tmp_path):
    jaxconf.push(written, NAME)
    other = Path(shutil.copytree(written, tmp_path / "other"))
    (other / "site/neurons/3.5.html").unlink()
    (served.repos[f"datasets/{NAME}"]["main"] / "notes.txt").write_text("not of a run")
    jaxconf.push(other, NAME)
    assert len(served.commits) == 2
    there = {file.relative_to(served.uploads / "datasets" / NAME).as_posix() for file in served.uploads.rglob("*.*")}
    assert "site/neurons/3.5.html" in served.commits[1]
    assert "site/neurons/3.5.html" not in there
    assert {"notes.txt", "site/index.html", "README.md"} <= there


def test_a_pull_takes_the_files_of_a_run_alone(written, served, tmp_path):
    jaxconf.push(written, NAME)
    (served.repos[f"datasets/{NAME}"]["main"] / "notes.txt").write_text("not of a run")
    snapshot_download(NAME, repo_type="dataset")  # the cache has all files then
    jaxconf.pull(NAME, tmp_path / "back")
    assert not (tmp_path / "back/notes.txt").exists()
    assert (tmp_path / "back/site/neurons/3.5.html").is_file()


def test_a_dataset_is_private_until_it_is_made_public(written, served, tmp_path, monkeypatch):
    jaxconf.push(written, NAME)
    monkeypatch.delenv("HF_TOKEN")
    refused(lambda: jaxconf.pull(NAME, tmp_path / "back"), f"no dataset {NAME}")
    assert not (tmp_path / "back").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    jaxconf.push(written, NAME)
    assert served.private == {f"datasets/{NAME}"}
    jaxconf.push(written, NAME, public=True)
    monkeypatch.delenv("HF_TOKEN")
    jaxconf.pull(NAME, tmp_path / "back")


def test_pandas_reads_the_table_from_the_hub(written, served):
    jaxconf.push(written, NAME, public=True)
    read = pd.read_parquet(
        f"hf://datasets/{NAME}/neurons.parquet",
        storage_options={"endpoint": served.endpoint, "skip_instance_cache": True},
    )
    pd.testing.assert_frame_equal(read, jaxconf.NeuronTable.load(written).frame)


def test_the_card_names_every_table_and_column_and_what_was_found(written):
    table = jaxconf.NeuronTable.load(written)
    table.facts["model"] = "/home/me/[odd] | name"
    text = dataset_card(table, NAME, ["neurons.parquet", "nulls.parquet", "report.html"])
    card = DatasetCard(text)
    configs = {config["config_name"]: config for config in card.data.to_dict()["configs"]}
    assert {name: config["data_files"] for name, config in configs.items()} == {
        "neurons": "neurons.parquet",
        "nulls": "nulls.parquet",
    }
    assert [name for name, config in configs.items() if config.get("default")] == ["neurons"]
    rows = [line for line in card.text.splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == {*table.frame.columns, "neurons.parquet", "nulls.parquet"}
    assert "# Confidence neurons of \\[odd\\] \\| name" in card.text
    assert "2 entropy neurons in layer 3: 3.5, 3.17." in card.text
    assert f"hf://datasets/{NAME}/neurons.parquet" in card.text
    assert "report.html" in card.text


def test_every_column_has_a_meaning():
    table = planted_table()
    found = {column: (unit, said) for column, unit, said in meanings([*table.frame.columns, "expert", "unheard_of"])}
    assert {column for column, (_, said) in found.items() if not said} == {"unheard_of"}
    for metric in METRICS:
        assert found[metric.name] == (metric.unit, metric.description)
    assert found["loss_delta_lo"] == ("nats", "lower end of the 95% interval of loss_delta")


def test_what_is_no_finished_run_is_refused(written, served, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished/.partial").mkdir(parents=True)
    refused(lambda: jaxconf.push(tmp_path / "nowhere", NAME), "no finished analysis")
    refused(lambda: jaxconf.push(tmp_path / "empty", NAME), "no finished analysis")
    refused(lambda: jaxconf.push(tmp_path / "unfinished", NAME), "unfinished analysis")
    refused(lambda: jaxconf.push(written, "someone"), "OWNER/NAME")
    assert served.requests == []


def test_who_may_not_write_is_told_so(written, served, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    refused(lambda: jaxconf.push(written, NAME), "may not write", NAME)
    monkeypatch.delenv("HF_TOKEN")
    refused(lambda: jaxconf.push(written, NAME), "hf auth login")
    assert f"datasets/{NAME}" not in served.repos


def test_without_a_hub_both_say_so(written, served, tmp_path, monkeypatch):
    with point_at("http://127.0.0.1:9", tmp_path / "cache"):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        refused(lambda: jaxconf.push(written, NAME), "cannot be uploaded")
        refused(lambda: jaxconf.pull(NAME, tmp_path / "back"), "cannot be fetched")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        refused(lambda: jaxconf.push(written, NAME), "HF_HUB_OFFLINE is set")
        refused(lambda: jaxconf.pull(NAME, tmp_path / "back"), "HF_HUB_OFFLINE is set")
    assert not (tmp_path / "back").exists()


def test_a_pull_writes_the_whole_run_or_nothing(served, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/data.csv").write_text("a,b\n")
    served.repos["datasets/someone/other"] = {"main": tmp_path / "other"}
    before = set(tmp_path.iterdir())
    refused(lambda: jaxconf.pull("someone/other", tmp_path / "back"), "no neurons.parquet of jaxconf")
    refused(lambda: jaxconf.pull("someone/absent", tmp_path / "back"), "no dataset someone/absent")
    (tmp_path / "other/neurons.parquet").write_bytes(b"no table")
    refused(lambda: jaxconf.pull("someone/other", tmp_path / "back"), "no neurons.parquet of jaxconf")
    assert {path for path in tmp_path.iterdir() if "cache" not in path.name} == before
    refused(lambda: jaxconf.pull("someone/other", tmp_path / "other"), "exists already")


def test_the_commands(written, served, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("push", written, NAME, "--quiet")
    said = capsys.readouterr().out
    assert f"hf://datasets/{NAME}/neurons.parquet" in said
    run("pull", NAME, "--quiet")
    assert "2 entropy neurons in layer 3: 3.5, 3.17." in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "runs/some-run/neurons.parquet").is_file()
    assert "exists already" in refusal(capsys, "pull", NAME)
