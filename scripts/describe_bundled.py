"""Measure the bundled model on the standard library, and write docs/bundled_model.md from the results.

python scripts/describe_bundled.py
"""

import dataclasses
from pathlib import Path
from typing import Any

import jaxconf
from jaxconf.models.files import replacing
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.rules import Kind
from jaxconf.training.config import PRESETS

# As in scripts/train_bundled.sh.
RECIPE = dataclasses.replace(
    PRESETS["tiny"], width=128, heads=4, neurons=512, vocab_size=260, steps=20_000, batch=8, learning_rate=3e-3
)
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


def page(table: NeuronTable, config: Any, size: int) -> str:
    facts, recipe = table.facts, RECIPE
    return "\n".join(
        [
            "# The bundled model",
            "",
            "Written by `scripts/describe_bundled.py` from the model, its recipe and a run of `jaxconf.analyze`.",
            "",
            f"A `{config.model_type}` decoder with LayerNorm, serial blocks and tied embeddings: {config.n_layers} "
            f"layers, width {config.d_model}, "
            f"{config.n_heads} heads, {config.d_mlp} neurons a layer, {config.vocab_size} tokens, context "
            f"{config.n_positions}; {size:,} bytes of "
            "float32 weights. It is the last model of [these measurements](emergence_study.md): "
            "`scripts/train_bundled.sh` "
            "trains it, on Python's own standard library with AdamW, weight "
            f"decay {recipe.weight_decay} on matrices, a cosine schedule, {recipe.steps:,} steps of "
            f"{recipe.batch * recipe.context:,} tokens. "
            "The standard library comes with every Python, so no text has to be copied. It differs between versions "
            "of Python, and so do the weights that the recipe gives and, slightly, the numbers below.",
            "",
            f"On {facts['windows']} windows of {facts['tokens'] // facts['windows']} tokens "
            f"({facts['positions']:,} kept positions; mostly text that it was trained on) the loss is "
            f"{facts['loss']:.3f} nats per token and the entropy {facts['entropy']:.3f} nats.",
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
    lm = jaxconf.load(jaxconf.BUNDLED)
    tokens = jaxconf.windows(jaxconf.documents("stdlib"), lm.tokenizer, TOKENS, lm.config.n_positions)
    counts = jaxconf.count_tokens(jaxconf.documents("stdlib"), lm.tokenizer, lm.config.vocab_size)
    table = jaxconf.analyze(lm, tokens, counts=counts, facts={"model": "bundled", "data": "stdlib"})
    with replacing(PAGE) as path:
        path.write_text(page(table, lm.config, (jaxconf.BUNDLED / "model.safetensors").stat().st_size))


if __name__ == "__main__":
    main()
