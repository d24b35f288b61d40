"""The supported families, and how far the logits of each are from transformers', as the parity tests last measured."""

import inspect
import json
from importlib.resources import files
from typing import NamedTuple

from jaxconf.models.families import FAMILIES

MEASURED = files("jaxconf.models") / "parity.json"  # written by `make parity REWRITE=1`


class Supported(NamedTuple):
    model_type: str
    what: str  # the family in one sentence
    error: float | None  # the largest |Δlogit| over the cases, None if it was never measured
    cases: int  # how many random models were compared; together they use every setting of the family's config


def supported() -> list[Supported]:
    """The families, in the order of their names."""
    measured = json.loads(MEASURED.read_text("utf-8"))["cases"]
    rows = []
    for model_type, family in FAMILIES.items():
        errors = [case["error"] for case in measured.values() if case["model_type"] == model_type]
        what = (inspect.getdoc(family) or "").partition("\n")[0]
        rows.append(Supported(model_type, what, max(errors, default=None), len(errors)))
    return rows


def page() -> str:
    """The text of docs/models.md."""
    facts = json.loads(MEASURED.read_text("utf-8"))
    lines = [
        "# Supported models",
        "",
        "A model's family is the `model_type` in its config.json, so any fine-tune of a supported family loads.",
        "A folder or hub id of a LoRA adapter, as PEFT saves it, is loaded merged into the base model that it names;",
        "adapters that do more than to add products to weights are refused. So are quantized weights, GGUF files and",
        "pickled weights. A `quantization_config` that is left in the config.json of weights of full precision does",
        "not count: they are used as they are stored, where transformers may quantize them as it loads them.",
        "",
        "`make parity REWRITE=1` writes this page. It builds random models, which together use every setting of",
        f"each family's config, and compares their logits for {facts['tokens']} tokens with those of transformers",
        f"{facts['transformers']}, both in float32. The tables give the largest absolute difference of a logit;",
        "`jaxconf models` prints it for each family.",
        "",
        "| model_type | family | models | largest difference |",
        "|---|---|---:|---:|",
    ]
    lines += [f"| `{row.model_type}` | {row.what} | {row.cases} | {row.error:.1e} |" for row in supported()]
    lines += ["", "| random model | model_type | largest difference | largest logit |", "|---|---|---:|---:|"]
    lines += [
        f"| {name} | `{case['model_type']}` | {case['error']:.1e} | {case['largest']:.1f} |"
        for name, case in facts["cases"].items()
    ]
    return "\n".join(lines) + "\n"
