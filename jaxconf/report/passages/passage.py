"""Which neurons and which passages of the text are shown of the effects that `jaxconf.per_token` found.

`effects` is always the table of `jaxconf.per_token`, a row per neuron and kept position. Losses and entropies are in
nats. Source: Stolfo et al. 2024 (arXiv 2406.16254), figure 4.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxconf.results.words import number

PASSAGES = 5  # of each neuron
LENGTH, BEFORE = 40, 25  # tokens of a passage, and how many of them stand before the token whose loss spikes
MOST_NEURONS = 6  # more would fill the page, and the height of a picture is limited
LONGEST = 32  # characters of a token that are shown
UNKNOWN = "…"
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True)
class Passage:
    """Text around one position at which ablating a neuron raises the loss.

    spike: the row of `effects` for that position; the neuron acts at `token`, and the loss of `target` rises. tokens: a
    row per token in reading order, indexed by position. Its `text` and its `activation` are those of the token itself;
    its `loss`, `loss_ablated` (nats) and `reciprocal_rank` belong to its prediction, which is made one position
    earlier. They are NaN if that position was not kept; the text is UNKNOWN if no kept position has the token.
    """

    spike: pd.Series
    tokens: pd.DataFrame

    @property
    def at(self) -> int:
        """The position of the token whose loss spikes."""
        return int(self.spike["position"]) + 1

    def words(self) -> str:
        """A sentence with the loss, reciprocal rank and entropy at the spike, before and after the ablation."""
        spike = self.spike

        def told(name: str) -> str:
            return f"{number(spike[name])} → {number(spike[f'{name}_ablated'])}"

        total, direct = (spike[name] - spike["loss"] for name in ("loss_ablated", "loss_ablated_ln_frozen"))
        target, token = (visible(spike[name]).strip() for name in ("target", "token"))
        # A Latin word follows each token, because a number after Arabic or Hebrew would be shown from right to left.
        return (
            f"“{target}” after “{token}”, activation {number(spike['activation'])}: "
            f"loss {told('loss')} nats ({total:+.3g}; with the norm frozen {direct:+.3g}), "
            f"reciprocal rank {told('reciprocal_rank')}, entropy {told('entropy')} nats. "
            f"Window {spike['window']}, position {spike['position']}."
        )


def neurons_to_draw(effects: pd.DataFrame) -> list[str]:
    """The names of the first MOST_NEURONS neurons of `effects`."""
    return effects["neuron"].unique()[:MOST_NEURONS].tolist()


def change_of_loss(effects: pd.DataFrame) -> pd.Series:
    """By how much the ablation raises the loss in each row, nats."""
    return effects["loss_ablated"] - effects["loss"]


def passages(effects: pd.DataFrame, neuron: str) -> list[Passage]:
    """The passages in which a neuron prevents the largest spikes of the loss, largest first.

    There are up to PASSAGES, each of up to LENGTH tokens of one window; of passages that overlap, only the first is
    returned.
    """
    rows = effects[effects["neuron"] == neuron]
    change = change_of_loss(rows).sort_values(ascending=False, kind="stable")
    raised = rows.loc[change.index[change > 0]]
    ends = rows.groupby("window")["position"].agg(["min", "max"])
    found: list[Passage] = []
    taken: list[tuple[int, int]] = []
    for _, spike in raised.iterrows():
        window, at = spike["window"], spike["position"] + 1
        first, last = ends["min"][window], ends["max"][window] + 1  # the target of the last position is known too
        start = int(np.clip(at - BEFORE, first, max(first, last - LENGTH + 1)))
        if all(window != other or abs(start - begin) >= LENGTH for other, begin in taken):
            taken.append((window, start))
            tokens = _tokens(rows[rows["window"] == window])
            within = tokens.reindex(range(start, min(start + LENGTH, last + 1)))
            found.append(Passage(spike, within.fillna({"text": UNKNOWN})))
        if len(found) == PASSAGES:
            break
    return found


def scales(told: list[Passage]) -> tuple[float, float]:
    """The activation that gets the full colour and the loss (nats) that gets the highest bar.

    They are the largest absolute activation and the largest loss in the passages.
    """
    together = pd.concat([passage.tokens for passage in told])
    return float(together["activation"].abs().max()) or 1.0, float(together[["loss", "loss_ablated"]].max(axis=None))


def visible(token: object) -> str:
    """A token as text of at most LONGEST characters, in which spaces, line breaks and control characters are visible.

    A token that is an id, because the model has no tokenizer, gets a space behind it, so that ids stay apart.
    """
    if not isinstance(token, str):
        return f"{token}\N{NO-BREAK SPACE}"
    marked = token.translate(VISIBLE)
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in marked)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _tokens(rows: pd.DataFrame) -> pd.DataFrame:
    """The tokens of a window, from the rows of one neuron in it; columns as in `Passage.tokens`."""
    here = rows.set_index("position")
    following = here.set_axis(here.index + 1)
    return pd.DataFrame(
        {
            "text": here["token"].map(visible).combine_first(following["target"].map(visible)),
            "activation": here["activation"],
            "loss": following["loss"],
            "loss_ablated": following["loss_ablated"],
            "reciprocal_rank": following["reciprocal_rank"],
        }
    )
