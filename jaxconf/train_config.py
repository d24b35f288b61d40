"""What is trained and how; apart from the training itself, so that the command line can show it without loading JAX."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A GPT-NeoX decoder with tied embeddings and serial blocks, and how to train it."""

    layers: int = 3
    width: int = 64
    heads: int = 2
    neurons: int = 256
    vocab_size: int = 512
    context: int = 256
    """tokens in a sequence"""
    steps: int = 4000
    batch: int = 32
    """sequences in a step"""
    learning_rate: float = 2e-3
    """at its peak; it warms up over the first 2% of the steps and falls along a cosine to a tenth"""
    weight_decay: float = 0.1
    """of AdamW, on matrices only"""
    clip: float = 1.0
    """largest norm of the gradient"""
    seed: int = 0
