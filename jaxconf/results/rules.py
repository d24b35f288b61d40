"""When a neuron counts as an entropy neuron or as a token-frequency neuron. Letters: N neurons."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from jaxconf.models.errors import InputError

Kind = Literal["entropy", "frequency"]
KINDS: tuple[Kind, Kind] = ("entropy", "frequency")


@dataclass(frozen=True)
class Rules:
    """The thresholds of the entropy rule and of the frequency rule.

    min_ln_mediated, min_freq_mediated: the least mediated share of an entropy neuron and of a frequency neuron. kl_top:
    a frequency neuron must be among this share of its layer's neurons, those with the largest kl_freq_abs_delta. Raises
    InputError if kl_top is not above 0 and at most 1.
    """

    min_ln_mediated: float = 0.3
    min_freq_mediated: float = 0.15
    kl_top: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.kl_top <= 1:
            raise InputError(f"kl_top is {self.kl_top}; give a share of the neurons, above 0 and at most 1")

    def describe(self) -> list[str]:
        """The rules in words, a sentence each."""
        return [
            "An entropy neuron has rho above the chance level (the 99% quantile of the largest rho among as many "
            f"random directions) and ln_mediated of at least {self.min_ln_mediated:g}.",
            f"A frequency neuron has freq_mediated of at least {self.min_freq_mediated:g} and kl_freq_abs_delta among "
            f"the largest {100 * self.kl_top:g}% of its layer.",
            "A neuron whose ablation changes the loss by no more than 1e-6 nats on average has no mediated share, and "
            "meets neither rule.",
        ]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of `frame` with the bool columns is_entropy_neuron and is_frequency_neuron; NaN never meets a rule."""
        kl = frame["kl_freq_abs_delta"]
        enough = kl.groupby(frame["layer"]).transform("quantile", 1 - self.kl_top)
        return frame.assign(
            is_entropy_neuron=(frame["rho"] > frame["rho_chance"]) & (frame["ln_mediated"] >= self.min_ln_mediated),
            is_frequency_neuron=(frame["freq_mediated"] >= self.min_freq_mediated) & (kl >= enough),
        )

    def shortfall(self, frame: pd.DataFrame, kind: Kind) -> pd.Series:
        """How far each neuron is from meeting a rule: the sum of its distances below the rule's two thresholds.

        The two distances can be added because both are shares: in place of kl_freq_abs_delta, its rank in the layer is
        taken, as a share of the neurons. Float [N], 0 or more, NaN where the neuron cannot be judged.
        """
        if kind == "entropy":
            first, second = frame["rho_chance"] - frame["rho"], self.min_ln_mediated - frame["ln_mediated"]
        else:
            rank = frame.groupby("layer")["kl_freq_abs_delta"].rank(pct=True)
            first, second = (1 - self.kl_top) - rank, self.min_freq_mediated - frame["freq_mediated"]
        return first.clip(lower=0) + second.clip(lower=0)
