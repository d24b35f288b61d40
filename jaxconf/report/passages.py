"""Single tokens: of what `jaxconf.per_token` found, which neurons are drawn, and the text around the largest losses that each prevents.

Losses and entropies are in nats. Source: Stolfo et al. 2024 (arXiv 2406.16254), figure 4.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxconf.results.words import number

PASSAGES = 5  # of each neuron
LENGTH, BEFORE = 40, 25  # tokens of a passage, and how many of them stand before the one whose loss spikes
MOST_NEURONS = 6  # more would fill the page, and a picture cannot be of any height
LONGEST = 32  # characters of a token that are shown
UNKNOWN = "…"
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True)
class Passage:
    """Text around one position at which ablating a neuron raises the loss.

    spike: the row of the table, `token` being where the neuron acts and `target` what the raised loss is of. tokens: a row per token in
    reading order, indexed by position: `text`, `activation` at the token, and, of its own prediction one position before, `loss`,
    `loss_ablated` (nats) and `reciprocal_rank`; NaN where that position was not kept, and UNKNOWN as text where no kept position tells it.
    """

    spike: pd.Series
    tokens: pd.DataFrame

    @property
    def at(self) -> int:
        """The position of the token whose loss spikes."""
        return int(self.spike["position"]) + 1

    def words(self) -> str:
        """The numbers of the spike, before and after ablation."""
        spike = self.spike

        def told(name: str) -> str:
            return f"{number(spike[name])} → {number(spike[f'{name}_ablated'])}"

        total, direct = (spike[name] - spike["loss"] for name in ("loss_ablated", "loss_ablated_ln_frozen"))
        # A Latin word behind each token: a number there would be set from right to left with Arabic or Hebrew.
        return (
            f"“{visible(spike['target']).strip()}” after “{visible(spike['token']).strip()}”, activation {number(spike['activation'])}: "
            f"loss {told('loss')} nats ({total:+.3g}; with the norm frozen {direct:+.3g}), reciprocal rank {told('reciprocal_rank')}, "
            f"entropy {told('entropy')} nats. Window {spike['window']}, position {spike['position']}."
        )


def neurons_to_draw(effects: pd.DataFrame) -> list[str]:
    """The first MOST_NEURONS neurons of the table, "layer.index"."""
    return effects["neuron"].unique()[:MOST_NEURONS].tolist()


def change_of_loss(effects: pd.DataFrame) -> pd.Series:
    """By how much ablating the neuron raises the loss in each row, nats."""
    return effects["loss_ablated"] - effects["loss"]


def passages(effects: pd.DataFrame, neuron: str) -> list[Passage]:
    """The passages in which a neuron prevents the largest spikes of the loss, largest first; of passages that overlap, the best alone.

    As many as PASSAGES, of up to LENGTH tokens within one window; fewer where ablation raises the loss at fewer places.
    """
    rows = effects[effects["neuron"] == neuron]
    change = change_of_loss(rows).sort_values(ascending=False, kind="stable")
    raised = rows.loc[change.index[change > 0]]
    ends = rows.groupby("window")["position"].agg(["min", "max"])
    found: list[Passage] = []
    taken: list[tuple[int, int]] = []
    for _, spike in raised.iterrows():
        # The last position's target is known too.
        window, at, first, last = (
            spike["window"],
            spike["position"] + 1,
            ends["min"][spike["window"]],
            ends["max"][spike["window"]] + 1,
        )
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
    """What a drawing of a neuron's passages calls full: the largest |activation| in them, and the largest loss, before or after (nats)."""
    together = pd.concat([passage.tokens for passage in told])
    return float(together["activation"].abs().max()) or 1.0, float(together[["loss", "loss_ablated"]].max(axis=None))


def visible(token: object) -> str:
    """A token as text whose spaces, line breaks and control characters show, cut to LONGEST; or an id, and a space before the next."""
    if not isinstance(token, str):
        return f"{token}\N{NO-BREAK SPACE}"
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in token.translate(VISIBLE)
    )
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _tokens(rows: pd.DataFrame) -> pd.DataFrame:
    """What the rows of one neuron and window tell of each token; columns as in `Passage.tokens`."""
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
