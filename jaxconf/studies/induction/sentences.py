"""What the tables of `jaxconf induction` show, in a few sentences."""

from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.analysis.induction import predictions
from jaxconf.results.words import number

if TYPE_CHECKING:
    from jaxconf.studies.induction.natural import Natural
    from jaxconf.studies.induction.study import Induction


def sentences(found: "Induction") -> list[str]:
    """One sentence for each part of the study. Each effect is compared with those of the random sets."""
    said = [_of_positions(found), _of_clip_ablation(found), _of_heads(found), _of_scaling(found)]
    if found.natural:
        said.append(_of_natural_induction(found.natural))
    return said


def _of_positions(found: "Induction") -> str:
    first, second = predictions(found.facts["length"])
    means = found.positions[first | second].groupby("copy")[["entropy", "loss"]].mean()
    loss, entropy = means["loss"], means["entropy"]
    return (
        f"From the first copy to the second, the mean loss goes from {number(loss[1])} to {number(loss[2])} nats, and "
        f"the mean entropy from {number(entropy[1])} to {number(entropy[2])} nats."
    )


def _of_clip_ablation(found: "Induction") -> str:
    own, controls = _beside_random(found.sets)
    chosen = found.facts["chosen"]
    return (
        f"Clip ablation of the {len(chosen)} chosen neurons, {', '.join(chosen)} (chosen by "
        f"{found.facts['chosen_by']}), changes the entropy on the repeat by {number(own['entropy'])} nats "
        f"({number(own['entropy_lo'])} to {number(own['entropy_hi'])}), or by {number(own['entropy_ln_frozen'])} with "
        f"the norm frozen. It changes the loss by {number(own['loss'])} nats"
        + _as_large(controls["entropy"], own["entropy"], "on entropy")
    )


def _of_heads(found: "Induction") -> str:
    random = found.head_sets["kind"] == "random"
    last, best = found.head_sets[~random].iloc[-1], found.heads.loc[found.heads["score"].idxmax()]
    return (
        f"The highest induction score is {number(best['score'])}, of head {int(best['layer'])}.{int(best['head'])}. "
        f"If {last['members']} attend to BOS alone, the loss on the repeat changes by {number(last['loss'])} nats"
        + _as_large(found.head_sets.loc[random, "loss"], last["loss"], "on the loss")
    )


def _of_scaling(found: "Induction") -> str:
    at_most = found.doses["factor"] == found.doses["factor"].max()
    own, controls = _beside_random(found.doses[(found.doses["data"] == "text") & at_most])
    return (
        f"If the chosen neurons' activations are multiplied by {own['factor']:g}, the temperature that mimics this "
        f"best on text is {own['temperature']:.3f}; it explains {own['explained']:.1%} of the change of the "
        "log-probabilities" + _as_large(controls["explained"], own["explained"], "by that share")
    )


def _of_natural_induction(natural: "Natural") -> str:
    pairs = natural.pairs
    means = {name: pairs[name].mean() for name in ("repeats", "induced", "correct", "entropy_first", "entropy_second")}
    return (
        f"In {len(pairs):,} windows six tokens occur exactly twice. In {means['repeats']:.0%} of the windows the same "
        f"token follows both times. The second time, the model expects the token of the first time in "
        f"{means['induced']:.0%} of the windows, and its expectation is right in {means['correct']:.0%}. From the "
        f"first time to the second, the entropy of the prediction goes from {number(means['entropy_first'])} to "
        f"{number(means['entropy_second'])} nats."
    )


def _beside_random(sets: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """The row of the chosen set, and those of the random sets."""
    return sets[sets["kind"] == "set"].iloc[0], sets[sets["kind"] == "random"]


def _as_large(controls: pd.Series, own: float, what: str) -> str:
    """The end of a sentence, which says how many random sets have at least as large an effect."""
    if not len(controls):
        return "."
    beyond = int((controls.abs() >= abs(own)).sum())
    return f"; {beyond} of {len(controls)} random sets have at least as large an effect {what}."
