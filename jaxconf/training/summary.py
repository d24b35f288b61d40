"""A track in a few sentences."""

from jaxconf.models.errors import listed
from jaxconf.results.optimum import optimum_sentences
from jaxconf.results.words import count_of, counts_doubts, facts_in_words, number, reading_notes
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import event_lines
from jaxconf.training.findings import above_chance, first_met, order_met, over_steps, rules_of, with_effects


def summary_lines(e: Emergence) -> list[str]:
    """The findings and the events in order, one sentence each, and then the token counts and whether to trust them."""
    counts = dict(facts_in_words(e.facts)).get("Token counts")
    return [
        *finding_lines(e),
        *event_lines(e),
        *_beside_optimum(e),
        *([f"Token counts: {counts}."] if counts else []),
        *reading_notes(e.facts),
        *counts_doubts(e.facts),
    ]


def _beside_optimum(e: Emergence) -> list[str]:
    """The last step beside the best possible predictions, if these are known."""
    if e.optimum.empty:
        return []
    return optimum_sentences(e.optimum[e.optimum["step"] == e.optimum["step"].max()])


def finding_lines(e: Emergence) -> list[str]:
    """How many steps were measured and how many neurons met what, one sentence each."""
    steps, effects, above, mediated = e.steps["step"], with_effects(e), above_chance(e), over_steps(e, "ln_mediated")
    ever = above.any(axis=1)
    since = f"the first rose above it at step {ever.idxmax():,}" if ever.any() else "none was above it at any step"
    lines = [
        f"Measured steps: {len(steps):,}, the last {steps.iloc[-1]:,}; with effects: {effects.sum():,}.",
        f"Neurons with rho above chance at the end: {above.iloc[-1].sum():,} of {above.shape[1]:,}; {since}.",
    ]
    if not effects.any():
        return lines
    if mediated.notna().any(axis=None):
        step, name = mediated.stack().idxmax()
        largest, side = number(mediated.loc[step, name]), "is" if above.loc[step, name] else "is not"
        lines.append(
            f"Largest ln_mediated: {largest}, of neuron {name} at step {step:,}, whose rho {side} above chance there."
        )
    first, _ = first_met(e)
    for kind in ("entropy", "frequency"):
        when = first[kind].dropna().sort_values(kind="stable")
        named = listed([f"{name} (step {step:,.0f})" for name, step in when.items()], 6)
        colon = "; the first step of each: " * bool(named)
        lines.append(f"{count_of(len(when), kind)} at one step or more{colon}{named}.")
    sentence = "Neurons that met both criteria, rho above chance and ln_mediated ≥ {least:g}: {both:,}"
    if (order := order_met(first))["both"]:
        sentence += "; {weights:,} met the one for rho first, {cause:,} the one for ln_mediated, {same:,} both at once"
    lines.append(sentence.format(least=rules_of(e).min_ln_mediated, **order) + ".")
    return lines
