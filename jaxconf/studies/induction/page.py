"""The page of `jaxconf induction`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import picture_page
from jaxconf.studies.induction.sentences import sentences

if TYPE_CHECKING:
    from jaxconf.studies.induction.study import Induction

MOST_HEADS = 20

CAPTIONS = {
    "induction_positions": (
        "Repeated text (Figure 10)",
        "Where the model has learnt to look back, entropy and loss fall after the dashed line, once the first "
        "repeated tokens have been seen.",
    ),
    "induction_activations": (
        "Activations (Figure 5a)",
        "Entropy neurons are expected to change at the repeat, where random neurons do not.",
    ),
    "induction_change": (
        "Change from first copy to second (Figure 11)",
        "Each point is a neuron: far from zero and to the right, its null-space write changes when text repeats.",
    ),
    "induction_ablations": (
        "Clip mean-ablation (Figure 5b)",
        "Activations beyond the mean of the first copy are put back to it. A red line below the grey ones: the "
        "neurons held the entropy up. Where the dotted line stays at zero, the effect passes through the norm.",
    ),
    "induction_heads": (
        "Induction heads",
        "The score is the mean attention from a token of the repeat to the token after its first occurrence. To "
        "the right, what the loss on the repeat becomes where heads look at BOS alone, one by one and together.",
    ),
    "induction_head_activations": (
        "Neurons without induction heads (Figure 5c)",
        "A red point that leaves the black line further than the grey ones: the neuron listens to these heads.",
    ),
    "induction_doses": (
        "Dose and response",
        "A temperature knob would move entropy and calibration steadily with the dose, and leave accuracy where it "
        "is; random sets show what any neurons do.",
    ),
    "induction_temperature": (
        "Are these the model's temperature knob?",
        "The temperature that mimics each dose best, weighted by the model's own probabilities, and the share of "
        "the change of the log-probabilities that it explains: 1 for a pure knob.",
    ),
    "induction_natural": (
        "Natural induction",
        "Six tokens that a window holds exactly twice: activations along them the first time and the second, and "
        "what clip mean-ablation changes at the second place.",
    ),
}


def page(found: "Induction", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    heads = found.heads.sort_values("score", ascending=False).head(MOST_HEADS)
    doses = found.doses[found.doses["kind"] == "set"]
    return picture_page(
        files(__package__) / "page.html",
        "induction",
        str(found.facts["model"]),
        "When text repeats",
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, {"induction_doses"}),
        sets=frame_table(found.sets, "set", ["entropy", "entropy_ln_frozen", "loss", "loss_ln_frozen"]),
        heads=frame_table(
            heads.assign(name=heads["layer"].astype(str) + "." + heads["head"].astype(str)), "name", ["score"]
        ),
        head_sets=frame_table(found.head_sets, "set", ["entropy", "loss"]),
        doses=frame_table(
            doses, "data", ["factor", "loss", "entropy", "ece", "brier", "top1", "temperature", "explained"]
        ),
        facts=facts(found.facts),
    )
