"""The page of `jaxconf steer`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.studies.steering.sentences import sentences

if TYPE_CHECKING:
    from jaxconf.studies.steering.study import Steering

SOURCE = "“Confidence Regulation Neurons in Language Models” (Stolfo et al., NeurIPS 2024)"

CAPTIONS = {
    "steer_doses": (
        "Doses",
        "Left and middle: where a curve runs below the others at the same entropy, that treatment has a smaller "
        "calibration error or a smaller loss. Right: the accuracy, which the temperature never changes.",
    ),
    "steer_best": (
        "Which calibrates best",
        "Each treatment at the dose that was chosen on the other half of the documents, with 95% intervals.",
    ),
}
COLUMNS = ["dose", "ece", "ece_change", "loss", "loss_change", "entropy", "accuracy", "accuracy_change"]


def page(found: "Steering", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    best = found.best[found.best["kind"] != "random"]
    sets = "; ".join(f"{name}: {neurons}" for name, neurons in found.facts["sets"].items())
    return study_page(
        files(__package__) / "page.html",
        "steer",
        found.facts,
        "Steering",
        SOURCE,
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, CAPTIONS),
        best=frame_table(best, "treatment", COLUMNS),
        text=frame_table(found.text, "treatment", ["dose", "entropy", "loss_as_loaded", "repeated"]),
        facts=facts({**found.facts, "sets": sets}),
    )
