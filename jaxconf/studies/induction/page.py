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
        "If the model has learnt induction, entropy and loss fall after the dashed line, once the first repeated "
        "tokens have been seen.",
    ),
    "induction_activations": (
        "Activations (Figure 5a)",
        "The activations of entropy neurons are expected to change where the repeat begins, those of random neurons "
        "are not.",
    ),
    "induction_change": (
        "Change from first copy to second (Figure 11)",
        "Each point is a neuron. Neurons at the right and far from zero write into the null space, and write more or "
        "less when text repeats.",
    ),
    "induction_ablations": (
        "Clip mean-ablation (Figure 5b)",
        "Activations beyond the mean of the first copy are set back to it. If the red line of the entropy is below the "
        "grey ones, the neurons raised the entropy. Where the dotted line stays at zero, the effect passes through the "
        "norm.",
    ),
    "induction_heads": (
        "Induction heads",
        "The score is the mean attention from a token of the repeat to the token after its first occurrence. On the "
        "right is the change of the loss on the repeat if heads attend to BOS alone, one by one and together.",
    ),
    "induction_head_activations": (
        "Neurons without induction heads (Figure 5c)",
        "If a red point is further from the black line than the grey ones are, the neuron depends on these heads.",
    ),
    "induction_doses": (
        "Scaling the activations",
        "If the neurons only change the temperature, entropy and calibration change steadily with the factor, and the "
        "accuracy does not change. The random sets show what other neurons do.",
    ),
    "induction_temperature": (
        "Do the neurons change only the temperature?",
        "The temperature that mimics each scaling best (by least squares, weighted by the model's own probabilities), "
        "and the share of the change of the log-probabilities that it explains. The share is 1 if the neurons change "
        "nothing but the temperature.",
    ),
    "induction_natural": (
        "Natural induction",
        "Six tokens occur exactly twice in a window. On the left are the activations on these tokens both times, on "
        "the right the effects of clip mean-ablation where they end the second time.",
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
