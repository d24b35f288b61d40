"""What is trained and how. Apart from the training itself, so that the command line can show it without loading JAX."""

import dataclasses
from typing import Literal

from jaxconf.models.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A decoder and how to train it."""

    model_type: Literal["gpt2", "gpt_neox", "llama", "stablelm"] = "gpt_neox"
    """family; gpt2 has learned positions, the others rotary ones; llama has RMSNorm, the others LayerNorm; llama and
    stablelm have gated MLPs"""
    layers: int = 2
    width: int = 96
    heads: int = 3
    neurons: int = 384
    """in the MLP of each layer"""
    vocab_size: int = 512
    context: int = 256
    """tokens in a sequence"""
    tied: bool = True
    """the unembedding is the embedding"""
    attributes: tuple[str, ...] = ()
    """further attributes of the family's config.json as NAME=VALUE, the value in JSON: use_parallel_residual=true"""
    steps: int = 3000
    batch: int = 32
    """sequences in a step"""
    microbatch: int | None = None
    """sequences that a device works on at once; gradients are summed over the batch; by default all of the batch, on a
    CPU about 512 tokens"""
    learning_rate: float = 2e-3
    """at its peak"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """after the warm-up: down to a tenth along a cosine, or constant"""
    warmup: float = 0.02
    """share of the steps in which the learning rate rises to its peak"""
    weight_decay: float = 0.1
    """of AdamW, on matrices only"""
    clip: float = 1.0
    """largest norm of the gradient"""
    dropout: float = 0.0
    """of the embedding, the attention pattern and what attention and MLP add to the stream"""
    z_loss: float = 0.0
    """factor on the square of the logits' log-sum-exp, added to the loss"""
    label_smoothing: float = 0.0
    """share of the target that is spread over the whole vocabulary"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the forward and backward pass; parameters, optimiser and loss are always float32"""
    seed: int = 0
    """of the start values, the order of the data and dropout"""

    def shared(self) -> "TrainConfig":
        """With the defaults of PER_MODEL; the same for all models that one program can train."""
        return dataclasses.replace(self, **{name: getattr(TrainConfig, name) for name in PER_MODEL})

    def check(self) -> None:
        """Raises InputError for values that are out of range or do not fit one another."""
        for name in ("layers", "width", "heads", "neurons", "vocab_size", "context", "steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in ("weight_decay", "z_loss"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more")
        for name in ("dropout", "label_smoothing", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a share from 0 to below 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; give a number from 0 to {2**32 - 1}")
        if self.width % self.heads:
            raise InputError(f"a width of {self.width} does not divide into {self.heads} heads; choose numbers that do")
        if self.microbatch is not None and (self.microbatch < 1 or self.batch % self.microbatch):
            raise InputError(
                f"a batch of {self.batch} does not divide into microbatches of {self.microbatch}; "
                "choose numbers that do"
            )


# The settings in which models that one program trains side by side may differ: they are numbers, not shapes.
PER_MODEL = ("learning_rate", "weight_decay", "clip", "dropout", "z_loss", "label_smoothing", "seed")

PRESETS: dict[str, TrainConfig] = {
    "tiny": TrainConfig(),
    "small": TrainConfig(
        layers=6,
        width=320,
        heads=5,
        neurons=1280,
        vocab_size=8192,
        context=512,
        steps=10_000,
        batch=64,
        learning_rate=1e-3,
    ),
    "gpt2-small-shape": TrainConfig(
        model_type="gpt2",
        layers=12,
        width=768,
        heads=12,
        neurons=3072,
        vocab_size=50257,
        context=1024,
        steps=100_000,
        batch=64,
        microbatch=8,
        learning_rate=6e-4,
        precision="bfloat16",
    ),
}


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """What is measured while a model is trained."""

    points: int = 40
    """steps at which the weights are measured, evenly spaced on a log scale; 0 for none"""
    effects_every: int = 4
    """at every so many of these steps, counted from the last, the effects of all neurons of the last layer are
    measured too; 0 for never"""
    tokens: int = 4096
    """held-out tokens for loss, calibration and effects"""
    k: int | None = None
    """size of the unembedding's effective null space; 1% of the width by default"""

    def check(self) -> None:
        """Raises InputError for values that are out of range."""
        for name in ("points", "effects_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.tokens < 1:
            raise InputError(f"tokens is {self.tokens}; give how many held-out tokens to measure on")
