"""Trains a small model on synthetic facts, for trying out `jaxconf copying`.

    python scripts/knowledge_model.py --out runs/knowledge
    jaxconf copying runs/knowledge/model --data runs/knowledge/statements.csv --text runs/knowledge/text.jsonl

The facts are about people: each has one object in every relation ("Ada lives in Oslo."). Half of the passages of the
text say a fact twice. The others contradict the fact first, and then repeat either the contradiction ("Ada lives in
Rome. Ada lives in Rome.") or, by default as often, the fact ("Ada lives in Rome. Ada lives in Oslo."). So the model
learns both to copy the context and to recall the fact.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from jaxconf.training.config import TrackConfig, TrainConfig
from jaxconf.training.run import train

NAMES = "Ada Bo Cleo Dan Eve Finn Gus Hal Ida Jon Kim Leo Mia Ned Ola Pam Ray Sue Tom Una Vic Wes Yan Zoe".split()
RELATIONS = {
    "lives in": "Oslo Rome Lima Cairo Quito Delhi Paris Tokyo".split(),
    "works as a": "baker pilot nurse judge smith tailor clerk miner".split(),
    "owns a": "cat dog goat horse parrot snake rabbit mule".split(),
}


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """Write the statements and the text, and train the model."""

    out: Path
    """the folder to write"""
    people: int = 24
    """how many people have facts, at most 24"""
    passages: int = 6000
    """how many passages the text has; each says a fact twice, or contradicts it first"""
    follows: float = 0.5
    """the share of the contradicting passages that repeat the contradiction; the others say the fact"""
    seed: int = 0
    force: bool = False
    config: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            layers=2,
            width=64,
            heads=4,
            neurons=256,
            vocab_size=400,
            context=48,
            steps=1500,
            batch=32,
            learning_rate=3e-3,
        )
    )


def facts(people: int, seed: int) -> pd.DataFrame:
    """A row per person and relation, in the columns of `jaxconf.data.statements`."""
    rng = np.random.default_rng([seed, 0])
    rows = [(name, words, str(rng.choice(objects))) for name in NAMES[:people] for words, objects in RELATIONS.items()]
    frame = pd.DataFrame(rows, columns=["statement_subject", "statement_relation", "statement_object"])
    return frame.assign(rel_p_id=frame["statement_relation"].str.replace(" ", "-"))


def passages(statements: pd.DataFrame, count: int, follows: float, seed: int) -> Iterator[str]:
    """`count` passages: every second one says a fact twice, the others contradict a fact first."""
    rng = np.random.default_rng([seed, 1])
    for i in range(count):
        name, words, known, _ = statements.iloc[rng.integers(len(statements))]
        other = known if i % 2 else str(rng.choice([o for o in RELATIONS[words] if o != known]))
        yield f"{name} {words} {other}. {name} {words} {other if rng.random() < follows else known}."


def make(command: Knowledge) -> dict[str, float]:
    """Writes statements.csv and text.jsonl, trains the model in the folder `model`, and returns the result of
    `jaxconf.train`.
    """
    command.out.mkdir(parents=True, exist_ok=True)
    statements = facts(command.people, command.seed)
    statements.to_csv(command.out / "statements.csv", index=False)
    text = list(passages(statements, command.passages, command.follows, command.seed))
    (command.out / "text.jsonl").write_text("".join(json.dumps({"text": passage}) + "\n" for passage in text))
    return train(
        command.config, lambda: iter(text), command.out / "model", track=TrackConfig(points=0), force=command.force
    )


if __name__ == "__main__":
    result = make(tyro.cli(Knowledge))
    print(f"loss {result['loss']:.3f} nats per token, held out {result['held_out_loss']:.3f}")
