"""The neuron table as other programs read it."""

import gzip
import json

import pandas as pd
import pytest
from planted_table import ENTROPY, FREQUENCY, TABLES, of_components, planted_table
from refusals import refused

import jaxconf


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_no_digit_of_the_table_is_lost(kind, format, tmp_path):
    table = TABLES[kind]()
    table.save(tmp_path / "run")
    folder = jaxconf.export(tmp_path / "run", format)
    if format == "csv":
        read = pd.read_csv(folder / "neurons.csv", engine="python", dtype={"name": str})
    else:
        rows = [json.loads(line) for line in (folder / "neurons.jsonl").read_text().splitlines()]
        read = pd.DataFrame(rows)
    assert read["name"].tolist() == table.names
    read = read[list(table.frame.columns)].astype(table.frame.dtypes)
    pd.testing.assert_frame_equal(read, table.frame, check_exact=True)
    beside = json.loads((folder / "facts.json").read_text())
    assert beside["facts"] == jaxconf.NeuronTable.load(tmp_path / "run").facts
    assert [column["column"] for column in beside["columns"]] == list(table.frame.columns)
    assert {column["column"]: column["unit"] for column in beside["columns"]}["loss_delta"] == "nats"


def test_neuronpedia_has_the_documented_files_and_every_neuron(tmp_path):
    table = planted_table(neurons=1500)
    table.frame.loc[1400:, "layer"] = 4
    table.frame.loc[1400:, "neuron"] = range(100)
    table.facts["model"] = "some/odd model"
    table.save(tmp_path / "run")
    folder = jaxconf.export(tmp_path / "run" / "neurons.parquet", "neuronpedia", tmp_path / "out")
    sources = {path.name: path for path in (folder / "odd-model").iterdir()}
    assert sorted(sources) == ["3-jaxconf-mlp", "4-jaxconf-mlp"]
    about = ["model.jsonl", "release.jsonl", "source.jsonl", "sourceset.jsonl"]
    for name, count in (("3-jaxconf-mlp", 1400), ("4-jaxconf-mlp", 100)):
        files = sorted(path.relative_to(sources[name]).as_posix() for path in sources[name].rglob("*.*"))
        batches = [f"features/batch-{i}.jsonl.gz" for i in range(1 if count == 100 else 2)]
        explained = ["explanations/batch-0.jsonl.gz"] if count == 1400 else []
        assert files == [*explained, *batches, *about]
        lines = [
            json.loads(line)
            for file in batches
            for line in gzip.decompress((sources[name] / file).read_bytes()).splitlines()
        ]
        assert [line["index"] for line in lines] == list(map(str, range(count)))
        assert {(line["modelId"], line["layer"]) for line in lines} == {("odd-model", name)}
        found = {file: json.loads((sources[name] / file).read_text()) for file in about}
        assert found["source.jsonl"]["id"] == name
        assert found["model.jsonl"]["id"] == found["source.jsonl"]["modelId"] == "odd-model"
        assert found["source.jsonl"]["setName"] == found["sourceset.jsonl"]["name"] == lines[0]["sourceSetName"]
        assert found["sourceset.jsonl"]["releaseName"] == found["release.jsonl"]["name"]
    explanations = gzip.decompress((sources["3-jaxconf-mlp"] / "explanations/batch-0.jsonl.gz").read_bytes())
    told = {line["index"]: line["description"] for line in map(json.loads, explanations.splitlines())}
    assert {f"3.{index}" for index in told} == {*ENTROPY, *FREQUENCY}
    assert told["5"].startswith("entropy neuron: rho 0.8 ")
    assert told["8"].startswith("frequency neuron: ")


def test_what_cannot_be_exported_is_refused(tmp_path):
    planted_table().save(tmp_path / "run")
    refused(lambda: jaxconf.export(tmp_path / "run", "xlsx"), "no format 'xlsx'", "csv, jsonl or neuronpedia")
    of_components().save(tmp_path / "heads")
    before = sorted(path.name for path in (tmp_path / "heads").iterdir())
    refused(lambda: jaxconf.export(tmp_path / "heads", "neuronpedia"), "no neurons")
    assert sorted(path.name for path in (tmp_path / "heads").iterdir()) == before
    jaxconf.export(tmp_path / "run", "csv")
    refused(lambda: jaxconf.export(tmp_path / "run", "csv"), "exists already")
