"""Intervals of calibration in `jaxconf.compare` draw whole documents again."""

import jax
import numpy as np
import pytest
from random_models import random_model, windows_for

import jaxconf
from jaxconf.analysis.intervals import resamples
from jaxconf.data.windows import Windows, kept_positions
from jaxconf.models.language_model import LanguageModel
from jaxconf.studies.comparison.sentences import paragraphs

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DRAWS = 60


@pytest.fixture(scope="module")
def models() -> list[LanguageModel]:
    return [random_model("rms", seed) for seed in (0, 1)]


def test_whole_documents_are_drawn_again_for_both_models(models: list[LanguageModel]) -> None:
    tokens = windows_for(models[0], 9, 40)
    documents = (np.arange(tokens.size).reshape(tokens.shape) + 5) // 13  # documents end within windows, and span two
    found = jaxconf.compare(models[0], models[1:], Windows(tokens, documents), bootstrap_draws=DRAWS)
    kept = kept_positions(tokens, models[0].special_ids)[:, :-1]
    member = np.array([documents[:, :-1][kept] == document for document in np.unique(documents)], float)  # document, p
    weights = resamples(member.sum(1), DRAWS, 0)
    losses = []
    for lm in models:
        lp = np.asarray(jax.nn.log_softmax(lm.apply(tokens).logits), np.float64)[:, :-1]
        losses.append(-np.take_along_axis(lp, tokens[:, 1:, None], -1)[..., 0][kept])
    drawn = [(weights @ (member @ loss)) / (weights @ member.sum(1)) for loss in losses]
    row = found.calibration.set_index(["model", "measure"]).loc[(found.facts["tuned"][0], "loss")]
    values = np.quantile(drawn[1], [0.025, 0.975])
    np.testing.assert_allclose(row[["value_lo", "value_hi"]].astype(float), values, atol=1e-5)
    changes = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    np.testing.assert_allclose(row[["change_lo", "change_hi"]].astype(float), changes, atol=1e-5)
    assert (found.facts["units"], found.facts["resampled"]) == (member.any(1).sum(), "documents")
    assert member.any(1).sum() >= 20
    assert not any("too narrow" in sentence for sentence in paragraphs(found))


def test_too_few_documents_are_told(models: list[LanguageModel]) -> None:
    found = jaxconf.compare(models[0], models[1:], windows_for(models[0]), bootstrap_draws=DRAWS)
    assert (found.facts["documents"], found.facts["resampled"]) == (3, "windows or parts of one")
    assert any("3 documents, and at least 20" in sentence for sentence in paragraphs(found))
