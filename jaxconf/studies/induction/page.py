"""The page of `jaxconf induction`: one HTML file with everything that it needs to open offline."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.report.markup import facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.studies.induction.sentences import sentences

if TYPE_CHECKING:
    from jaxconf.studies.induction.natural import Natural
    from jaxconf.studies.induction.study import Induction

MOST_HEADS = 20
EFFECTS = [name + end for name in ("entropy", "entropy_ln_frozen", "loss", "loss_ln_frozen") for end in ("", "_ratio")]

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
        "Mean ablation, clipped and full (Figure 5b)",
        "Clipped: activations beyond the mean of the first copy are set back to it, for single neurons (as in the "
        "paper) and for sets (ours). Full: all activations of a set are set to this mean (as in the paper). If the red "
        "line of the entropy is below the grey ones, the neurons raised the entropy. Where the dotted line stays at "
        "zero, the effect passes through the norm.",
    ),
    "induction_heads": (
        "Induction heads",
        "The score is the mean attention from a token of the repeat to the token after its first occurrence. The "
        "paper scores heads on random tokens and calls those above 0.7 induction heads. Ours are the highest on the "
        "sequences of this study. On the right is the change of the loss on the repeat if heads attend to BOS alone, "
        "one by one and together; the upper scale is the ratio of after to before.",
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
        "Six tokens A occur exactly twice in a window, first followed by B and then by X. On the left are the "
        "activations on A…B and on A…X, on the right the effects of ablation on the prediction after the second A, "
        "as changes and (upper and right scale) as ratios of after to before. Ours: clipped to the means over the "
        "first A. The paper's: without windows that have a BOS or EOS inside, set to the means of other text.",
    ),
}


def page(found: "Induction", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    doses = found.doses[found.doses["kind"] == "set"]
    return study_page(
        files(__package__) / "page.html",
        "induction",
        found.facts,
        "When text repeats",
        verdict=paragraphs(sentences(found)),
        figures=pictures(images, CAPTIONS, {"induction_doses", "induction_ablations", "induction_heads"}),
        sets=frame_table(found.sets, "set", ["ablation", *EFFECTS]),
        heads=_table_of_heads(found.heads),
        head_sets=frame_table(found.head_sets, "set", ["entropy", "entropy_ratio", "loss", "loss_ratio"]),
        natural=_table_of_natural_induction(found.natural),
        doses=frame_table(
            doses, "data", ["factor", "loss", "entropy", "ece", "brier", "top1", "temperature", "explained"]
        ),
        facts=facts(found.facts),
    )


def _table_of_heads(heads: pd.DataFrame) -> str:
    """The heads with the highest scores, on the sequences or on random tokens."""
    named = heads.assign(
        name=heads["layer"].astype(str) + "." + heads["head"].astype(str),
        highest=heads[["score", "score_random"]].max(axis=1),
    )
    shown = named.sort_values("highest", ascending=False).head(MOST_HEADS)
    return frame_table(shown, "name", ["score", "is_highest", "score_random", "is_above_threshold"])


def _table_of_natural_induction(natural: "Natural | None") -> str:
    if natural is None:
        return "<p>Not measured; --natural does it.</p>"
    return frame_table(natural.sets, "set", ["protocol", "ablation", *EFFECTS])
