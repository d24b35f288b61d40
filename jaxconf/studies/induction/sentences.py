"""What the tables of `jaxconf induction` show, in a few sentences."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxconf.analysis.induction import predictions
from jaxconf.results.words import counted, number, reading_notes
from jaxconf.studies.induction.heads import THRESHOLD

if TYPE_CHECKING:
    from jaxconf.studies.induction.natural import Natural
    from jaxconf.studies.induction.study import Induction

ENTROPY = "on entropy"


def sentences(found: "Induction") -> list[str]:
    """A paragraph for each part of the study and for each protocol of the paper that differs from ours.

    Each effect is compared with those of the random sets. Ratios are of after to before.
    """
    said = [_of_positions(found), _of_clip_ablation(found), *_of_full_ablation(found)]
    said += [_of_heads(found), _of_named_heads(found), _of_scaling(found)]
    if found.natural:
        said += [
            _of_natural_induction(found.natural, found.facts["noun"]),
            _of_natural_induction_as_published(found.natural),
        ]
    return said + reading_notes(found.facts)


def _of_positions(found: "Induction") -> str:
    first, second = predictions(found.facts["length"])
    means = found.positions[first | second].groupby("copy")[["entropy", "loss"]].mean()
    loss, entropy = means["loss"], means["entropy"]
    return (
        f"From the first copy to the second, the mean loss goes {_from_to(loss[1], loss[2])}, and the mean entropy "
        f"{_from_to(entropy[1], entropy[2])}."
    )


def _of_clip_ablation(found: "Induction") -> str:
    own, controls = _beside_random(found.sets[found.sets["ablation"] == "clip"])
    chosen = found.facts["chosen"]
    return (
        f"Clip ablation of the {len(chosen)} chosen {found.facts['noun']}s, {', '.join(chosen)} (chosen by "
        f"{found.facts['chosen_by']}), changes {_effects(own)}"
        + _as_large(controls["entropy"], own["entropy"], ENTROPY)
    )


def _of_full_ablation(found: "Induction") -> list[str]:
    """None if a single neuron is chosen, which the paper clips."""
    full = found.sets[found.sets["ablation"] == "full"]
    if not len(full):
        return []
    own, controls = _beside_random(full)
    return [
        "The paper clips single neurons only, and sets all activations of a set of neurons to their means. This "
        f"changes {_effects(own)}" + _as_large(controls["entropy"], own["entropy"], ENTROPY)
    ]


def _of_heads(found: "Induction") -> str:
    random = found.head_sets["kind"] == "random"
    last, best = found.head_sets[~random].iloc[-1], found.heads.loc[found.heads["score"].idxmax()]
    return (
        f"The highest induction score is {number(best['score'])}, of head {_head(best)}. "
        f"If {last['members']} attend to BOS alone, the loss on the repeat changes by {number(last['loss'])} nats "
        f"({_ratio(last['loss_ratio'])})" + _as_large(found.head_sets.loc[random, "loss"], last["loss"], "on the loss")
    )


def _of_named_heads(found: "Induction") -> str:
    heads = found.heads.sort_values("score_random", ascending=False)
    named = [_head(head) for _, head in heads[heads["is_above_threshold"]].iterrows()]
    above = f"{', '.join(named)} {'has' if len(named) == 1 else 'have'}" if named else "no head has"
    return (
        f"The paper scores heads on random tokens, where {above} a score above its threshold of {THRESHOLD}; the "
        f"highest is {number(heads['score_random'].iloc[0])}, of head {_head(heads.iloc[0])}."
    )


def _of_scaling(found: "Induction") -> str:
    at_most = found.doses["factor"] == found.doses["factor"].max()
    own, controls = _beside_random(found.doses[(found.doses["data"] == "text") & at_most])
    return (
        f"If the activations of the chosen {found.facts['noun']}s are multiplied by {own['factor']:g}, the temperature "
        f"that mimics this best on text is {own['temperature']:.3f}; it explains {own['explained']:.1%} of the "
        "change of the log-probabilities" + _as_large(controls["explained"], own["explained"], "by that share")
    )


def _of_natural_induction(natural: "Natural", noun: str) -> str:
    pairs = natural.pairs[natural.pairs["is_ours"]]
    own, controls = _beside_random(natural.sets[natural.sets["protocol"] == "ours"])
    means = {name: pairs[name].mean() for name in ("repeats", "induced", "correct", "entropy_first", "entropy_second")}
    return (
        f"In {len(pairs):,} windows six tokens occur exactly twice. In {means['repeats']:.0%} of the windows the same "
        f"token follows both times. The second time, the model expects the token of the first time in "
        f"{means['induced']:.0%} of the windows, and its expectation is right in {means['correct']:.0%}. From the "
        f"first time to the second, the entropy of the prediction goes "
        f"{_from_to(means['entropy_first'], means['entropy_second'])}. Clip ablation of the chosen {noun}s changes "
        f"{_effects(own, 'the second time')}" + _as_large(controls["entropy"], own["entropy"], ENTROPY)
    )


def _of_natural_induction_as_published(natural: "Natural") -> str:
    counts, ours = natural.counts, natural.sets["protocol"] == "ours"
    dropped = (
        f"The paper drops windows with a BOS or EOS inside: {counts['windows_dropped']:,} of "
        f"{counts['windows_with_repeats']:,} with such tokens. "
    )
    if ours.all():
        return dropped + "None is left."
    own, controls = _beside_random(natural.sets[~ours])
    return (
        dropped
        + f"In {natural.pairs['is_paper'].sum():,} of the others, it sets the activations, without clipping, to their "
        f"means over {counted(counts['windows_of_other_text'], 'window')} of other text. This "
        f"changes {_effects(own, 'the second time')}" + _as_large(controls["entropy"], own["entropy"], ENTROPY)
    )


def _effects(own: pd.Series, where: str = "on the repeat") -> str:
    """The effects of an ablation, each as a change and as a ratio."""
    return (
        f"the entropy {where} by {number(own['entropy'])} nats ({number(own['entropy_lo'])} to "
        f"{number(own['entropy_hi'])}; {_ratio(own['entropy_ratio'])}), or by {number(own['entropy_ln_frozen'])} nats "
        f"({_ratio(own['entropy_ln_frozen_ratio'])}) with the norm frozen. It changes the loss by "
        f"{number(own['loss'])} nats ({_ratio(own['loss_ratio'])})"
    )


def _ratio(ratio: float) -> str:
    return f"ratio {ratio:.3f}" if np.isfinite(ratio) else "no ratio"


def _from_to(before: float, after: float) -> str:
    return f"from {number(before)} to {number(after)} nats ({_ratio(after / before if before > 0 else np.nan)})"


def _head(row: pd.Series) -> str:
    return f"{int(row['layer'])}.{int(row['head'])}"


def _beside_random(sets: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """The row of the chosen set, and those of the random sets."""
    return sets[sets["kind"] == "set"].iloc[0], sets[sets["kind"] == "random"]


def _as_large(controls: pd.Series, own: float, what: str) -> str:
    """The end of a sentence, which says how many random sets have at least as large an effect."""
    if not len(controls):
        return "."
    beyond = int((controls.abs() >= abs(own)).sum())
    return f"; {beyond} of {len(controls)} random sets have at least as large an effect {what}."
