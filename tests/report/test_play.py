"""The page to play with: its scripts compute what jaxconf computes, and the page in docs/ is the one that is written.

Letters: s prompt, t position, m neuron, v vocabulary.
"""

import base64
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from page_scripts import in_chromium, in_node, needs_chromium, needs_node
from scipy.special import xlogy

import jaxconf
from jaxconf.analysis.temperature import best_temperature, change, unchanged
from jaxconf.data.worlds import world_of
from jaxconf.models.errors import InputError
from jaxconf.report.play.page import link, named_neurons, of_world, play_page, script, write_beside
from jaxconf.results.run_folder import PLAY

PROMPTS = 200
PAGE = Path(__file__).parents[2] / "docs" / "play" / "index.html"
NORM, NEURONS = "ln_final.hook_scale", "blocks.0.mlp.hook_post"
MODEL = """
const bytes = Uint8Array.from(atob(given.weights), letter => letter.charCodeAt(0));
const model = { config: given.config, tensors: readTensors(bytes) };
"""
RUN = """
const logits = given.prompts.map(({ tokens, factors, frozen }) => {
  const scales = frozen ? forward(model, tokens).scales : null;
  return forward(model, tokens, { factors, scales }).logits.slice(-given.last).map(row => Array.from(row));
});
logits
"""


class Edited(NamedTuple):
    """Windows of the model's text, each with scales of its own for the neuron sets, and our logits."""

    tokens: np.ndarray  # int [s t]
    factors: np.ndarray  # float32 [s m]
    frozen: np.ndarray  # bool [s]
    before: np.ndarray  # float32 [s t v]: as it is
    after: np.ndarray  # float32 [s t v]

    def prompts(self, ends: Iterable[int]) -> list[dict[str, object]]:
        """The first windows as prompts for the script, up to and with the position `ends` of each."""
        return [
            {
                "tokens": self.tokens[s, : end + 1].tolist(),
                "factors": self.factors[s].tolist(),
                "frozen": bool(self.frozen[s]),
            }
            for s, end in enumerate(ends)
        ]


@cache
def edited() -> Edited:
    """PROMPTS windows: both sets scaled by 0 to 4, and in every other window the norm frozen."""
    lm, rng = jaxconf.load(jaxconf.BUNDLED), np.random.default_rng(0)
    length = lm.config.n_positions
    text = jaxconf.documents(jaxconf.source_for("own", jaxconf.BUNDLED))
    tokens = np.asarray(jaxconf.windows(text, lm.tokenizer, PROMPTS * length, length).tokens)
    factors = np.ones((PROMPTS, lm.config.d_mlp), np.float32)
    for neurons in named_neurons().values():
        factors[:, neurons] = rng.uniform(0, 4, (PROMPTS, 1))
    frozen = np.arange(PROMPTS) % 2 == 1
    before = lm.apply(tokens, capture=[NORM])
    scaled = {NEURONS: jaxconf.Scale(jnp.asarray(factors)[:, None])}
    free = lm.apply(tokens, edits=scaled).logits
    held = lm.apply(tokens, edits={**scaled, NORM: jaxconf.Replace(before.captured[NORM])}).logits
    assert free is not None
    assert before.logits is not None
    return Edited(tokens, factors, frozen, np.asarray(before.logits), np.where(frozen[:, None, None], held, free))


def given_model() -> dict[str, object]:
    config = jaxconf.load(jaxconf.BUNDLED).hf_config
    weights = base64.b64encode((jaxconf.BUNDLED / "model.safetensors").read_bytes()).decode()
    return {"config": dict(config), "weights": weights}


@needs_node
def test_the_forward_pass_is_ours_at_every_position(tmp_path: Path) -> None:
    ours, some = edited(), 24
    length = ours.tokens.shape[1]
    given = {**given_model(), "prompts": ours.prompts([length - 1] * some), "last": length}
    found = np.array(in_node(script("forward.js") + MODEL + RUN, given, tmp_path))
    assert found.shape == ours.after[:some].shape
    assert abs(found - ours.after[:some]).max() <= 1e-4
    assert abs(ours.after - ours.before).max() > 1  # the edits do something


@needs_chromium
def test_the_page_in_chromium_gives_our_logits(tmp_path: Path) -> None:
    """The page's own model, which its own script has read."""
    ours = edited()
    at = np.random.default_rng(1).integers(ours.tokens.shape[1], size=PROMPTS)
    found = np.array(in_chromium(play_page(), RUN, {"prompts": ours.prompts(at), "last": 1}, tmp_path))[:, 0]
    assert found.shape == ours.after[:, 0].shape
    assert abs(found - ours.after[np.arange(PROMPTS), at]).max() <= 1e-4


ACT = """
const said = () => document.getElementById("said").innerText;
const enter = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("input"));
  return said();
};
const words = row => [...row.cells].map(cell => cell.innerText.trim());
const rows = () => [...document.querySelectorAll("#bars tbody tr")].map(words);
const found = { given: enter("text", given.text), scaled: enter("entropy", 2.5), rows: rows() };
document.getElementById("frozen").click();
found.frozen = said();
document.querySelectorAll("#chips input")[2].click();
found.earlier = [said(), document.getElementById("bars_title").innerText];
found.wrong = [enter("text", "e3 w5 w200"), document.getElementById("problem").innerText];
found.long = [enter("text", "w1 ".repeat(64)), document.getElementById("problem").innerText];
found.impossible = [enter("text", "e3 e4"), document.getElementById("problem").innerText, rows()[0][4]];
document.querySelector("button[data-entropy='1'][data-frequency='1']").click();
found.reset = [said(), document.getElementById("entropy").value, document.getElementById("frozen").checked];
found
"""


@needs_chromium
def test_the_page_says_what_a_reader_does(tmp_path: Path) -> None:
    """Every entropy and probability that it shows is ours; a text that it cannot read leaves the last one."""
    lm, world = jaxconf.load(jaxconf.BUNDLED), world_of(jaxconf.source_for("own", jaxconf.BUNDLED))
    text = "e5 w40 w41 w3 w4"
    found = in_chromium(play_page(), ACT, {"text": text}, tmp_path)
    tokens = np.array([[world.tokens.index(name) for name in ("<|endoftext|>", *text.split())]])
    factors = np.ones(lm.config.d_mlp, np.float32)
    factors[named_neurons()["entropy"]] = 2.5
    before = lm.apply(tokens, capture=[NORM])
    scaled = {NEURONS: jaxconf.Scale(jnp.asarray(factors))}
    held = {**scaled, NORM: jaxconf.Replace(before.captured[NORM])}
    every = [before, lm.apply(tokens, edits=scaled), lm.apply(tokens, edits=held)]
    p = [np.asarray(jax.nn.softmax(of.logits[0]), np.float64) for of in every]
    best = np.exp(world.optimum(tokens).log_probs[0])
    was, free, frozen, right = ([f"{entropy:.2f}" for entropy in -xlogy(of, of).sum(-1)] for of in (*p, best))
    assert f"entropy {was[-1]} nats (best possible: {right[-1]})" in found["given"]
    assert f"Entropy neurons ×2.5: entropy {was[-1]} → {free[-1]} nats (best possible: {right[-1]})" in found["scaled"]
    assert f"Entropy neurons ×2.5, norm frozen: entropy {was[-1]} → {frozen[-1]} nats" in found["frozen"]
    assert f"entropy {was[2]} → {frozen[2]} nats (best possible: {right[2]})" in found["earlier"][0]
    assert found["earlier"][1] == "What follows w40"
    for row, token in zip(found["rows"][:-1], np.argsort(-p[0][-1]), strict=False):
        assert row[0] == world.tokens[token]
        shown = [float(cell.rstrip("%")) / 100 for cell in row[2:]]
        np.testing.assert_allclose(shown, [of[-1, token] for of in (p[1], p[0], best)], rtol=0.06)
    assert found["wrong"][0] == found["earlier"][0]
    assert "w200" in found["wrong"][1]
    assert "64 tokens" in found["long"][1]
    assert "no best prediction" in found["impossible"][0]
    assert found["impossible"][1:] == ["", "–"]
    assert found["reset"][0].startswith("As it is")
    assert found["reset"][1:] == ["1", False]


@needs_node
def test_the_optimum_is_ours(tmp_path: Path) -> None:
    """In windows that begin with END, as the model's, and in the middle of a text, where nothing is known."""
    world = world_of(jaxconf.source_for("own", jaxconf.BUNDLED))
    tokens = edited().tokens[:24]
    text = "given.windows.map(tokens => optimum(given.world, tokens).map(row => Array.from(row)))"
    for windows in (tokens, tokens[:, 1:33]):
        given = {"world": of_world(world), "windows": windows.tolist()}
        found = np.array(in_node(f"{script('optimum.js')}\n{text}", given, tmp_path))
        np.testing.assert_allclose(found, np.exp(world.optimum(windows).log_probs), rtol=1e-9, atol=1e-14)


@needs_node
def test_where_the_text_cannot_go_on_like_this_there_is_no_optimum(tmp_path: Path) -> None:
    world = world_of(jaxconf.source_for("own", jaxconf.BUNDLED))
    end, marker = world.tokens.index("<|endoftext|>"), world.tokens.index("e3")
    texts = [
        [end, marker, 5, marker, 6],
        [end, marker, marker, 5],
        [end, 5, end, 5],
        [end, marker, end],
        [marker, 5, end],
    ]
    run = "given.texts.map(tokens => optimum(given.world, tokens).map(row => row !== null))"
    found = in_node(f"{script('optimum.js')}\n{run}", {"world": of_world(world), "texts": texts}, tmp_path)
    for tokens, possible in zip(texts, found, strict=True):
        for t in range(len(tokens)):
            try:
                world.optimum(np.array([tokens[: t + 1]]))
                assert possible[t], (tokens, t)
            except InputError:
                assert not possible[t], (tokens, t)


@needs_node
def test_the_temperature_is_the_one_of_the_studies(tmp_path: Path) -> None:
    ours = edited()
    before, after = (np.asarray(jax.nn.log_softmax(x[:12, 20])) for x in (ours.before, ours.after))
    run = "given.before.map((before, s) => bestTemperature(logProbabilities(before), logProbabilities(given.after[s])))"
    given = {"before": before.tolist(), "after": after.tolist()}
    found = in_node(f"{script('measures.js')}\n{run}", given, tmp_path)
    for s in range(len(before)):
        temperature, explained = best_temperature(
            unchanged(before[s : s + 1]), change(before[s : s + 1], after[s : s + 1])
        )
        assert found[s]["explained"] == pytest.approx(explained, abs=2e-3)
        if explained > 0.1:  # elsewhere hardly any temperature is better than another
            assert found[s]["temperature"] == pytest.approx(temperature, rel=5e-3)


def test_the_page_in_docs_is_the_one_that_is_written() -> None:
    assert PAGE.read_text("utf-8") == play_page(), "run scripts/play_page.py"
    assert PAGE.stat().st_size <= 3 * 2**20


def test_the_page_loads_nothing_from_outside() -> None:
    html = play_page().replace("http://www.w3.org/2000/svg", "")  # the name of SVG's elements
    assert not re.search(r"""https?:|@import|url\((?!#)|\bsrc=|fetch\(|XMLHttp|<link""", html)
    assert "default-src 'none'" in html  # browsers enforce it too


@pytest.mark.parametrize("facts", [{"model": "bundled"}, {"model": str(jaxconf.BUNDLED)}, {"base": "bundled"}])
def test_reports_of_the_bundled_model_link_to_the_page_beside_them(facts: dict[str, str], tmp_path: Path) -> None:
    write_beside(facts, tmp_path / "new")
    assert f'href="{PLAY}"' in link(facts)
    assert (tmp_path / "new" / PLAY).read_text("utf-8") == play_page()


def test_the_page_is_of_no_other_model(tmp_path: Path) -> None:
    for facts in ({"model": "some/model"}, {"model": "models/bundled-not"}, {}):
        write_beside(facts, tmp_path)
        assert link(facts) == ""
    assert not list(tmp_path.iterdir())
