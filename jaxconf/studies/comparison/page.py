"""The page of `jaxconf compare`: one HTML file that holds everything it needs and opens offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.report.markup import facts, frame_table, pictures
from jaxconf.report.markup import paragraphs as marked_up
from jaxconf.report.picture_page import picture_page
from jaxconf.report.play.page import link
from jaxconf.studies.comparison.models import name_of
from jaxconf.studies.comparison.sentences import paragraphs

if TYPE_CHECKING:
    from jaxconf.studies.comparison.study import Comparison

SOURCE = "“How Post-Training Reshapes LLMs” (Du et al., 2025)"

CAPTIONS = {
    "comparison_norm_logitvar": (
        "Norm and LogitVar",
        "Candidates for entropy neurons lie at the lower right: they have a large norm and hardly change any token's "
        "logit. A red point without a ring was a candidate in the base model and is not one here.",
    ),
    "comparison_overlap": (
        "Overlap over thresholds",
        "The share of candidates that both models have in common (IoU), for each pair of thresholds. Above the grey "
        "band: more than permuted neurons have in common. Above the red band: more than large norms alone explain.",
    ),
    "comparison_changes": (
        "Before and after",
        "If the red points lie further from the line than the grey ones, training changed the candidates more than "
        "other neurons.",
    ),
    "comparison_matching": (
        "Write directions of matched neurons",
        "If the curves rise only at the right, every neuron writes in nearly the same direction as before. Where the "
        "dotted curve lies to the left of the solid one, neurons have changed their index, or have moved so far that "
        "the direction of another neuron is nearer.",
    ),
    "comparison_calibration": (
        "Calibration",
        "Points below the diagonal: the model is overconfident. The table has the intervals of the changes from the "
        "base model. They are narrower than the intervals drawn here, because both models predict the same positions.",
    ),
}
BROAD = {"comparison_overlap"}
CANDIDATE_COLUMNS = ("w_norm", "logit_var", "ratio", "rho", "ln_mediated", "entropy_delta", "loss_abs_delta")


def page(found: "Comparison", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    tuned = found.facts["tuned"]
    return picture_page(
        files(__package__) / "page.html",
        "comparison",
        name_of(found, found.facts["base"]),
        f"Beside {', '.join(name_of(found, name) for name in tuned)}",
        SOURCE,
        link(found.facts),
        verdict=marked_up(paragraphs(found)),
        figures=pictures(images, CAPTIONS, BROAD),
        overlaps="".join(_headed(name_of(found, name), _overlaps(_of(found.overlaps, name))) for name in tuned),
        candidates="".join(_headed(name_of(found, name), _candidates(found, name)) for name in tuned),
        changes="".join(_headed(name_of(found, name), _changes(_of(found.changes, name))) for name in tuned),
        calibration=_calibration(found),
        facts=facts(found.facts),
    )


def _of(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    return frame[frame["model"] == model]


def _headed(name: str, table: str) -> str:
    return f'<h3 class="cell">{escape(name)}</h3>{table}'


def _overlaps(frame: pd.DataFrame) -> str:
    named = [
        f"top {share:.0%}, {lowest} lowest, by {by}"
        for share, lowest, by in zip(frame["share"], frame["lowest"], frame["by"], strict=True)
    ]
    columns = ["base", "tuned", "common", "iou", "chance", "norm_chance"]
    return frame_table(frame.assign(thresholds=named), "thresholds", columns)


def _candidates(found: "Comparison", tuned: str) -> str:
    """The pairs of matched neurons that are candidates in one of the models or in both."""
    pairs = found.pairs(tuned)
    chosen = pairs[pairs["is_candidate_base"] | pairs["is_candidate_tuned"]].copy()
    of = [
        "both" if a and b else "base" if a else "tuned"
        for a, b in zip(chosen["is_candidate_base"], chosen["is_candidate_tuned"], strict=True)
    ]
    layer = found.facts["layer"]
    chosen["neuron"] = [f"{layer}.{a}, {b}" for a, b in zip(chosen["neuron_base"], of, strict=True)]
    measured = [name for name in CANDIDATE_COLUMNS if chosen[f"{name}_tuned"].notna().any()]
    sides = [(name, side) for name in measured for side in ("base", "tuned")]
    # `frame_table` finds an interval by the name of its column, with _lo and _hi at the end.
    renamed = {f"{name}{end}_{side}": f"{name} {side}{end}" for name, side in sides for end in ("", "_lo", "_hi")}
    columns = ["matched with", "cosine", *(f"{name} {side}" for name, side in sides)]
    return frame_table(chosen.rename(columns={**renamed, "neuron_tuned": "matched with"}), "neuron", columns)


def _changes(frame: pd.DataFrame) -> str:
    shown = frame.rename(columns={"random_lo": "random change_lo", "random_hi": "random change_hi"})
    shown["random change"] = (shown["random change_lo"] + shown["random change_hi"]) / 2
    return frame_table(shown, "measure", ["base", "tuned", "change", "random change", "correlation"])


def _calibration(found: "Comparison") -> str:
    if not len(found.calibration):
        return "<p>No model has the base model's tokenizer, so none was run on the same tokens.</p>"
    renamed = {"value": "mean", "value_lo": "mean_lo", "value_hi": "mean_hi"}
    of_models = found.calibration.rename(columns=renamed).groupby("model", sort=False)
    return "".join(
        _headed(name_of(found, str(name)), frame_table(frame, "measure", ["mean", "change"]))
        for name, frame in of_models
    )
