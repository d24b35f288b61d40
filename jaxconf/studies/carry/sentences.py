"""What the tables of `jaxconf carry` show, in a few sentences."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from jaxconf.models.errors import listed
from jaxconf.results.words import counted, interval_doubts, number, reading_notes
from jaxconf.studies.carry.carried import COMPONENTS
from jaxconf.studies.carry.positions import DIRECTION, NORM, STREAM, VALUES
from jaxconf.studies.carry.sets import CORRELATED
from jaxconf.studies.carry.verdicts import (
    SHARE,
    carries,
    directions_needed,
    influence_of,
    influences,
    labels,
    random_influence,
    random_r2,
    table_of_verdicts,
    worst,
)

if TYPE_CHECKING:
    from jaxconf.studies.carry.study import Carry

NAMED = 8  # neurons of a set that a sentence names
MEASURED = {"entropy": "the entropy", "loss": "the loss", "top1": "whether the most likely token is right"}


def sentences(found: "Carry") -> list[str]:
    """For each text: the verdicts, what they rest on, what can be decoded, the controls; then how far to trust it."""
    said = []
    for text in found.texts:
        of, where = found.of(text), _on(found, text)
        said += [where + _of_verdicts(of), *(where + _of_set(of, name) for name in of.facts["sets"])]
        said += [where + _of_decoding(of), where + _of_controls(of), where + _of_other_values(of)]
    return [*said, *_doubts(found)]


def _of_verdicts(found: "Carry") -> str:
    said = table_of_verdicts(found).set_index("set")["verdict"]
    return f"{'; '.join(f'{name} is {said[name]}' for name in found.facts['sets'])}."


def _of_set(found: "Carry", name: str) -> str:
    neurons, of, row = found.facts["sets"][name], influence_of(found, name), worst(found, name)
    clipped, drawn = random_influence(found, name), random_r2(found, name, row["split"])
    does, has = influences(of, clipped), carries(row, drawn)
    who = f"The set {listed(neurons, NAMED)}" if name == ",".join(neurons) else f"{name} ({listed(neurons, NAMED)})"
    beyond = "beyond what random sets do"
    return (
        f"{who} {'influences the entropy' if does else f'does not influence the entropy {beyond}'}: clipping its high "
        f"activations changes it by {_told(of, 'entropy_abs_delta')} nats on average there, random sets by "
        f"{number(clipped.mean())}{_as_large(clipped, of['entropy_abs_delta'])}. It "
        f"{'carries it' if has else f'does not carry it {beyond}'}: R² is {_told(row, 'r2')} in the worst of "
        f"{counted(found.facts['splits'], 'split')}, that of random sets {number(drawn.mean())}"
        f"{_as_large(drawn, row['r2'])}, and the difference {_told(row, 'gap')}."
    )


def _of_decoding(found: "Carry") -> str:
    row, needed = worst(found, STREAM, by="r2"), directions_needed(found)
    parts = {name: worst(found, name, by="r2") for name in (DIRECTION, NORM)}
    whole = f"{SHARE:.0%} of the stream's R²"
    verb = "holds" if needed == 1 else "hold"
    held = f"the principal directions do not hold {whole}"
    if needed:
        held = f"{needed} of {int(row['size'])} principal directions {verb} {whole}"
    return (
        f"From the stream that enters the final MLP, the entropy can be decoded with an R² of {_told(row, 'r2')} in "
        f"the worst split: from its direction with {_told(parts[DIRECTION], 'r2')}, from its norm with "
        f"{_told(parts[NORM], 'r2')}; {held}."
    )


def _of_controls(found: "Carry") -> str:
    first = worst(found, COMPONENTS, by="r2")
    row, of = worst(found, CORRELATED), influence_of(found, CORRELATED)
    neurons, noun = found.sets.loc[found.sets["set"] == CORRELATED, "neuron"].tolist(), found.noun
    return (
        f"As many {noun}s with the largest |correlation| with the entropy in training documents "
        f"({listed(neurons, NAMED)}) have an R² of {_told(row, 'r2')}, and clipping them changes the entropy by "
        f"{_told(of, 'entropy_abs_delta')} nats; as many principal components of the stream have an R² of "
        f"{_told(first, 'r2')}."
    )


def _of_other_values(found: "Carry") -> str:
    said = []
    for value in VALUES[1:]:
        row, whole = worst(found, found.facts["main"], value), worst(found, STREAM, value, "r2")
        said.append(f"{MEASURED[value]} with an R² of {number(row['r2'])}, where the stream has {number(whole['r2'])}")
    return f"The set {found.facts['main']} predicts {', and '.join(said)}."


def _told(row: dict[str, Any], name: str) -> str:
    return f"{number(row[name])} ({number(row[f'{name}_lo'])} to {number(row[f'{name}_hi'])})"


def _as_large(random: pd.Series, own: float) -> str:
    return f" ({int((random >= own).sum())} of {len(random)} have at least as much)"


def _doubts(found: "Carry") -> list[str]:
    said, facts = [], found.facts
    for text, of in facts["texts"].items():
        doubts = [*interval_doubts(of), *reading_notes(of)]
        if of["resampled"] != "documents":
            doubts.append("Parts of one document are on both sides of a split, since the text has so few documents.")
        said += [_on(found, text) + doubt for doubt in doubts]
    if facts.get("run_windows_held_out"):
        said.append(
            f"The run that names the sets has read {counted(facts['run_windows_held_out'], 'window')} of those from "
            "which documents are held out; analyse other text, or leave out --run."
        )
    return said


def _on(found: "Carry", text: str) -> str:
    """The beginning of a sentence about one of several texts."""
    return f"On {labels(found)[text]}: " if len(found.texts) > 1 else ""
