"""Many neuron sets that answer together give what each gives alone, without cache or vmap.

Letters: p prompt, n new token, c neuron set, k neuron of a set. Log-probabilities and entropies in nats.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from meshes import ACROSS, gathered, on_mesh
from one_set_at_a_time import ablation, alone, log_p_alone
from parameters import marked
from random_models import random_model

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.measure import answers as together
from jaxconf.measure.answers import ablated_answers
from jaxconf.models.language_model import LanguageModel

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MEMORY = 10**9


def quiet(what: str, done: int, total: int) -> None:
    pass


C, NEW = 7, 6


def case(kind: str) -> tuple[LanguageModel, list[np.ndarray], list[list[np.ndarray]], Ablations]:
    """A model, prompts, two answers to each, and sets of several sizes, of which the first ablates nothing."""
    lm, rng = random_model(kind), np.random.default_rng(0)
    prompts = [rng.integers(1, lm.config.vocab_size, length) for length in (5, 9, 7)]
    answers = [[rng.integers(1, lm.config.vocab_size, 3), rng.integers(1, lm.config.vocab_size, 2)] for _ in prompts]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(C)])
    sizes = np.array([0, 6, 6, 3, 6, 1, 6])
    members[5] = members[5, 0]  # a set of one neuron, filled up with that neuron
    values = 2 * rng.standard_normal(members.shape).astype(np.float32)
    return lm, prompts, answers, Ablations(members, values, np.arange(6) < sizes[:, None])


@pytest.mark.parametrize(
    "kind", marked(["capped", "summed", "no norm"], quick=["capped", "no norm"])
)  # a norm behind the MLP and soft caps; a norm of the sum; no final norm. For others see below
def test_sets_answer_together_as_each_does_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, prompts, answers, sets = case(kind)
    monkeypatch.setattr(together, "SETS", 4)  # two chunks, of which one is filled up
    found = ablated_answers(lm, prompts, answers, sets, NEW, MEMORY, quiet, "")
    assert len(np.unique(found.tokens.reshape(-1, NEW), axis=0)) > len(prompts)
    for c in range(C):
        edits = ablation(lm, sets.members[c][sets.ablated[c]], sets.values[c][sets.ablated[c]])
        tokens, entropy = alone(lm, prompts, edits, NEW, 16)
        np.testing.assert_array_equal(found.tokens[c], tokens)
        np.testing.assert_allclose(found.entropy[c], entropy, atol=1e-5)
        for j in range(2):
            expected = log_p_alone(lm, prompts, [of_prompt[j] for of_prompt in answers], edits, 16)
            np.testing.assert_allclose(found.log_p[c, :, j], expected, atol=2e-5)
            expected = log_p_alone(lm, prompts, [of_prompt[j][:1] for of_prompt in answers], edits, 16)
            np.testing.assert_allclose(found.log_p_first[c, :, j], expected, atol=2e-5)


def test_answers_of_several_lengths_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts whose answers are longer come later, each in its place; there are answers of one token alone."""
    lm, prompts, _, sets = case("capped")
    rng, lengths = np.random.default_rng(1), [(5, 1, 3), (1, 1, 1), (2, 6, 7)]
    answers = [[rng.integers(1, lm.config.vocab_size, n) for n in of_prompt] for of_prompt in lengths]
    monkeypatch.setattr(together, "_prompts_at_once", lambda *how: 2)
    found = ablated_answers(lm, prompts, answers, sets, 0, MEMORY, quiet, "")
    for c in (0, 1, 5):
        edits = ablation(lm, sets.members[c][sets.ablated[c]], sets.values[c][sets.ablated[c]])
        for j in range(3):
            expected = log_p_alone(lm, prompts, [of_prompt[j] for of_prompt in answers], edits, 16)
            np.testing.assert_allclose(found.log_p[c, :, j], expected, atol=2e-5)
            expected = log_p_alone(lm, prompts, [of_prompt[j][:1] for of_prompt in answers], edits, 16)
            np.testing.assert_allclose(found.log_p_first[c, :, j], expected, atol=2e-5)


def test_what_sets_share_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets that leave neurons as they are need no texts of their own; one that differs needs one of each prompt."""
    lm, prompts, answers, sets = case("capped")
    texts: list[int] = []

    def counted(*arguments: Any) -> Any:
        texts.append(len(arguments[-1]))
        return advance(*arguments)

    advance = together.advance
    monkeypatch.setattr(together, "advance", counted)
    monkeypatch.setattr(together, "SETS", 4)
    same = ablated_answers(lm, prompts, answers, sets._replace(ablated=np.zeros((C, 6), bool)), NEW, MEMORY, quiet, "")
    assert texts == [3] * 2 * (NEW - 1)  # of two chunks
    assert (same.tokens == same.tokens[0]).all()
    texts.clear()
    one = sets._replace(
        values=np.full(sets.values.shape, 99, np.float32), ablated=np.tile(np.arange(C)[:, None] == 3, 6)
    )
    other = ablated_answers(lm, prompts, answers, one, NEW, MEMORY, quiet, "")
    assert texts[NEW - 2] == 12  # up to four of each prompt is the next size that is compiled
    assert texts[NEW - 1 :] == [3] * (NEW - 1)
    np.testing.assert_array_equal(np.delete(other.tokens, 3, 0), np.delete(same.tokens, 3, 0))
    assert (other.tokens[3] != same.tokens[3]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mesh"), ACROSS)
def test_meshes_give_the_same_answers(kind: str, mesh: tuple[int, int]) -> None:
    lm, rng = random_model(kind), np.random.default_rng(2)
    prompts = [rng.integers(1, lm.config.vocab_size, length) for length in (5, 9, 7, 6, 5)]
    answers = [[prompt[:2]] for prompt in prompts]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(5)])
    sets = Ablations(
        members, rng.standard_normal(members.shape).astype(np.float32), np.tile(np.arange(5)[:, None] > 0, 6)
    )
    one, other = (
        ablated_answers(model, prompts, answers, sets, 4, 10**5, quiet, "") for model in (lm, on_mesh(lm, *mesh))
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.log_p, other.log_p, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(one.entropy, other.entropy, atol=1e-5)


@pytest.mark.parametrize("mesh", [pytest.param((8, 1), marks=pytest.mark.slow), (2, 4)])
def test_no_logits_are_gathered(mesh: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rng = on_mesh(random_model("large"), *mesh), np.random.default_rng(2)
    V = lm.config.vocab_size
    prompts = [rng.integers(1, V, 5) for _ in range(16)]
    members = np.array([rng.choice(lm.config.d_mlp, 6, replace=False) for _ in range(3)])
    sets = Ablations(
        members, rng.standard_normal(members.shape).astype(np.float32), np.tile(np.arange(3)[:, None] > 0, 6)
    )
    found: dict[str, int] = {}

    def measured(name: str) -> Callable[..., Any]:
        program = getattr(together, name)

        def run(*arguments: Any) -> Any:
            found[name] = found.get(name) or gathered(program.lower(*arguments).compile())
            return program(*arguments)

        return run

    for name in ("begin", "judged", "likeliest", "branched", "advance"):
        monkeypatch.setattr(together, name, measured(name))
    ablated_answers(lm, prompts, [[prompt[:2], prompt[1:3]] for prompt in prompts], sets, 3, MEMORY, quiet, "")
    assert len(found) == 5
    assert max(found.values()) < len(prompts) * V
