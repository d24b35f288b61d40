"""Figure 4 and its passages, on planted tables: which text is told, and how the pictures and the report show it."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from parameters import marked
from planted_table import planted_table
from plotly.offline import get_plotlyjs

from jaxconf.report import page as report
from jaxconf.report.page import write_report
from jaxconf.report.passages.figures import figure_4, figure_4_passages, save_token_figures
from jaxconf.report.passages.passage import LENGTH, LONGEST, MOST_NEURONS, PASSAGES, UNKNOWN, passages, scales, visible
from jaxconf.report.passages.plots import token_plots
from jaxconf.report.shown import MOST_POINTS
from jaxconf.results.run_folder import PER_TOKEN


@pytest.fixture(autouse=True)
def no_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other figures of the report take most of its time."""
    monkeypatch.setattr(report, "plots", lambda table: {})


def planted(
    spikes: dict[tuple[int, int], float],
    neuron: str = "3.5",
    windows: int = 2,
    positions: range = range(3, 127),
    ids: bool = False,
) -> pd.DataFrame:
    """What `jaxconf.per_token` gives for a neuron whose ablation lowers every loss by 0.01 nats.

    It raises those at `spikes`, (window, position) → nats.
    """
    rows = pd.MultiIndex.from_product([range(windows), positions], names=["window", "position"]).to_frame(index=False)
    random, place = np.random.default_rng(0), 1000 * rows["window"] + rows["position"]
    rows["token"], rows["target"] = (
        (place, place + 1) if ids else (" t" + place.astype(str), " t" + (place + 1).astype(str))
    )
    rows["loss"] = random.uniform(1, 2, len(rows))
    change = [spikes.get(place, -0.01) for place in zip(rows["window"], rows["position"], strict=True)]
    frozen = rows["loss"] + 0.1 * np.array(change)
    return rows.assign(
        neuron=neuron,
        activation=random.normal(size=len(rows)),
        loss_ablated=rows["loss"] + change,
        loss_ablated_ln_frozen=frozen,
        entropy=1.5,
        entropy_ablated=1.25,
        reciprocal_rank=0.5,
        reciprocal_rank_ablated=0.25,
    )


def page_of(folder, effects):
    effects.to_parquet(folder / PER_TOKEN, index=False)
    return write_report(planted_table(), folder).read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def texts(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_the_largest_spike_is_told_with_its_neighbours():
    effects = planted({(0, 70): 1.0, (1, 60): 3.0})
    first, second = passages(effects, "3.5")
    row = effects[(effects["window"] == 1) & (effects["position"] == 60)].iloc[0]
    assert (first.spike["window"], first.spike["position"], first.at) == (1, 60, 61)
    assert second.spike["position"] == 70
    assert first.tokens.index.tolist() == list(range(36, 36 + LENGTH))
    assert first.tokens["text"].tolist() == [f"·t{1000 + position}" for position in first.tokens.index]
    assert first.tokens["activation"][60] == row["activation"]
    assert first.tokens.loc[61, ["loss", "loss_ablated", "reciprocal_rank"]].tolist() == [
        row["loss"],
        row["loss"] + 3,
        0.5,
    ]
    assert first.tokens["loss_ablated"][60] < first.tokens["loss"][60]
    words = first.words()
    assert words.startswith(f"“·t1061” after “·t1060”, activation {row['activation']:.3g}: ")
    assert f": loss {row['loss']:.3g} → {row['loss'] + 3:.3g} nats (" in words
    assert "(+3; with the norm frozen +0.3), reciprocal rank 0.5 → 0.25, entropy 1.5 → 1.25 nats" in words
    assert words.endswith("Window 1, position 60.")
    assert scales([first, second])[1] == row["loss"] + 3


def test_of_overlapping_passages_the_best_is_told_and_no_other_neuron_counts():
    effects = planted({(0, 60): 1.0, (0, 65): 3.0, (0, 100): 2.0, (1, 60): 0.5})
    effects = pd.concat([effects, planted({(0, 20): 9.0}, neuron="3.8")], ignore_index=True)
    told = [(passage.spike["window"], passage.spike["position"]) for passage in passages(effects, "3.5")]
    assert told == [(0, 65), (1, 60)]


def test_no_more_passages_than_there_should_be():
    effects = planted({(window, 60): 1.0 + window for window in range(PASSAGES + 2)}, windows=PASSAGES + 2)
    assert [passage.spike["window"] for passage in passages(effects, "3.5")] == [6, 5, 4, 3, 2]
    assert passages(planted({}), "3.5") == []


@pytest.mark.parametrize("position", [3, 9])
def test_a_short_window_is_told_whole(position):
    (passage,) = passages(planted({(0, position): 1.0}, positions=range(3, 10)), "3.5")
    assert passage.tokens.index.tolist() == list(range(3, 11))
    assert np.isnan(passage.tokens["activation"][10])
    assert np.isnan(passage.tokens["loss"][3])
    assert passage.tokens["text"][10] == "·t10"


@pytest.mark.parametrize(("position", "first"), [(3, 3), (126, 127 - LENGTH + 1)])
def test_a_passage_at_the_edge_of_a_window_is_as_long_as_others(position, first):
    (passage,) = passages(planted({(1, position): 1.0}), "3.5")
    assert passage.tokens.index.tolist() == list(range(first, first + LENGTH))


def test_positions_that_were_not_kept_have_no_values():
    effects = planted({(0, 60): 1.0})
    (passage,) = passages(effects[~effects["position"].isin([50, 51])], "3.5")
    around = passage.tokens.loc[49:53]
    assert around["text"].tolist() == ["·t49", "·t50", UNKNOWN, "·t52", "·t53"]
    assert around["activation"].isna().tolist() == [False, True, True, False, False]
    assert around["loss"].isna().tolist() == [False, False, True, True, False]


def test_what_a_token_consists_of_shows():
    assert visible(" a\n\tb\r\x00") == "·a⏎⇥b\\r\\x00"
    assert visible("=" * LONGEST) == "=" * LONGEST
    assert visible("=" * (LONGEST + 1)) == "=" * (LONGEST - 1) + "…"
    assert visible(np.int32(17)).strip() == "17"
    (passage,) = passages(planted({(0, 60): 1.0}, ids=True), "3.5")
    assert passage.tokens["text"][61].strip() == "61"
    assert passage.words().startswith("“61” after “60”")


@pytest.mark.command
def test_pictures_are_saved_and_name_the_neurons(tmp_path):
    effects = pd.concat([planted({(0, 60): 1.0}), planted({}, neuron="3.8")], ignore_index=True)
    paths = save_token_figures(planted_table(), effects, tmp_path)
    assert [path.name for path in paths] == ["figure_4.png", "figure_4_passages.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    panels = figure_4(planted_table(), effects).axes
    assert [axes.get_title() for axes in panels][:2] == ["3.5", "3.8"]
    x, y = panels[0].collections[0].get_offsets().T
    np.testing.assert_allclose(x, planted({})["loss"])
    np.testing.assert_allclose(np.sort(y)[-2:], [-0.01, 1.0])
    said = texts(figure_4_passages(planted_table(), effects))
    assert "·t61" in said.split()
    assert "Ablating 3.8 raises the loss nowhere." in said


@pytest.mark.command
@pytest.mark.parametrize("neurons", marked([1, 4, MOST_NEURONS + 2], quick=[1, MOST_NEURONS + 2]))
def test_pictures_of_any_number_of_neurons(neurons, tmp_path):
    effects = pd.concat(
        [planted({(0, 4): 1.0}, neuron=f"3.{n}", windows=1, positions=range(3, 6)) for n in range(neurons)]
    )
    drawn = min(neurons, MOST_NEURONS)
    panels = figure_4(planted_table(), effects).axes
    assert sum(bool(axes.get_title()) for axes in panels) == drawn
    assert len(re.findall(r"3\.\d: full colour", texts(figure_4_passages(planted_table(), effects)))) == drawn
    page = page_of(tmp_path, effects)
    assert page.count('class="passage"') == page.count('id="figure_4_') == drawn
    assert ("are shown" in page) == (neurons > drawn)


@pytest.mark.command
def test_pictures_and_page_of_hostile_tokens(tmp_path):
    effects = planted({(0, 60): 1.0}).assign(token='<b>"$x_$', target="</script>中\U00010480" + "=" * 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_token_figures(planted_table(), effects, tmp_path)
    page = page_of(tmp_path, effects)
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&quot;$x_$</span>") == LENGTH
    assert page.count("</script>") == 3


def test_the_report_tells_of_tokens_where_there_are_some(tmp_path):
    assert 'id="tokens"' not in write_report(planted_table(), tmp_path).read_text(encoding="utf-8")
    effects = planted({(0, 60): 3.0})
    page = page_of(tmp_path, effects)
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1],
        parse_constant=pytest.fail,
    )
    assert 'id="tokens"' in page
    assert "figure_4_3.5" in data["figures"]
    (passage,) = passages(effects, "3.5")
    chips = re.findall(r"<span[^>]*>([^<]*)</span>", page[page.index('class="passage"') :])
    assert chips[:LENGTH] == passage.tokens["text"].tolist()
    (spike,) = re.findall(r'<span class="spike[^>]*>[^<]*</span>', page)
    assert spike.endswith(">·t61</span>")
    row = effects[(effects["window"] == 0) & (effects["position"] == 60)].iloc[0]
    assert f"--low:{row['loss'] / row['loss_ablated']:.1%};--high:100.0%" in spike
    assert f"loss {row['loss']:.3g}, ablated {row['loss_ablated']:.3g} nats\nreciprocal rank 0.5" in spike


def test_many_points_are_thinned_but_the_strongest_stay():
    effects = planted({(63, 60): 2.0, (77, 9): -4.0}, windows=2 * MOST_POINTS // 100)
    (trace,) = token_plots(effects, seed=0)["3.5"].data
    assert len(trace.x) == len(trace.text) == MOST_POINTS
    assert (np.min(trace.y), np.max(trace.y)) == pytest.approx((-4, 2))
    assert "window 63, position 60" in trace.text[int(np.argmax(trace.y))]
    assert trace.text[int(np.argmax(trace.y))].startswith("“ t63060” → “ t63061”")
