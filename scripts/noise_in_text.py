"""Does a model that learns a world of known noise have entropy neurons that also act on plain text?

python scripts/noise_in_text.py [--out runs/noise_in_text] [--seeds 4] [--steps 2000]

Trains models on Python's standard library with noise documents mixed in (0, 10 and 50% of the tokens), and on noise
first and plain text afterwards, all with one tokenizer. Each is then analysed on plain text and on noise. Writes
docs/noise_in_text.md. A model that is already there is not trained again.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

import jaxconf
from jaxconf.data.corpus import Corpus, read_corpus, write_tokenizer
from jaxconf.data.documents import documents
from jaxconf.models.files import replacing
from jaxconf.training.config import TrainConfig
from jaxconf.training.trainer import train_models

NOISE = "noise:words=96,levels=8,zipf=0"
PIECE = 2000  # characters of a text document, so that documents of both kinds are about as long
CHARACTERS = 4_000_000  # of each kind of text
BASE = TrainConfig(width=64, heads=2, neurons=256, vocab_size=640, context=64, batch=16, learning_rate=4e-3)
PAGE = Path(__file__).parents[1] / "docs" / "noise_in_text.md"
SHARES = {"text only": 0.0, "10% noise": 0.1, "50% noise": 0.5}
FIRST = "noise first, then text"


def pieces(source: str) -> Iterator[str]:
    """The first CHARACTERS of a source in documents of at most PIECE characters."""
    left = CHARACTERS
    for document in documents(source):
        for start in range(0, len(document), PIECE):
            yield document[start : start + PIECE]
            left -= PIECE
            if left <= 0:
                return


def both() -> Iterator[str]:
    """Documents of text and of noise by turns."""
    for text, noise in zip(pieces("stdlib"), pieces(NOISE), strict=False):
        yield text
        yield noise


@dataclasses.dataclass(frozen=True)
class Mixture(Corpus):
    """A corpus of text, of whose sequences a share comes from noise; that may change at half of the steps."""

    noise: Corpus | None = None
    share: float = 0.0
    until: int | None = None  # the share is 1 before this step, and 0 from it on

    def batch(self, seed: int, step: int, batch: int, context: int) -> np.ndarray:
        assert self.noise
        share = self.share if self.until is None else float(step < self.until)
        of_text = super().batch(seed, step, batch, context)
        of_noise = self.noise.batch(seed, step, batch, context)
        chosen = np.random.default_rng([seed, step, 1]).random(batch) < share
        return np.where(chosen[:, None], of_noise, of_text)


def trained(name: str, config: TrainConfig, text: Corpus, noise: Corpus, folders: list[Path]) -> None:
    if all((folder / "config.json").is_file() for folder in folders):
        return
    until = config.steps // 2 if name == FIRST else None
    mixture = Mixture(**{f.name: getattr(text, f.name) for f in dataclasses.fields(Corpus)})
    mixture = dataclasses.replace(mixture, noise=noise, share=SHARES.get(name, 0.0), until=until)
    configs = [dataclasses.replace(config, seed=seed) for seed in range(len(folders))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(text, folder)
    print(name, flush=True)
    train_models(configs, mixture, folders, folders[0].parent / "checkpoints" / name, report=report)


def report(step: int, measured: dict[str, float]) -> None:
    if step % 500 == 0:
        print(f"  step {step}: {measured['loss']:.3f} nats, {measured['tokens_per_second']:,.0f} tokens/s", flush=True)


def row(name: str, folder: Path, of: dict[str, Corpus], tokens: int, context: int) -> dict[str, object]:
    """A model's named neurons on held-out text and noise, and how many are named on both."""
    lm, found, named = jaxconf.load(folder), {"model": name}, {}
    for kind, corpus in of.items():
        counts = corpus.counts(lm.config.vocab_size)
        table = jaxconf.analyze(lm, corpus.held_out_windows(tokens, context), counts=counts)
        named[kind] = set(table.members("entropy")["neuron"])
        found |= {
            f"loss on {kind}": table.facts["loss"],
            f"entropy neurons on {kind}": len(named[kind]),
            f"frequency neurons on {kind}": len(table.members("frequency")),
            f"largest ln_mediated above chance on {kind}": table.frame.loc[
                table.frame["rho"] > table.frame["rho_chance"], "ln_mediated"
            ].max(),
        }
    return {**found, "entropy neurons on both": len(named["text"] & named["noise"])}


def page(table: pd.DataFrame, config: TrainConfig, tokens: int) -> str:
    names = [name for name in table if name != "model"]
    lines = [
        "# Noise in text: do the neurons carry over?",
        "",
        f"Written by `scripts/noise_in_text.py`. Models of width {config.width}, {config.neurons} neurons, "
        f"{config.layers} layers and {config.vocab_size} tokens were trained for {config.steps:,} steps of "
        f"{config.batch * config.context:,} tokens on Python's standard library, on it with documents of `{NOISE}` "
        "mixed in, or on noise for the first half of the steps and on text alone for the second. All have one "
        f"byte-level BPE, trained on both. Each model was analysed on {tokens:,} held-out tokens of plain text and of "
        "noise; neurons are named by the rule `default`. A cell lists the seeds in their order; a dash means that no "
        "neuron has rho above chance.",
        "",
        "| model | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for model, rows in table.groupby("model", sort=False):
        cells = [", ".join("–" if pd.isna(x) else f"{x:.3g}" for x in rows[name]) for name in names]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(out: Path = Path("runs/noise_in_text"), seeds: int = 4, steps: int = 2000, tokens: int = 8192) -> None:
    config = dataclasses.replace(BASE, steps=steps)
    out = out / f"{steps} steps"  # so that no models of another number of steps are taken for these
    read = functools.partial(read_corpus, config.vocab_size, config.context)
    shared = out / "tokenizer"
    shared.mkdir(parents=True, exist_ok=True)
    write_tokenizer(read(both), shared)
    of = {"text": read(lambda: pieces("stdlib"), shared), "noise": read(lambda: pieces(NOISE), shared)}
    rows = []
    for name in (*SHARES, FIRST):
        folders = [out / name / f"seed={seed}" for seed in range(seeds)]
        trained(name, config, of["text"], of["noise"], folders)
        rows += [row(name, folder, of, tokens, config.context) for folder in folders]
        with replacing(PAGE) as path:
            path.write_text(page(pd.DataFrame(rows), config, tokens))


if __name__ == "__main__":
    tyro.cli(main)
