"""The supported families, and how far the logits of each are from transformers', as the parity tests last measured."""

import inspect
import json
from importlib.resources import files
from typing import NamedTuple

from jaxconf.models.families import FAMILIES

MIXTURES = """\
## Mixtures of experts

In `mixtral`, `olmoe`, `qwen2_moe`, `qwen3_moe` and `gpt_oss` each layer has several experts, and a router chooses a few
of them for each token. All experts' neurons are the neurons of the layer: a neuron is named `layer.expert.index`, and
`neuron` in a table counts through the experts. A shared expert, which takes every token, is the last one.

* A neuron's activation (`mlp.hook_post`) is what its expert's down projection reads. What the neuron writes is
  multiplied by the router's weight of its expert (`mlp.hook_router`, which is 0 for experts that were not chosen).
* An ablation changes activations and leaves the router of its own layer as it was, since that reads the MLP's input.
  Where its expert is not chosen, a neuron of the last layer changes nothing. Routers of layers above react.
* Means and other statistics of activations are over the tokens for which the expert is chosen. Effects are over all
  kept positions; the columns that end in `_where_routed` are over those at which the expert is chosen.
* `table.experts`, the summary and the report say how often each expert is chosen and how much its neurons carry.
* All experts are computed for every token, which is exact but takes more work than to compute the chosen ones. On a
  mesh, their neurons are split over the axis `model`.
* Models with experts in some layers only are refused, and so are the published weights of `gpt_oss`, which are
  quantized (MXFP4); what transformers saves after dequantizing them loads. `analyze`, `ablate_sets`, `per_token`,
  `weight_statistics` and sweeps take mixtures; the companion studies, tracks of revisions and training do not.
"""

MEASURED = files("jaxconf.models") / "parity.json"  # written by `make parity REWRITE=1`


ATTRIBUTES = (
    "Configs that transformers 4.40 to 5.x saved, in full or not, are read the same. Every attribute of",
    "config.json is read, or known not to change the outputs, or must have the one value that the code assumes.",
    "(What matters to no family is listed as `IRRELEVANT` in `models/attributes.py`, and what does not matter to one",
    "family, in its file.) Any other attribute is an error that names it. If you know that it changes no output,",
    'take it on your own word with `--accept NAME`, or in Python with `jaxconf.load(..., accept=["NAME"])`. An',
    "attribute within another is named as in `rope_scaling.NAME`. A command with several models or revisions accepts",
    "an attribute where it occurs, and what was accepted stands among the facts of the result.",
    "",
    "Of the rotary settings, `finetuned` and `attn_factor`, which YaRN's authors saved, are ignored, as transformers",
    "ignores them. Gemma's `hidden_act: gelu` is the tanh form, which the weights were trained with.",
)


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
    lines += ["", *ATTRIBUTES]
    lines += ["", "| random model | model_type | largest difference | largest logit |", "|---|---|---:|---:|"]
    lines += [
        f"| {name} | `{case['model_type']}` | {case['error']:.1e} | {case['largest']:.1f} |"
        for name, case in facts["cases"].items()
    ]
    return "\n".join(lines) + "\n\n" + MIXTURES
