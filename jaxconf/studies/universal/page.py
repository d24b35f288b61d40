"""The page of `jaxconf universal`: one HTML file that holds everything it needs and opens offline."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jaxconf.report.markup import entries, facts, frame_table, paragraphs, pictures
from jaxconf.report.picture_page import study_page
from jaxconf.studies.universal.attention import judged_heads
from jaxconf.studies.universal.explanations import FEATURES
from jaxconf.studies.universal.families import FamilyRules
from jaxconf.studies.universal.sentences import of_first, sentences

if TYPE_CHECKING:
    from jaxconf.studies.universal.study import Universality

PAPER = "“Universal Neurons in GPT2 Language Models” (Gurnee et al., 2024)"
SHOWN = 40
MEASURES = (
    "correlation",
    "baseline",
    "excess",
    "w_norm",
    "logit_var",
    "vocab_skew",
    "vocab_kurtosis",
    "rho",
    "cos_freq",
    "position_r2",
    "bos_change",
)
ATTENTION = ("bos_change", "bos_change_ablated", "chance", "attention", "attention_change", "is_confirmed")
BROAD = ("universal_moments", "universal_vocabulary")

CAPTIONS = {
    "universal_layers": (
        "Universal neurons by layer",
        "If matching neurons lie at the same depth in the models, the best matches lie on the diagonal. The numbers on "
        "the left are counts of universal neurons.",
    ),
    "universal_excess": (
        "Best match and baseline",
        "Each point is a neuron. A neuron on the solid line correlates no better with its best match than with a "
        "random mixture of a layer's neurons.",
    ),
    "universal_families": (
        "Families",
        "If the red bar is longer than the grey one, neurons of the family recur more often than other neurons. In "
        "brackets is the number of the family's neurons in the first model.",
    ),
    "universal_moments": (
        "Excess correlation and weights",
        "The paper's universal neurons have large norms and peaked, skewed effects on the vocabulary.",
    ),
    "universal_properties": (
        "What sets universal neurons apart",
        "Each point is a universal neuron: above the dashed line it has more of the property than most neurons of its "
        "layer.",
    ),
    "universal_depth": (
        "Families by depth",
        "In the paper prediction neurons fill the second half of the models, and suppression neurons take over in the "
        "last layers.",
    ),
    "universal_vocabulary": (
        "Effects on the vocabulary",
        "The histogram of a prediction neuron has a tail to the right, that of a suppression neuron one to the left, "
        "and that of a partition neuron is wide. That of a null-space neuron may be wide too, because cosines do not "
        "show how little its write changes the logits.",
    ),
    "universal_explanations": (
        "What explains activations",
        "Each feature of the text predicts the activation at positions that it was not fitted to. In brackets is the "
        "number of the neurons that the feature explains best.",
    ),
    "universal_attention": (
        "Attention to BOS by ablation",
        "On the solid line the gradient says exactly what the ablation does.",
    ),
    "universal_composition": (
        "Composition with other neurons",
        "Right of the dashed line a neuron and one of another layer are more aligned than any of as many random "
        "directions.",
    ),
}


def page(found: "Universality", images: Sequence[Path]) -> str:
    """The HTML of the page. `images`: the files of the figures."""
    first = of_first(found)
    first = first.assign(name=first["layer"].astype(str) + "." + first["neuron"].astype(str))
    rules = FamilyRules(*(found.facts[name] for name in ("min_excess", "min_position_r2", "min_bos_change")))
    return study_page(
        files(__package__) / "page.html",
        "universal",
        found.facts,
        "Universal neurons",
        PAPER,
        verdict=paragraphs([" ".join(sentences(found))]),
        figures=pictures(images, CAPTIONS, BROAD),
        families=frame_table(found.families, "family", [column for column in found.families if column != "family"]),
        rules=entries(rules.describe().items()),
        neurons=frame_table(first.nlargest(SHOWN, "excess"), "name", MEASURES),
        explanations=frame_table(found.explanations, "feature", list(found.explanations)[1:]),
        features=entries(FEATURES.items()),
        attention=frame_table(*_attention(found)),
        composition=frame_table(*_composition(found)),
        models=frame_table(_models(found), "model", ["neurons", "correlation", "baseline", "excess"]),
        facts=facts(found.facts),
    )


def _attention(found: "Universality") -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """The ablated candidates with the heads that their gradients name: table, heads of its rows, columns."""
    rows = judged_heads(found.attention, "candidate")
    rows = rows.assign(is_confirmed=rows["confirmed"].astype(bool))
    names = rows["layer"].astype(str) + "." + rows["neuron"].astype(str) + " on " + rows["head"]
    largest = rows.assign(pair=names).sort_values("bos_change_ablated", key=abs, ascending=False).head(SHOWN)
    return largest, "pair", ATTENTION


def _composition(found: "Universality") -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """The strongest pairs in which a universal neuron writes or reads: table, heads of its rows, columns."""
    rows = found.composition[found.composition["is_universal"].astype(bool)]
    own = rows["layer"].astype(str) + "." + rows["neuron"].astype(str)
    partner = rows["partner_layer"].astype(str) + "." + rows["partner_neuron"].astype(str)
    writes = rows["side"] == "out"
    pair = own.where(writes, partner) + " → " + partner.where(writes, own)
    strongest = rows.assign(pair=pair).sort_values("cosine", key=abs, ascending=False).drop_duplicates("pair")
    return strongest.head(SHOWN), "pair", ("cosine", "random", "chance")


def _models(found: "Universality") -> pd.DataFrame:
    """A row per model: how many neurons it has, and medians over the first model's best matches with them."""
    top = found.matches[found.matches["rank"] == 0].groupby("model")[["correlation", "baseline", "excess"]].median()
    frame = found.neurons.groupby("model").size().to_frame("neurons").join(top)
    return frame.assign(model=found.facts["models"])
