"""Pages of neurons of a planted table, with tokens that try to be more than text."""

import numpy as np
import pandas as pd

from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import NEURON_COLUMNS, PASSAGE_COLUMNS, NeuronPages, paged

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<script>document.title='taken'</script>",
    "שלום",  # from right to left
    "\u202eesrever",  # turns the direction of what follows
    "🧠👩‍🔬",
    "\x00\x07\x1b[31m",
    "\u2028line",
    "${title}&amp;`'\"\\",
    " a",
    "\n",
)
KINDS = {"top": 3, "quantile": 8, "loss": 2, "entropy": 2}


def planted_pages(table: NeuronTable, neurons: int = 12) -> NeuronPages:
    """Of the neurons that `paged` names; every passage has all tokens of HOSTILE."""
    rng, names = np.random.default_rng(3), paged(table, neurons)
    rows, passages = [], []
    for name in names:
        words = list(rng.permutation(HOSTILE)[:6])
        sample, groups = rng.standard_normal(40), np.sort(rng.standard_normal(10))
        near = [other for other in table.names[:5] if other != name]
        row = {"name": name, "low": -1.5, "high": 2.5, "histogram": rng.integers(0, 50, 40)}
        row |= {"group_activation": groups, "group_entropy": np.abs(groups)}
        row |= {"sample_activation": sample, "sample_entropy": np.abs(sample)}
        for which in ("promoted", "suppressed", "promoted_frozen", "suppressed_frozen"):
            row |= {which: words, f"{which}_by": rng.standard_normal(len(words))}
        row |= {"cosines": rng.uniform(-0.5, 0.5, len(table.singular_values)).astype(np.float32)}
        rows.append(row | {"nearest": near, "nearest_cosine": rng.uniform(-1, 1, len(near))})
        for kind, count in KINDS.items():
            for number in range(count):
                passages.append(_passage(rng, name, kind, number))
    frame = pd.DataFrame(rows)[list(NEURON_COLUMNS)]
    return NeuronPages(frame, pd.concat(passages, ignore_index=True)[list(PASSAGE_COLUMNS)])


def _passage(rng: np.random.Generator, name: str, kind: str, number: int) -> pd.DataFrame:
    count = len(HOSTILE)
    activation, loss, after, entropy, ablated = rng.uniform(-1.5, 2.5, (5, count)).astype(np.float32)
    for values in (loss, after, entropy, ablated):
        values[-1] = np.nan  # the window ends here
    place = {"neuron": name, "kind": kind, "number": number, "quantile": 0.5 if kind == "quantile" else np.nan}
    words = {"at": 12, "window": number, "position": 10 + np.arange(count), "token": HOSTILE, "target": HOSTILE[::-1]}
    effects = {"loss": loss, "loss_ablated": after, "entropy": entropy, "entropy_ablated": ablated}
    return pd.DataFrame({**place, **words, "activation": activation, **effects})


def planted_run(folder, table: NeuronTable, neurons: int = 12) -> NeuronPages:
    """A run folder with the table and its pages, and without the rest."""
    table.save(folder)
    pages = planted_pages(table, neurons)
    pages.save(folder)
    return pages
