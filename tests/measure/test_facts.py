"""What every result states: which facts, in which order, and what replaces what."""

from random_models import random_model

from jaxconf.analysis.ablation import Ablation
from jaxconf.measure.facts import ablation_facts, facts_of
from jaxconf.runtime.timing import Timing

SHAPE = ["model_type", "n_layers", "d_model", "n_neurons", "vocab_size", "layer", "parameters"]
LAST = ["mesh", "seconds", "seconds_compiling", "pairs_per_second", "peak_memory", "versions", "device", "created"]


def test_facts_come_in_one_order_and_the_callers_replace_others() -> None:
    lm = random_model("layer")
    found = facts_of(lm, {"layer": 0, "k": 3}, Timing(), 10, {"device": "mine", "data": "text"})
    assert list(found) == ["model", "revision", *SHAPE, "k", *LAST, "data"]
    assert (found["layer"], found["device"], found["mesh"]) == (0, "mine", {"data": 1, "model": 1})
    assert list(found["versions"]) == ["jaxconf", "python", "jax", "numpy"]
    assert list(facts_of(lm, {}, Timing(), 10, None, {"base": "a", "tuned": ["b"]})) == ["base", "tuned", *SHAPE, *LAST]


def test_a_kind_without_a_value_has_the_value_0() -> None:
    assert ablation_facts(Ablation("scale", 2)) == {"ablation": "scale", "ablation_value": 2}
    assert ablation_facts(Ablation("clip")) == {"ablation": "clip", "ablation_value": 1}
    assert ablation_facts(Ablation()) == {"ablation": "mean", "ablation_value": 0}
