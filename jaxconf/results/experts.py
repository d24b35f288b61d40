"""What each expert of a mixture carries, from the table of its neurons."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from jaxconf.results.words import counted, number

EXPERT_COLUMNS = {
    "layer": "index of the layer, counted from 0",
    "expert": "index of the expert in its layer; a shared expert is the last",
    "neurons": "how many neurons it has",
    "routed_share": "share of the kept positions at which it is chosen",
    "loss_abs_delta": "sum over its neurons of mean |change of the loss|, each ablated by itself, nats",
    "share": "that sum as a share of the layer's",
    "entropy_neurons": "how many of its neurons meet the entropy rule",
    "frequency_neurons": "how many of its neurons meet the frequency rule",
}


def of_experts(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each expert of each layer, with EXPERT_COLUMNS; empty if the model is not a mixture.

    `frame`: that of a `NeuronTable`.
    """
    if "expert" not in frame:
        return pd.DataFrame(columns=list(EXPERT_COLUMNS))
    found = frame.groupby(["layer", "expert"]).agg(
        neurons=("neuron", "size"),
        routed_share=("routed_share", "first"),
        loss_abs_delta=("loss_abs_delta", "sum"),
        entropy_neurons=("is_entropy_neuron", "sum"),
        frequency_neurons=("is_frequency_neuron", "sum"),
    )
    found["share"] = found["loss_abs_delta"] / found.groupby("layer")["loss_abs_delta"].transform("sum")
    return found.reset_index()[list(EXPERT_COLUMNS)]


def experts_in_words(experts: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each layer on how much its experts carry. `experts`: what `of_experts` gives."""
    sentences = []
    for layer, rows in experts.groupby("layer"):
        most, never = rows.loc[rows["loss_abs_delta"].idxmax()], int((rows["routed_share"] == 0).sum())
        unused = f"; {counted(never, 'expert')} {'is' if never == 1 else 'are'} never chosen" if never else ""
        sentences.append(
            f"Of the {len(rows)} experts of layer {layer}, of which the router chooses {facts['experts_per_token']} "
            f"for a token, expert {most['expert']:.0f} carries most: {number(100 * most['share'])}% of the summed mean "
            f"|change of the loss|, chosen at {number(100 * most['routed_share'])}% of the positions{unused}."
        )
    return sentences
