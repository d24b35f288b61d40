"""The options of `jaxconf analyze`, and the groups of them that other commands have too.

The text below a field is its help on the command line, with the same line breaks. Importing this module does not load
JAX, so that the help appears at once.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxconf.analysis.kinds import Kind


@dataclasses.dataclass(frozen=True)
class Source:
    """Which model is measured."""

    model: str = "bundled"
    """a folder in Hugging Face layout, a hub id such as openai-community/gpt2,
    or "bundled", the small model that comes with jaxconf"""
    revision: str | None = None
    """the branch, tag or commit on the hub"""
    accept: tuple[str, ...] = ()
    """attributes of config.json that jaxconf does not know and that you know not to change the model's outputs,
    with commas between them; may be given several times"""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where the results go."""

    out: Path | None = None
    """the folder for the results, which several commands may share; runs/MODEL by default"""
    force: bool = False
    """replace what this command wrote into the folder before"""

    def folder(self, model: str) -> Path:
        """The folder for the results of a model."""
        return self.out or Path("runs") / Path(model).resolve().name


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How the model is measured."""

    k: int | None = None
    """size of the unembedding's effective null space;
    by default that of Stolfo et al. for a model of theirs, or else 1% of the width"""
    seed: int = 0
    """the seed of everything that is drawn at random"""
    memory: str = "4GB"
    """how much of each device's memory a batch may take, beside the weights, such as 4GB or 500MB"""
    mesh: str | None = None
    """how many devices split the text (data) and the weights (model), such as data=4,model=2;
    by default as few devices as possible split the weights, and the others split the text"""
    profile: Path | None = None
    """a folder for a trace of what JAX does, which TensorBoard and Perfetto show"""


@dataclasses.dataclass(frozen=True)
class Resampling(Measuring):
    """How the model is measured."""

    bootstrap_draws: int = 1000
    """resamples of the documents, or sequences, behind each interval"""


@dataclasses.dataclass(frozen=True)
class _Analysis:
    """What `jaxconf analyze` alone takes."""

    data: str = "own"
    """text: a .txt, .jsonl or .json (lines; also .gz and .zst), .csv or .parquet file, a folder of these,
    hf://datasets/OWNER/NAME, of which :subset=en,split=train behind it names a part,
    "stdlib", Python's standard library, synthetic text, such as noise or copies:words=64,
    or "own", what the model was trained on if its folder says so (as for synthetic text), and else stdlib"""
    text_column: str | None = None
    """what holds the text: the column of a table, or the key of JSON lines, by default "text";
    the same as :column=NAME at the end of --data"""
    tokens: int = 16384
    """how many tokens to analyse, in windows of 256 (or of the model's context, if that is shorter); at least one"""
    counts: Path | None = None
    """token counts as .npy (see `jaxconf unigram`); by default those of the first 40 million characters of --data;
    a model's tokens beyond those of its tokenizer may be left out, and count as 0 (any tokens, without a tokenizer)"""
    components: str = "neurons"
    """what is measured, with commas between: neurons; of the last layer also heads, biases, null (the directions of
    the unembedding's null space), pc=8 (principal components), sae=FOLDER (an autoencoder's or transcoder's latents,
    as SAE Lens or Gemma Scope store them), directions=FILE (.npz)"""
    head_ablation: Literal["mean", "zero", "resample"] = "mean"
    """what a head's output is set to: its mean, zero, or its value at the same position of another window"""
    ablation: Kind = "mean"
    """what a neuron's activation is set to: its mean, median, mode or minimum over the text,
    three standard deviations above or below its mean, zero, a fixed value, a multiple of itself (scale),
    or its mean where it exceeds that (clip)"""
    ablation_value: float | None = None
    """with --ablation fixed: the value; with scale: the factor;
    with clip: 1 to clip activations above the mean (the default), -1 to clip those below it"""
    convention: Literal["paper", "raw"] = "paper"
    """of the weight statistics: weights folded and centred as in the paper, or raw; the effects do not depend on it"""
    layer: int | Literal["last", "all"] = "last"
    """the layer whose neurons are measured, counted from 0;
    for a neuron below the last layer, the layers above it are run again, which takes far longer"""
    frozen: Literal["final", "all"] = "final"
    """the norms that keep their scale in the effects with the norm frozen: the final one, or all above the neuron"""
    set: tuple[str, ...] = ()
    """neurons that are also ablated together, such as 11.584,11.2378, or a file with such a set on each line;
    or directions or latents of --components, such as sae.12,sae.99; may be given several times"""
    controls: int = 20
    """random sets to compare each --set with, each of as many neurons of the same layers"""
    per_token: str | None = None
    """neurons, such as 11.584,11.2378, or directions or latents of --components, such as sae.12,sae.99, whose effect at
    every kept position is also written"""
    engine: Literal["auto", "exact", "adaptive"] = "auto"
    """exact computes with every token of the vocabulary;
    adaptive computes with the likely tokens and bounds the error from the others;
    auto is adaptive for large vocabularies"""
    tolerance: float = 1e-4
    """the largest error of the adaptive engine at any position, in nats"""
    nulls: int = 200
    """random write directions, measured beside the neurons as a baseline for the mediated shares:
    at least 200, or 0 for none, without which no neuron meets a rule"""
    min_ln_mediated: float = 0.3
    """entropy neurons: the least share of their effect on the loss that passes through the norm's scale
    (the lower end of its interval)"""
    max_q: float = 0.01
    """both kinds: the largest false discovery rate of the mediated share"""
    min_change: float = 0.01
    """the least mean |change|, in nats: of the entropy (entropy neurons),
    or of D_KL(P_freq || P_model) (frequency neurons)"""


@dataclasses.dataclass(frozen=True)
class AnalyzeOptions(Resampling, Output, _Analysis, Source):
    """All options of `jaxconf analyze`, and the argument of `jaxconf.run`."""
