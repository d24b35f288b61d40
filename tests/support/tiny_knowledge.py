"""A model that knows a few facts, and the statements and the text about them: recorded, and how it was made."""

from pathlib import Path

import knowledge_model
import pytest

from jaxconf.training.config import TrainConfig

RECORDED = Path(__file__).parent / "recorded" / "knowledge"  # what make_knowledge gave, without its losses
TINY = TrainConfig(
    layers=1, width=32, heads=2, neurons=64, vocab_size=300, context=32, steps=250, batch=16, learning_rate=6e-3
)


def make_knowledge(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            knowledge_model,
            "RELATIONS",
            {words: knowledge_model.RELATIONS[words][:5] for words in ("lives in", "works as a")},
        )
        knowledge_model.make(knowledge_model.Knowledge(folder, people=8, passages=600, follows=0.6, config=TINY))
    return folder
