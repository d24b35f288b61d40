"""A neuron table in the layout of Neuronpedia's exports.

Neuronpedia's documentation fixes the folders MODEL_ID/SOURCE_ID/, in each of them the files model.jsonl, release.jsonl,
source.jsonl and sourceset.jsonl and the folders features/, activations/ and explanations/, whose files are named
batch-0.jsonl.gz and so on; and that each line is a JSON object. It does not fix the keys of these objects. The keys
here are those by which its own exports name the same things, and only where the neuron table has the value: it holds no
passages, so there is no activations/, and no directions or promoted tokens.
"""

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxconf.models.errors import InputError
from jaxconf.results.files import plain
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import KINDS
from jaxconf.results.words import model_title

SOURCE_SET = "jaxconf-mlp"  # of all layers; a source is one layer of it
BATCH = 1024  # lines of a file


def write_neuronpedia(table: NeuronTable, folder: Path) -> None:
    """Writes a source for each layer of the table into `folder`: its neurons, and an explanation of each named neuron.

    Raises InputError if the table holds no neurons.
    """
    neurons = table.neurons
    if neurons.empty:
        raise InputError("the run measured no neurons, which are what Neuronpedia's layout holds; give another run")
    model = re.sub(r"[^\w.-]+", "-", model_title(table.facts).rpartition("/")[2])
    for layer, rows in neurons.groupby("layer"):
        source = f"{layer}-{SOURCE_SET}"
        there = folder / model / source
        there.mkdir(parents=True)
        for name, about in _about(table, model, source).items():
            _write(there / f"{name}.jsonl", [about])
        place = {"modelId": model, "layer": source}
        what = {"sourceSetName": SOURCE_SET, "hookName": f"blocks.{layer}.mlp.hook_post", "hasVector": False}
        features = [{**place, "index": str(index), **what} for index in rows["neuron"]]
        explanations = [
            {**place, "index": str(row["neuron"]), "description": f"{kind} neuron: {table.rules.told(kind, row)}"}
            for kind in KINDS
            for row in rows[rows[f"is_{kind}_neuron"]].to_dict("records")
        ]
        for kind, lines in (("features", features), ("explanations", explanations)):
            for i in range(0, len(lines), BATCH):
                (there / kind).mkdir(exist_ok=True)
                _write(there / kind / f"batch-{i // BATCH}.jsonl.gz", lines[i : i + BATCH])


def _about(table: NeuronTable, model: str, source: str) -> dict[str, dict[str, Any]]:
    """The objects of the files that describe a source."""
    facts = table.facts
    title = f"Confidence neurons of {model_title(facts)}"
    return {
        "model": {"id": model, "displayName": model_title(facts), "displayNameShort": model},
        "release": {"name": "jaxconf", "description": title, "descriptionShort": title},
        "sourceset": {
            "modelId": model,
            "name": SOURCE_SET,
            "description": "MLP neurons, measured with jaxconf",
            "releaseName": "jaxconf",
        },
        "source": {
            "id": source,
            "modelId": model,
            "setName": SOURCE_SET,
            "dataset": facts.get("data"),
            "num_prompts": facts.get("windows"),
            "notes": " ".join(table.verdict()),
        },
    }


def _write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(f"{json.dumps(plain(line))}\n" for line in lines).encode()
    file.write_bytes(gzip.compress(text, mtime=0) if file.suffix == ".gz" else text)
