"""The settings of training and of tracking.

They have a module of their own, so that the command line can show them without importing JAX.
"""

import dataclasses
from typing import Annotated, Literal

import tyro

from jaxconf.models.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A decoder and how to train it."""

    model_type: Literal["gpt2", "gpt_neox", "llama", "opt", "stablelm"] = "gpt_neox"
    """the family of models; gpt2 and opt have learned positions, the others rotary ones; llama has RMSNorm, the others
    LayerNorm; llama and stablelm have gated MLPs; opt has no final norm with the attribute
    _remove_final_layer_norm=true"""
    layers: int = 2
    width: int = 96
    heads: int = 3
    neurons: int = 384
    """neurons in the MLP of each layer"""
    vocab_size: int = 512
    context: int = 256
    """tokens in a sequence"""
    tied: bool = True
    """the unembedding shares the embedding's weights"""
    attributes: tuple[str, ...] = ()
    """further attributes of the family's config.json as NAME=VALUE with the value in JSON, such as
    use_parallel_residual=true"""
    steps: int = 3000
    batch: int = 32
    """sequences in a training step"""
    microbatch: int | None = None
    """sequences that a device processes at once; the gradients of the microbatches are averaged; by default all
    sequences that the device has of a batch, or on a CPU as many as have about 512 tokens"""
    learning_rate: float = 2e-3
    """the peak learning rate"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """the learning rate after the warm-up: a cosine decay to a tenth of the peak, or constant"""
    warmup: float = 0.02
    """share of the steps in which the learning rate rises to its peak"""
    weight_decay: float = 0.1
    """the weight decay of AdamW, which applies to matrices only"""
    clip: float = 1.0
    """the norm to which a larger gradient is clipped"""
    dropout: float = 0.0
    """the dropout rate of the embedding, of the attention pattern, and of the outputs of attention and MLP"""
    z_loss: float = 0.0
    """the weight of the z-loss, which is the squared log-sum-exp of the logits and is added to the loss"""
    label_smoothing: float = 0.0
    """share of the target that is spread over the whole vocabulary"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """the dtype of the forward and backward pass; parameters, optimiser state and loss are always float32"""
    seed: int = 0
    """the seed of the initial weights, of the order of the data and of dropout"""
    hold: str = ""
    """neurons that are held at zero while the model is trained, as LAYER.NEURON,LAYER.NEURON such as 1.17,1.203; others
    must then take their place; their output weights are zero in the model that is measured and saved"""
    hold_from: Annotated[int, tyro.conf.arg(name="from")] = 1
    """the first step, counted from 1, that is trained with the neurons of --hold at zero"""

    def shared(self) -> "TrainConfig":
        """This config with the settings of PER_MODEL at their defaults.

        It is equal for all models that one program can train.
        """
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
        if not 1 <= self.hold_from <= self.steps:
            raise InputError(f"hold_from (--from) is {self.hold_from}; give one of the steps, from 1 to {self.steps}")
        if self.hold_from > 1 and not self.hold:
            raise InputError(f"hold_from (--from) is {self.hold_from}, but no neurons are held; name them with --hold")


# The settings that may differ between models that one program trains side by side: no array's shape depends on them.
PER_MODEL = ("learning_rate", "weight_decay", "clip", "dropout", "z_loss", "label_smoothing", "seed")

PRESET_DATA = {"noise": "noise"}  # the text of a preset, which is Python's standard library for the others

PRESETS: dict[str, TrainConfig] = {
    "noise": TrainConfig(
        width=64,
        heads=2,
        neurons=96,
        vocab_size=137,
        context=64,
        steps=1200,
        batch=16,
        learning_rate=4e-3,
    ),
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
    """number of steps at which the weights are measured, evenly spaced on a log scale, besides step 0; 0 for none"""
    effects_every: int = 4
    """the effects of all neurons of the last layer are measured too at one in so many of these steps, counted back from
    the last; 0 for never"""
    tokens: int = 4096
    """held-out tokens on which loss, calibration and effects are measured"""
    k: int | None = None
    """size of the unembedding's effective null space;
    by default that of Stolfo et al. for a model of theirs, or else 1% of the width"""
    components: str = ""
    """other components than neurons that are measured at the steps with effects, such as heads,null;
    named as for --components of jaxconf analyze"""

    def check(self) -> None:
        """Raises InputError for values that are out of range."""
        for name in ("points", "effects_every"):
            if getattr(self, name) < 0:
                raise InputError(f"track.{name} is {getattr(self, name)}; give 0 or more")
        if self.tokens < 1:
            raise InputError(f"track.tokens is {self.tokens}; give at least 1")
