"""Measure the bundled model, and write docs/bundled_model.md and the names of its neurons from the results.

    python scripts/describe_bundled.py

A model of a world is measured on another text of that world, any other model on its own text.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import pandas as pd

import jaxconf
from jaxconf.data.worlds import world_of
from jaxconf.models.files import replacing
from jaxconf.report.play.page import NAMED
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.optimum import optimum_sentences
from jaxconf.results.rules import KINDS, Kind
from jaxconf.results.run_folder import OPTIMUM
from jaxconf.results.words import counted
from jaxconf.training.config import PRESETS

# As in scripts/train_bundled.sh.
RECIPE = dataclasses.replace(PRESETS["noise"], layers=1, width=96, neurons=64, steps=4000, seed=1)
TOKENS = 65536
PAGE = Path(__file__).parents[1] / "docs" / "bundled_model.md"
COLUMNS = [
    "rho",
    "ln_mediated",
    "freq_mediated",
    "w_norm",
    "logit_var",
    "cos_freq",
    "loss_abs_delta",
    "entropy_delta",
    "kl_freq_abs_delta",
]


def rows(table: NeuronTable, kind: Kind) -> list[str]:
    found = table.members(kind)
    frame = (found if len(found) else table.nearest(kind))[COLUMNS]
    lines = ["| neuron | " + " | ".join(f"`{name}`" for name in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    return lines + [
        f"| {name} | " + " | ".join(f"{value:.3g}" for value in row) + " |"
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]


def page(table: NeuronTable, lm: jaxconf.LanguageModel, own: str, beside: list[str]) -> str:
    """`own`: the text that the model was trained on. `beside`: sentences on the model beside the best predictions."""
    facts, config, size = table.facts, lm.config, (jaxconf.BUNDLED / "model.safetensors").stat().st_size
    return "\n".join(
        [
            "# The bundled model",
            "",
            "Written by `scripts/describe_bundled.py` from the model, its recipe and a run of `jaxconf analyze`.",
            "",
            f"A `{config.model_type}` decoder: {counted(config.n_layers, 'layer')}, width {config.d_model}, "
            f"{config.n_heads} heads, {config.d_mlp} neurons a layer, {config.vocab_size} tokens, context "
            f"{config.n_positions}; {size:,} bytes of float32 weights. `scripts/train_bundled.sh` trains it, on "
            f"`{own}` with AdamW, weight decay {RECIPE.weight_decay} on matrices, {RECIPE.steps:,} steps of "
            f"{RECIPE.batch * RECIPE.context:,} tokens.",
            "",
            "[The page to play with](play/index.html) runs it in a browser.",
            "",
            f"On `{facts['data']}` ({facts['windows']} windows of {facts['tokens'] // facts['windows']} tokens, "
            f"{facts['positions']:,} kept positions) the loss is {facts['loss']:.3f} nats per token and the entropy "
            f"{facts['entropy']:.3f} nats.",
            "",
            *[f"* {sentence}" for sentence in beside],
            "",
            *table.verdict(),
            "",
            *[f"* {rule}" for rule in table.rules.describe()],
            "",
            f"With k = {facts['k']} the chance level of `rho` is {table.frame['rho_chance'].iloc[0]:.3f}; "
            f"{int((table.frame['rho'] > table.frame['rho_chance']).sum())} of {len(table.frame)} neurons are above "
            "it. The correlation of entropy and "
            f"D_KL(P_freq ‖ P_model) over positions is {table.correlation():.3f}.",
            "",
            "## Entropy neurons, or the nearest to the rule",
            "",
            *rows(table, "entropy"),
            "",
            "## Token-frequency neurons, or the nearest to the rule",
            "",
            *rows(table, "frequency"),
            "",
        ]
    )


def main() -> None:
    own = jaxconf.source_for("own", jaxconf.BUNDLED)
    world = world_of(own)
    source = dataclasses.replace(world, seed=1).source if world else own
    with tempfile.TemporaryDirectory() as folder:
        table = jaxconf.run(jaxconf.AnalyzeOptions(data=source, tokens=TOKENS, out=Path(folder)))
        beside = optimum_sentences(pd.read_parquet(Path(folder) / OPTIMUM)) if world else []
    with replacing(PAGE) as path:
        path.write_text(page(table, jaxconf.load(jaxconf.BUNDLED), own, beside))
    named = {kind: table.members(kind)["neuron"].tolist() for kind in KINDS}
    with replacing(NAMED) as path:
        path.write_text(json.dumps(named, indent=1) + "\n")


if __name__ == "__main__":
    main()
