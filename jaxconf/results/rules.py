"""When a neuron counts as an entropy neuron or as a token-frequency neuron: the project's own rules.

Letters: N neurons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from jaxconf.models.errors import InputError
from jaxconf.results.words import number

Kind = Literal["entropy", "frequency"]
KINDS: tuple[Kind, Kind] = ("entropy", "frequency")


@dataclass(frozen=True)
class Rules:
    """The thresholds of the entropy rule and of the frequency rule.

    min_ln_mediated: the lower end of the interval of an entropy neuron's ln_mediated must be at least this. max_q: the
    largest false discovery rate of a neuron's mediated share. min_change: the least mean |change| that ablating the
    neuron makes, in nats: of the entropy for an entropy neuron, of D_KL(P_freq ‖ P_model) for a frequency neuron.
    Raises InputError for a max_q that is not above 0 and at most 1.
    """

    min_ln_mediated: float = 0.3
    max_q: float = 0.01
    min_change: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.max_q <= 1:
            raise InputError(f"max_q is {self.max_q}; give a false discovery rate above 0 and at most 1")

    def describe(self) -> list[str]:
        """The rules in words, a sentence each."""
        return [
            "An entropy neuron has rho above the chance level (the 99% quantile of the largest rho among as many "
            f"random directions), an interval of ln_mediated whose lower end is at least {self.min_ln_mediated:g}, "
            f"ln_mediated_q of at most {self.max_q:g}, and entropy_abs_delta of at least {self.min_change:g} nats.",
            "A frequency neuron has an interval of freq_mediated whose lower end is above freq_mediated_chance (the "
            f"99% quantile of the nulls), freq_mediated_q of at most {self.max_q:g}, and kl_freq_abs_delta of at least "
            f"{self.min_change:g} nats.",
            "A neuron whose ablation changes the loss by no more than 1e-6 nats on average has no mediated share, and "
            "meets neither rule; nor does any neuron without an interval or without nulls.",
        ]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of `frame` with the bool columns is_entropy_neuron and is_frequency_neuron; NaN never meets a rule."""
        return frame.assign(
            is_entropy_neuron=(frame["rho"] > frame["rho_chance"])
            & (frame["ln_mediated_lo"] >= self.min_ln_mediated)
            & (frame["ln_mediated_q"] <= self.max_q)
            & (frame["entropy_abs_delta"] >= self.min_change),
            is_frequency_neuron=(frame["freq_mediated_lo"] > frame["freq_mediated_chance"])
            & (frame["freq_mediated_q"] <= self.max_q)
            & (frame["kl_freq_abs_delta"] >= self.min_change),
        )

    def shortfall(self, frame: pd.DataFrame, kind: Kind) -> pd.Series:
        """How far each neuron is from meeting a rule: the sum of its distances from the rule's thresholds.

        All are shares or probabilities, but for the change, whose distance is taken as a share of its threshold. Float
        [N], 0 or more, NaN where the neuron cannot be judged.
        """
        if kind == "entropy":
            share, floor = "ln_mediated", self.min_ln_mediated
            gaps = [frame["rho_chance"] - frame["rho"]]
        else:
            share, floor = "freq_mediated", frame["freq_mediated_chance"]
            gaps = []
        gaps += [
            floor - frame[f"{share}_lo"],
            frame[f"{share}_q"] - self.max_q,
            1 - frame[CHANGE[kind]] / self.min_change,
        ]
        return sum((gap.clip(lower=0) for gap in gaps), pd.Series(0.0, frame.index))

    def told(self, kind: Kind, row: Mapping[str, Any]) -> str:
        """What a rule asks for beside what a neuron, a row of the table, has."""

        def have(name: str) -> str:
            return f"{name} {number(row[name])}"

        if kind == "entropy":
            share, asked = "ln_mediated", f"at least {self.min_ln_mediated:g}"
            first = f"{have('rho')} where chance gives up to {number(row['rho_chance'])}, "
        else:
            share, asked, first = "freq_mediated", f"above {number(row['freq_mediated_chance'])}", ""
        return (
            f"{first}{have(f'{share}_lo')} ({asked}), {have(f'{share}_q')} (at most {self.max_q:g}), "
            f"{have(CHANGE[kind])} (at least {self.min_change:g})"
        )

    def least_share(self, kind: Kind, frame: pd.DataFrame) -> float:
        """The least mediated share that a rule asks for, which figures mark; NaN if it is not known."""
        return self.min_ln_mediated if kind == "entropy" else float(frame["freq_mediated_chance"].max())

    def least_changes(self, frame: pd.DataFrame) -> list[float]:
        """The least kl_freq_abs_delta that the frequency rule asks for in each layer, which figures mark; nats."""
        return [self.min_change]


@dataclass(frozen=True)
class EarlierRules(Rules):
    """The rules of versions up to 0.1, by which older tables name their neurons; here only for reading these."""

    min_ln_mediated: float = 0.3
    min_freq_mediated: float = 0.15
    kl_top: float = 0.05

    def describe(self) -> list[str]:
        return [
            "An entropy neuron has rho above the chance level (the 99% quantile of the largest rho among as many "
            f"random directions) and ln_mediated of at least {self.min_ln_mediated:g}.",
            f"A frequency neuron has freq_mediated of at least {self.min_freq_mediated:g} and kl_freq_abs_delta among "
            f"the largest {100 * self.kl_top:g}% of its layer.",
            "A neuron whose ablation changes the loss by no more than 1e-6 nats on average has no mediated share, and "
            "meets neither rule.",
        ]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        raise InputError("these rules are those of an older version, which new tables are not judged by")

    def shortfall(self, frame: pd.DataFrame, kind: Kind) -> pd.Series:
        if kind == "entropy":
            first, second = frame["rho_chance"] - frame["rho"], self.min_ln_mediated - frame["ln_mediated"]
        else:
            rank = frame.groupby("layer")["kl_freq_abs_delta"].rank(pct=True)
            first, second = (1 - self.kl_top) - rank, self.min_freq_mediated - frame["freq_mediated"]
        return first.clip(lower=0) + second.clip(lower=0)

    def told(self, kind: Kind, row: Mapping[str, Any]) -> str:
        if kind == "entropy":
            return (
                f"rho {number(row['rho'])} where chance gives up to {number(row['rho_chance'])}, ln_mediated "
                f"{number(row['ln_mediated'])} (at least {self.min_ln_mediated:g})"
            )
        return (
            f"kl_freq_abs_delta {number(row['kl_freq_abs_delta'])} (among the largest {100 * self.kl_top:g}%), "
            f"freq_mediated {number(row['freq_mediated'])} (at least {self.min_freq_mediated:g})"
        )

    def least_share(self, kind: Kind, frame: pd.DataFrame) -> float:
        return self.min_ln_mediated if kind == "entropy" else self.min_freq_mediated

    def least_changes(self, frame: pd.DataFrame) -> list[float]:
        by_layer = frame.groupby("layer")["kl_freq_abs_delta"].quantile(1 - self.kl_top)
        return by_layer[by_layer > 0].tolist()


CHANGE: dict[Kind, str] = {"entropy": "entropy_abs_delta", "frequency": "kl_freq_abs_delta"}
"""The change that each rule asks for."""


def rules_from(facts: Mapping[str, Any]) -> Rules:
    """The rules by which a table with these facts names its neurons."""
    given = facts.get("rules", {})
    return EarlierRules(**given) if "kl_top" in given else Rules(**given)
