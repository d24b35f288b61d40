"""What steering found, in words."""

from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.results.rules import KINDS
from jaxconf.results.words import number
from jaxconf.studies.steering.treatments import TEMPERATURE

if TYPE_CHECKING:
    from jaxconf.studies.steering.study import Steering


def sentences(found: "Steering") -> list[str]:
    """A sentence on the unsteered model, one on each treatment but the random sets, and one on which is best."""
    facts, best = found.facts, found.best
    doses = found.doses
    plain = doses[(doses["treatment"] == TEMPERATURE) & (doses["dose"] == 1) & (doses["part"] == "held out")].iloc[0]
    first = "As it is" if facts["model_temperature"] == 1 else f"At temperature {facts['model_temperature']:g}"
    said = [
        f"{first}, the model has an expected calibration error of {number(plain['ece'])} and a loss of "
        f"{number(plain['loss'])} nats on the held-out half of the text."
    ]
    said += [_of(row, best) for row in best[best["kind"] != "random"].to_dict("records")]
    ranked = best[best["kind"] != "random"].sort_values("ece")
    winner = ranked.iloc[0]
    read = f"a linear probe of the stream reads the entropy with R² {number(facts['probe_r2'])}"
    first = "No treatment is better than none" if _neutral(winner) else f"The least error is that of {_named(winner)}"
    return [*said, f"{first}; {read}."]


def _neutral(row: "pd.Series | dict") -> bool:
    """Whether the chosen dose changes nothing."""
    return bool(row["dose"] == (0 if row["kind"] == "direction" else 1))


def _named(row: "pd.Series | dict") -> str:
    named = {"temperature": "another temperature", "set": f"scaling {of_set(row)}"}
    return named.get(row["kind"], f"the {row['treatment']}")


def dose_in_words(row: "pd.Series | dict") -> str:
    """What is done at the dose of a treatment."""
    match row["kind"]:
        case "temperature":
            return f"dividing the logits by {row['dose']:.3g}"
        case "direction":
            return f"adding {row['dose']:g} of the stream's length along the {row['treatment']}"
    return f"multiplying {of_set(row)} by {row['dose']:g}"


def of_set(row: "pd.Series | dict") -> str:
    """The name of a selection of neurons or components inside a sentence."""
    name, noun = row["treatment"], "neurons" if row["component"] == "neuron" else "components"
    return f"the {name} {noun}" if name in KINDS else f"the {noun} of “{name}”"


def _of(row: dict, best: pd.DataFrame) -> str:
    beside = best[(best["kind"] == "random") & (best["beside"] == row["treatment"])]
    among = f"; of {len(beside)} random sets, {(beside['ece'] <= row['ece']).sum()} do as well" if len(beside) else ""
    if _neutral(row):
        which = {"temperature": "the temperature", "set": of_set(row)}
        return f"No dose of {which.get(row['kind'], 'the ' + row['treatment'])} is better than none."
    words = dose_in_words(row)
    change = f"change {_interval(row, 'ece')}"
    return (
        f"{words[0].upper()}{words[1:]} gives an error of {number(row['ece'])} ({change}), changes the loss by "
        f"{_interval(row, 'loss')} nats and the accuracy by {number(row['accuracy_change'])}{among}."
    )


def _interval(row: dict, measure: str) -> str:
    """The change of a measure, with its interval."""
    change, low, high = (number(row[f"{measure}_change{end}"]) for end in ("", "_lo", "_hi"))
    return f"{change} [{low}, {high}]"
