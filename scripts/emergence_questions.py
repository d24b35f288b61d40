"""The questions of scripts/emergence_study.py, with what was expected of each setting.

They were written before the study was run, but after trials with few seeds of weight decay, of `inferred` and of
the stream's width.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

Expected = Literal["some", "none", "more", "fewer", "same"]
SAID: dict[Expected, str] = {
    "some": "at least half of the seeds have entropy neurons",
    "none": "no seed has an entropy neuron",
    "more": "more entropy neurons than the base",
    "fewer": "fewer entropy neurons than the base",
    "same": "as many entropy neurons as the base",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting: what differs from the base, and what was expected of it."""

    label: str
    expected: Expected
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    world: dict[str, Any] = dataclasses.field(default_factory=dict)


class Question(NamedTuple):
    """A factor, why it might matter, and its cells beside the base."""

    name: str
    why: str
    cells: list[Cell]


def _attribute(text: str) -> dict[str, Any]:
    return {"model_type": "opt", "attributes": (text,)}


TWO = {"zipf": 1.0, "chain": "cycle", "backgrounds": "two"}
BUNDLED = {"layers": 1, "width": 96, "neurons": 64, "steps": 4000}  # as in scripts/train_bundled.sh

QUESTIONS = [
    Question("base", "The world and recipe of `jaxconf train`.", [Cell("base", "some")]),
    Question(
        "range",
        "What these neurons are for is uncertainty that varies and can be told. With one ε for all there is nothing to "
        "do.",
        [
            Cell("one chain that never ends, one ε", "none", {}, {"levels": 1, "restart": False}),
            Cell("one ε", "none", {}, {"levels": 1}),
            Cell("ε from 0.35 to 0.65", "fewer", {}, {"least": 0.35, "most": 0.65}),
        ],
    ),
    Question(
        "signal",
        "ε must be told by the text: by a marker, or from the stretch so far. If nothing tells it, one confidence is "
        "best.",
        [Cell("inferred", "some", {}, {"signal": "inferred"}), Cell("none", "none", {}, {"signal": "none"})],
    ),
    Question(
        "background",
        "With Zipf's background the best guess at high ε is the unigram distribution, so that frequency neurons share "
        "the work.",
        [Cell("Zipf", "fewer", {}, {"zipf": 1.0})],
    ),
    Question(
        "norm",
        "An entropy neuron acts through the final norm's scale; without that norm there can be none.",
        [
            Cell("LayerNorm (opt)", "some", {"model_type": "opt"}),
            Cell("no final norm (opt)", "none", _attribute("_remove_final_layer_norm=true")),
            Cell("RMSNorm, gated (llama)", "some", {"model_type": "llama"}),
            Cell("LayerNorm, gated (stablelm)", "some", {"model_type": "stablelm"}),
        ],
    ),
    Question(
        "tied", "An unembedding of its own can leave a null space free.", [Cell("untied", "more", {"tied": False})]
    ),
    Question(
        "weight_decay",
        "Weight decay shrinks the directions of the unembedding that no word needs.",
        [Cell("0", "fewer", {"weight_decay": 0.0}), Cell("1", "more", {"weight_decay": 1.0})],
    ),
    Question(
        "dropout", "Paper: GPT-2 has dropout, Pythia none, and both have them.", [Cell("0.1", "same", {"dropout": 0.1})]
    ),
    Question(
        "z_loss",
        "z-loss holds the logits' size, which is what the scale sets.",
        [Cell("1e-3", "fewer", {"z_loss": 1e-3})],
    ),
    Question(
        "words",
        "A null direction needs room: the stream against the vocabulary (d/V).",
        [
            Cell(f"{words} words", expected, {}, {"words": words})
            for words, expected in ((64, "more"), (256, "fewer"), (32, "more"), (512, "fewer"))
        ],
    ),
    Question(
        "layers",
        "The last MLP suffices once attention has fetched the marker.",
        [Cell(str(n), "same", {"layers": n}) for n in (1, 3, 4)],
    ),
    Question(
        "neurons",
        "Many neurons can share the work, so that none does 0.01 nats of it.",
        [Cell(str(n), expected, {"neurons": n}) for n, expected in ((32, "fewer"), (384, "fewer"))],
    ),
    Question(
        "heads",
        "Attention fetches the marker; one head is enough for that.",
        [Cell("1", "same", {"heads": 1}), Cell("4", "same", {"heads": 4})],
    ),
    Question(
        "frequency",
        "Whether frequent words are likelier has to be decided anew after every word only with two backgrounds, as an "
        "exclusive or of marker and word. So frequency neurons are expected there and not with one background; they "
        "share the neurons with confidence. Asked after trials with one seed each.",
        [
            Cell("one background, Zipf, a cycle", "fewer", {}, {"zipf": 1.0, "chain": "cycle"}),
            Cell("two backgrounds, a cycle", "fewer", {}, TWO),
            Cell("two backgrounds, a permutation", "fewer", {}, {"zipf": 1.0, "backgrounds": "two"}),
            Cell("two backgrounds, the bundled model's recipe", "some", BUNDLED, TWO),
        ],
    ),
    Question(
        "pairs",
        "Two factors together: the controls with Zipf's background, where confidence is the unigram's share.",
        [
            Cell("Zipf, one ε", "none", {}, {"zipf": 1.0, "levels": 1}),
            Cell("Zipf, inferred", "fewer", {}, {"zipf": 1.0, "signal": "inferred"}),
        ],
    ),
]
