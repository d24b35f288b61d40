"""The report's passages: the text in which a neuron prevents the largest losses, a token's activation behind it and its loss as a bar."""

import math
from html import escape
from typing import Any

import pandas as pd

from jaxconf.report.passages import Passage, passages, scales
from jaxconf.results.words import number

LEGEND = (
    '<p class="note key"><span class="positive">activation above 0</span> <span class="negative">below 0</span> '
    '<span class="loss">loss of the token</span> <span class="rise">what ablating the neuron adds to it</span> '
    '<span class="fall">or takes away</span></p>'
    '<p class="note">The outlined token is the one whose loss rises most; the activation that matters is that of the token before it, where '
    "it is predicted. Point at a token for its figures. A token without colour or bar was not kept (“…” where its text is not known).</p>"
)


def told(effects: pd.DataFrame, neuron: str) -> str:
    """A neuron's passages as HTML, `effects` being what `jaxconf.per_token` found."""
    found = passages(effects, neuron)
    if not found:
        return f"<h3>{neuron}: no passages</h3><p>Ablating it raises the loss nowhere.</p>"
    activation, loss = full = scales(found)
    scale = f"Full colour is an activation of ±{number(activation)}, the highest bar a loss of {number(loss)} nats."
    return f'<h3>{neuron}: where ablating it raises the loss most</h3><p class="note">{scale}</p>' + "".join(
        _story(it, full) for it in found
    )


def _story(passage: Passage, full: tuple[float, float]) -> str:
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
    attributes = {"class": " ".join(classes), "style": ";".join(style), "title": "\n".join(title)}
    told = "".join(f' {name}="{value}"' for name, value in attributes.items() if value)
    return f"<span{told}>{escape(token.text)}</span>"
