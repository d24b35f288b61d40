"""A small model of a synthetic knowledge base, in which context and memory are both heeded: what `jaxconf copying` is
tried on.

    python scripts/knowledge_model.py --out runs/knowledge
    jaxconf copying runs/knowledge/model --data runs/knowledge/statements.csv --text runs/knowledge/text.jsonl

People, who each have a fact in every relation. The text recalls them ("Ada lives in Oslo. "), and has passages that
contradict them and go on with the contradiction or, as often, with the fact ("Ada lives in Rome. Ada lives in Rome." or
"… in Oslo."), so that the model learns both.
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
    """up to 24"""
    passages: int = 6000
    """of the text; each says a fact twice, or contradicts it"""
    follows: float = 0.5
    """the share of contradictions that the passage goes on with"""
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
    """Every second one recalls a fact, the others contradict one and go on with either."""
    rng = np.random.default_rng([seed, 1])
    for i in range(count):
        name, words, known, _ = statements.iloc[rng.integers(len(statements))]
        other = known if i % 2 else str(rng.choice([o for o in RELATIONS[words] if o != known]))
        yield f"{name} {words} {other}. {name} {words} {other if rng.random() < follows else known}."


def make(command: Knowledge) -> dict[str, float]:
    """Writes statements.csv and text.jsonl, and trains the model in the folder `model`; gives what `jaxconf.train`
    does.
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
