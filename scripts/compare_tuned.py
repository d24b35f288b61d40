"""Train a small model for 500 more steps on other text, and compare the tuned model with the original one.

    python scripts/compare_tuned.py MODEL --data stories.jsonl --out runs/stories

The folder --out gets the results of `jaxconf compare`, and in `tuned` the tuned model in Hugging Face layout. The
models are compared on the same text, a part of which the tuned model was trained on. They are also compared on the
original model's own text (stdlib, if its folder names none); those results are in `own`.
"""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro

import jaxconf
from jaxconf import cli
from jaxconf.cli.common import Model
from jaxconf.data.corpus import read_corpus, write_tokenizer
from jaxconf.data.own_text import OWN
from jaxconf.models.checkpoint import save_params
from jaxconf.models.decoder import forward
from jaxconf.models.families import leaves
from jaxconf.models.leaves import nest


@dataclasses.dataclass(frozen=True)
class Tune:
    """Train a model further, and compare."""

    model: Model
    """a folder in Hugging Face layout with a tokenizer, or "bundled", the small model that comes with jaxconf"""
    data: str
    """text that the model can read, as for `jaxconf analyze`"""
    out: Path
    """the folder to write"""
    steps: int = 500
    batch: int = 8
    """sequences in a step, each as long as the model's context"""
    learning_rate: float = 1e-3
    """the highest learning rate; it falls to a tenth along a cosine"""
    tokens: int = 16384
    """how many tokens of each text the models are compared on"""
    seed: int = 0


def tune(lm: jaxconf.LanguageModel, job: Tune, folder: Path) -> list[float]:
    """Write the tuned model to `folder`, and return the loss of each step, nats per token.

    Weight decay is 0.1 on matrices.
    """
    corpus = read_corpus(lm.config.vocab_size, lm.config.n_positions, job.data, lm.folder)
    matrices = nest((leaf.path, leaf.init in ("normal", "residual")) for leaf in leaves(lm.config))
    warmup, end = job.steps // 50 + 1, 0.1 * job.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, job.learning_rate, warmup, job.steps + 1, end)
    adamw = optax.adamw(rate, b2=0.95, weight_decay=0.1, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, tokens: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits: Any = forward(lm.config, params, tokens[:, :-1]).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params = jax.tree.map(np.array, lm.params)
    state, losses = optimizer.init(params), []
    for i in range(job.steps):
        params, state, loss = step(params, state, corpus.batch(job.seed, i, job.batch, lm.config.n_positions))
        losses.append(float(loss))
    folder.mkdir(parents=True, exist_ok=True)
    save_params(lm.config, params, folder / "model.safetensors")
    write_tokenizer(corpus, folder)
    shutil.copyfile(lm.folder / "config.json", folder / "config.json")
    return losses


def main() -> None:
    job = tyro.cli(Tune)
    tuned = job.out / "tuned"
    losses = tune(jaxconf.load(job.model), job, tuned)
    (tuned / "losses.json").write_text(json.dumps(losses))
    first, last = np.mean(losses[:10]), np.mean(losses[-50:])
    print(f"loss {first:.3f} nats per token in the first 10 of {job.steps} steps, {last:.3f} in the last 50")
    how = ("--tokens", str(job.tokens), "--seed", str(job.seed), "--force")
    for data, out in ((job.data, job.out), (OWN, job.out / "own")):
        cli.main(["compare", job.model, str(tuned), "--data", data, "--out", str(out), *how])


if __name__ == "__main__":
    main()
