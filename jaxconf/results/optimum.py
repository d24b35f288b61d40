"""A model beside the best possible predictions: what its table says, in numbers and in words.

The table is that of `jaxconf.measure.optimum.Beside.sets`. Losses and entropies are in nats.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from jaxconf.results.words import counted, number

UNABLATED = "unablated"
ABLATED = "mean"
ABLATED_FROZEN = "mean, norm frozen"
DOUBLED = "doubled"
WORDS = {ABLATED: "mean-ablated", ABLATED_FROZEN: "mean-ablated and the norm frozen", DOUBLED: "doubled"}
SURPASSED = 0.95  # a set does what random sets do not if it surpasses this share of them


def moved_away(sets: pd.DataFrame) -> pd.DataFrame:
    """How much further each ablated set moves the entropy from the best one than random sets do.

    `sets`: the table of one model. A row for each set that is no random one, each thing that is done to it and
    each level, with `set`, `how`, `level`, `noise`, `error_change` (the change of `entropy_error`, nats) and
    `above_random` (the share of its random sets that change it by less, NaN without random sets).
    """
    before = sets[sets["how"] == UNABLATED].set_index("level")["entropy_error"]
    changed = sets[sets["how"] != UNABLATED].assign(
        change=lambda rows: rows["entropy_error"] - rows["level"].map(before)
    )
    rows = []
    for (name, how, level), part in changed.groupby(["set", "how", "level"], sort=False):
        random, [own] = part.loc[part["kind"] == "random", "change"], part.loc[part["kind"] == "set", "change"]
        above = float((random < own).mean()) if len(random) else np.nan
        noise = part["noise"].iloc[0]
        rows.append(
            {"set": name, "how": how, "level": level, "noise": noise, "error_change": own, "above_random": above}
        )
    return pd.DataFrame(rows, columns=["set", "how", "level", "noise", "error_change", "above_random"])


def optimum_sentences(sets: pd.DataFrame) -> list[str]:
    """What the table says: a sentence on the model, and one for each set and each thing that was done to it."""
    [whole] = sets[(sets["how"] == UNABLATED) & (sets["level"] < 0)].to_dict("records")
    return [
        f"The best possible predictions have a loss of {number(whole['best_loss'])} nats and an entropy of "
        f"{number(whole['best_entropy'])}; the model's loss is {number(whole['excess_loss'])} nats above, its entropy "
        f"is {number(whole['entropy'])}.",
        *_of_sets(sets),
    ]


def _of_sets(sets: pd.DataFrame) -> Iterator[str]:
    moved = moved_away(sets)
    levels = moved[moved["level"] >= 0]
    sizes = sets[sets["kind"] == "set"].drop_duplicates("set").set_index("set")["size"]
    for (name, how), rows in levels.groupby(["set", "how"], sort=False):
        [whole] = moved.loc[(moved["set"] == name) & (moved["how"] == how) & (moved["level"] < 0), "error_change"]
        away, beyond = (rows["error_change"] > 0).sum(), (rows["above_random"] > SURPASSED).sum()
        members = counted(int(sizes[name]), f"{name} neuron")
        yield (
            f"With {members} {WORDS[how]}, the entropy moves away from the best one at {away} of "
            f"{counted(len(rows), 'level')} of noise, and further than with {SURPASSED:.0%} of random sets at {beyond} "
            f"(change of the mean |difference|: {whole:+.3g} nats)."
        )
