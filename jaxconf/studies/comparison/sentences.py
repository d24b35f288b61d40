"""How further training changed a model's neurons, in a few paragraphs."""

from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.results.words import interval_doubts, number, reading_notes
from jaxconf.studies.comparison.models import name_of

if TYPE_CHECKING:
    from jaxconf.studies.comparison.study import Comparison

MEASURES = {"loss": "loss", "entropy": "entropy", "brier": "Brier score", "accuracy": "accuracy", "ece": "ECE"}
OF_WEIGHTS = {"ratio": "norm/log(LogitVar)", "rho": "rho"}
OF_EFFECTS = {"ln_mediated": "ln_mediated", "entropy_delta": "the change of entropy by ablation (nats)"}
LIMITS = (
    "What this does not show: Candidates are named by their weights alone. A high overlap says that training kept "
    "write directions that are large and hardly change any logit. It does not say that these neurons regulate "
    "confidence in either model. LogitVar follows from the write direction, so neurons matched by cosine agree in it "
    "to some extent by construction. Calibration is measured on the next tokens of this text, and a change of any "
    "weight can change it."
)


def paragraphs(found: "Comparison") -> list[str]:
    """A paragraph for each tuned model, and then what the numbers do not show."""
    of_models = [" ".join(_of_model(found, tuned)) for tuned in found.facts["tuned"]]
    doubts = [] if found.calibration.empty else interval_doubts(found.facts)
    return [*of_models, *reading_notes(found.facts), *doubts, LIMITS]


def _of_model(found: "Comparison", tuned: str) -> list[str]:
    run = tuned not in found.facts["weights_only"]
    said = [_overlap(found, tuned), _matching(found, tuned), _changes(found, tuned, run)]
    if run:
        return [*said, _rule(found, tuned), _calibration(found, tuned)]
    return [
        *said,
        "Its tokenizer differs from the base model's, so only the weights are compared; effects and calibration are "
        "not.",
    ]


def _overlap(found: "Comparison", tuned: str) -> str:
    row, base = _at_default_thresholds(found, tuned, "index"), name_of(found, found.facts["base"])
    return (
        f"{name_of(found, tuned)} shares {row['common']:.0f} of {base}'s {row['base']:.0f} candidates "
        f"(the lowest LogitVar among the top {found.facts['share']:.0%} by norm): IoU {number(row['iou'])}, "
        f"{_beside(row, 'chance')} permuting the neurons gives, and {_beside(row, 'norm_chance')} drawing from those "
        "with a large norm gives."
    )


def _beside(row: pd.Series, name: str) -> str:
    more = "more than" if row["iou"] > row[f"{name}_hi"] else "no more than"
    return f"{more} the {number(row[name])} (95%: {number(row[f'{name}_lo'])} to {number(row[f'{name}_hi'])}) that"


def _matching(found: "Comparison", tuned: str) -> str:
    rows = found.neurons[found.neurons["model"] == tuned]
    chance, iou = found.facts["chance_cosine"], _at_default_thresholds(found, tuned, "cosine")["iou"]
    return (
        f"When neurons are matched one to one by the cosine of their write directions, "
        f"{(rows['match'] == rows['neuron']).sum():,} of {len(rows):,} neurons keep their index. The median cosine is "
        f"{number(rows['cosine'].median())}, and {(rows['cosine'] > chance).sum():,} cosines are above the chance "
        f"level of {number(chance)}. The IoU of the candidates is then {number(iou)}."
    )


def _at_default_thresholds(found: "Comparison", tuned: str, by: str) -> pd.Series:
    grid = found.overlaps[found.overlaps["model"] == tuned].set_index(["by", "share", "lowest"])
    return grid.loc[(by, found.facts["share"], found.facts["candidates"])]


def _changes(found: "Comparison", tuned: str, run: bool) -> str:
    changes = found.changes[found.changes["model"] == tuned].set_index("measure")
    words = OF_WEIGHTS | (OF_EFFECTS if run else {})
    told = [
        f"{what} goes from {number(row['base'])} to {number(row['tuned'])}, by {number(row['change'])} "
        f"({number(row['random_lo'])} to {number(row['random_hi'])})"
        for what, row in ((what, changes.loc[name]) for name, what in words.items())
    ]
    beyond = [what for name, what in words.items() if _outside(changes.loc[name])]
    if beyond:
        verdict = f"This is more than chance explains for {' and '.join(beyond)}"
    elif changes.loc[list(words), "random_lo"].notna().all():
        verdict = "This is no more than chance explains"
    else:
        verdict = "There are no random neurons to compare them with"
    return (
        f"The means over {name_of(found, found.facts['base'])}'s candidates change as follows (in brackets, the 95% "
        f"range of the change of as many random neurons with a large norm): {'; '.join(told)}. {verdict}."
    )


def _outside(row: pd.Series) -> bool:
    return bool(row["change"] < row["random_lo"] or row["change"] > row["random_hi"])


def _rule(found: "Comparison", tuned: str) -> str:
    pairs = found.pairs(tuned)
    meets = [pairs[f"is_entropy_neuron_{side}"] for side in ("base", "tuned")]
    rule = [int(of.sum()) for of in meets]
    both = [int((of & pairs[f"is_candidate_{side}"]).sum()) for of, side in zip(meets, ("base", "tuned"), strict=True)]
    if not any(rule):
        return "No neuron of either model meets the entropy rule, which also judges effects."
    names = [name_of(found, name) for name in (found.facts["base"], tuned)]
    return (
        f"The entropy rule, which also judges effects, is met by {rule[0]:,} neurons of {names[0]} "
        f"({both[0]} of them candidates) and by {rule[1]:,} of {names[1]} ({both[1]} of them candidates)."
    )


def _calibration(found: "Comparison", tuned: str) -> str:
    calibrated = found.calibration[found.calibration["model"] == tuned].set_index("measure")
    moved = [
        f"{MEASURES[str(name)]} from {number(row['value'] - row['change'])} to {number(row['value'])} "
        f"(by {number(row['change_lo'])} to {number(row['change_hi'])})"
        for name, row in calibrated.iterrows()
    ]
    facts = found.facts
    over = f" over {facts['units']} {facts['resampled']}" if "units" in facts else ""
    return f"On the same {facts['positions']:,} positions, with 95% intervals of the change{over}: {', '.join(moved)}."
