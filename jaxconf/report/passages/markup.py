"""The page's passages as HTML: the activation of a token is the colour behind it, and its loss a bar above it."""

import math
from html import escape
from typing import Any

import pandas as pd

from jaxconf.report.markup import attributes
from jaxconf.report.passages.passage import Passage, passages, scales
from jaxconf.results.words import number

LEGEND = (
    '<p class="note key"><span class="positive">activation above 0</span> <span class="negative">below 0</span> '
    '<span class="loss">loss of the token</span> <span class="rise">what ablating the neuron adds to it</span> '
    '<span class="fall">or takes away</span></p>'
    '<p class="note">The outlined token is the one whose loss rises most; the activation that matters is that of the '
    "token before it, where it is predicted. Point at a token for its values. A token has no colour if its position is "
    "not kept, and no bar if the position before it is not kept; “…” stands for a token whose text is not known.</p>"
)


def passages_section(effects: pd.DataFrame, neurons: list[str]) -> str:
    """The passages of the neurons, below the meaning of the colours. `effects`: the table of `jaxconf.per_token`."""
    return LEGEND + "".join(_of_neuron(effects, neuron) for neuron in neurons)


def _of_neuron(effects: pd.DataFrame, neuron: str) -> str:
    found = passages(effects, neuron)
    if not found:
        return f"<h3>{neuron}: no passages</h3><p>Ablating it raises the loss nowhere.</p>"
    activation, loss = full = scales(found)
    scale = f"Full colour is an activation of ±{number(activation)}, the highest bar a loss of {number(loss)} nats."
    heading = f'<h3>{neuron}: where ablating it raises the loss most</h3><p class="note">{scale}</p>'
    return heading + "".join(_passage(passage, full) for passage in found)


def _passage(passage: Passage, full: tuple[float, float]) -> str:
    tokens = "".join(_token(token, token.Index == passage.at, full) for token in passage.tokens.itertuples())
    return f'<div class="story"><p>{escape(passage.words())}</p><div class="passage">{tokens}</div></div>'


def _token(token: Any, spike: bool, full: tuple[float, float]) -> str:
    classes, style, title = ["spike"] * spike, [], []
    if not math.isnan(token.activation):
        classes += ["negative"] * (token.activation < 0)
        style.append(f"--shade:{abs(token.activation) / full[0]:.0%}")
        title.append(f"activation {number(token.activation)}")
    if not math.isnan(token.loss):
        classes += ["fall"] * (token.loss_ablated < token.loss)
        low, high = sorted((token.loss, token.loss_ablated))
        style.append(f"--low:{low / full[1]:.1%};--high:{high / full[1]:.1%}")
        title.append(f"loss {number(token.loss)}, ablated {number(token.loss_ablated)} nats")
        title.append(f"reciprocal rank {number(token.reciprocal_rank)}")
    given = {"class": " ".join(classes), "style": ";".join(style), "title": "\n".join(title)}
    return f"<span{attributes({name: value for name, value in given.items() if value})}>{escape(token.text)}</span>"
