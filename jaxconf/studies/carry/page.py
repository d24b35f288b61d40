"""The page of `jaxconf carry`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.studies.carry.sentences import sentences
from jaxconf.studies.carry.verdicts import labels, table_of_verdicts

if TYPE_CHECKING:
    from jaxconf.studies.carry.study import Carry

SOURCE = "“Causal but Not Carrier” (Zahrivyi, 2026)"

CAPTIONS = {
    "carry_side_by_side": (
        "Influence and carrying",
        "Each point is a set: how much clipping it changes the entropy, and how well it predicts the entropy of "
        "other documents. A set at the right and at the height of the grey points is causal but not a carrier.",
    ),
    "carry_influence": (
        "Influence",
        "The mean |change of entropy| if high activations are clipped, for single members and for sets. Grey: random "
        "sets of as many. The dashed line is what the rule “gates” asks for.",
    ),
    "carry_r2": (
        "Carrying and decodability",
        "How much of the variance each set of features predicts in documents that were held out. The red sets may "
        "reach as far as the blue stream: that is all that can be decoded linearly.",
    ),
    "carry_components": (
        "Where it can be decoded",
        "R² from the first principal components of the stream, by their number. A curve that rises late says that what "
        "can be decoded lies in many directions, and not in those of the largest variance.",
    ),
}


def page(found: "Carry", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    neurons = found.influence[found.influence["kind"] == "neuron"]
    carrying = found.carrying[found.carrying["kind"] != "random"]
    columns = ["kind", "value", "split", "size", "r2", "gap", "penalty"]
    several, names = ["text"] if len(found.texts) > 1 else [], labels(found)
    verdicts = pd.concat([table_of_verdicts(found.of(text)) for text in found.texts])
    return study_page(
        files(__package__) / "page.html",
        "carry",
        found.facts,
        "Influence, carrying, decodability",
        SOURCE,
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, CAPTIONS),
        verdicts=frame_table(
            verdicts.assign(text=verdicts["data"].map(names)),
            "set",
            ["size", "influence", "R²", "random", "gap", "of decodable", "verdict", *several],
        ),
        influence=frame_table(
            neurons.assign(text=neurons["data"].map(names)), "set", ["positions", "entropy_abs_delta", *several]
        ),
        carrying=frame_table(carrying.assign(text=carrying["data"].map(names)), "set", [*columns, *several]),
        facts=facts(_flat(found.facts)),
    )


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """The facts with those about each text beside the others, and the sets in words."""
    sets = "; ".join(f"{name}: {', '.join(neurons)}" for name, neurons in found["sets"].items())
    of_texts = {
        f"{name} of {text}" if len(found["texts"]) > 1 else name: fact
        for text, of in found["texts"].items()
        for name, fact in of.items()
    }
    return {**{name: x for name, x in found.items() if name != "texts"}, "sets": sets, **of_texts}
