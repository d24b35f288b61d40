"""What the pages of neurons show, against the model run with one neuron after the other ablated."""

import numpy as np
import pytest
from mixture_configs import MIXTURES
from random_models import SHAPE, analysed, counts_for, random_model, windows_for
from refusals import check_error

from jaxconf.analysis.ablation import Ablation
from jaxconf.measure.activations import LayerActivations, activations_of_each
from jaxconf.measure.neuron_sets import per_token
from jaxconf.measure.pages import neuron_pages
from jaxconf.results.pages import NEURON_COLUMNS, PASSAGE_COLUMNS, paged

MIXTURE = {**MIXTURES["qwen2_moe"], **SHAPE, "num_key_value_heads": 2}

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(
    ("kind", "layer", "ablation"),
    [
        ("rms", "all", Ablation()),
        ("capped", "last", Ablation("median")),
        ("mixture", "last", Ablation("clip", -1)),
        ("large, capped", "last", Ablation()),
    ],
)
def test_passages_equal_runs_with_one_neuron_ablated(kind: str, layer: str, ablation: Ablation) -> None:
    lm = random_model(kind, hf=MIXTURE if kind == "mixture" else None)
    tokens, counts = windows_for(lm, 4, 40), counts_for(lm)
    kept = np.ones(tokens.shape, bool)
    kept[:, :3] = kept[0] = kept[:, -1] = False
    how = {"counts": counts, "kept": kept, "ablation": ablation}
    engine = {"engine": "adaptive", "tolerance": 1e-5} if kind.startswith("large") else {}
    table = analysed(lm, tokens, layer=layer, bootstrap_draws=5, **how, **engine)
    pages = neuron_pages(lm, table, tokens, kept, neurons=3)
    assert pages.names == paged(table, 3)
    assert len(pages.names) >= 3
    assert list(pages.neurons) == list(NEURON_COLUMNS)
    assert list(pages.passages) == list(PASSAGE_COLUMNS)
    neurons = [tuple(map(int, name.split("."))) for name in pages.names]
    rows = table.frame.set_axis(table.names)
    places = {name: (rows.loc[name, "layer"], np.array([rows.loc[name, "neuron"]])) for name in pages.names}
    alone = per_token(lm, tokens, neurons, **how).set_index(["neuron", "window", "position"]).sort_index()
    shown = pages.passages.dropna(subset=["activation"]).set_index(["neuron", "window", "position"])
    both = shown.join(alone.add_suffix("_alone"), how="inner")
    assert len(both) > 100
    for column in ("activation", "loss", "loss_ablated", "entropy", "entropy_ablated"):
        np.testing.assert_allclose(both[column], both[f"{column}_alone"], rtol=1e-5, atol=3e-5)
    assert (both["token"] == both["token_alone"]).all()
    assert (both["target"] == both["target_alone"]).all()
    for name, of_neuron in pages.passages.groupby("neuron"):
        own = alone.loc[name]
        layer, neuron = places[name]
        activity = LayerActivations(lm, tokens, int(layer), 10**9)
        (h,) = activations_of_each(activity, neuron, lambda *told: None)  # NaN where not routed
        top = of_neuron[(of_neuron["kind"] == "top") & (of_neuron["position"] == of_neuron["at"])]["activation"]
        assert np.isclose(top.max(), np.nanmax(h[kept]), atol=1e-5)
        changes = (own["loss_ablated"] - own["loss"]).abs()
        most = of_neuron[(of_neuron["kind"] == "loss") & (of_neuron["position"] == of_neuron["at"])]
        assert np.isclose((most["loss_ablated"] - most["loss"]).abs().max(), changes.max(), atol=3e-5)
    frame = table.to_pandas()
    for name, row in pages.neurons.set_index("name").iterrows():
        np.testing.assert_allclose(
            np.linalg.norm(row["cosines"][-table.facts["k"] :]), frame.loc[name, "rho"], atol=1e-5
        )
        assert name not in row["nearest"]
        assert row["low"] <= frame.loc[name, "activation_mean"] <= row["high"]


def test_named_neurons_have_pages_and_mistakes_are_told() -> None:
    lm = random_model("rms")
    tokens = windows_for(lm)
    kept = np.ones(tokens.shape, bool)
    table = analysed(lm, tokens, bootstrap_draws=5)
    least = table.frame["loss_abs_delta"].idxmin()
    table.frame.loc[least, "is_entropy_neuron"] = True
    assert paged(table, 1) == [table.names[table.frame["loss_abs_delta"].idxmax()], table.names[least]]
    assert len(paged(table, "all")) == lm.config.d_mlp
    check_error(lambda: paged(table, -1), "neurons is -1", "or all")
    check_error(lambda: neuron_pages(random_model("layer"), table, tokens[:, 1:], kept[:, 1:]), "windows are not those")
    table.facts["d_model"] = 33
    check_error(lambda: neuron_pages(lm, table, tokens, kept), "d_model 32", "with 33")
