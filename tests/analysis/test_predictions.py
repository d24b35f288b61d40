"""What a model predicts of each next token, against numpy."""

import numpy as np
from random_models import random_model

from jaxconf.analysis.predictions import next_token_predictions


def test_predictions_equal_their_definitions() -> None:
    lm = random_model("layer")
    tokens = np.random.default_rng(0).integers(0, lm.config.vocab_size, (3, 12)).astype(np.int32)
    tokens[0, 1:6] = np.asarray(lm.apply(tokens).logits)[0, :5].argmax(-1)  # some of what is predicted does follow
    logits = np.asarray(lm.apply(tokens).logits, np.float64)[:, :-1]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p, follows = np.exp(log_p), tokens[:, 1:, None] == np.arange(lm.config.vocab_size)
    found = next_token_predictions(lm.config, lm.params, tokens)
    expected = {
        "loss": -log_p[follows].reshape(3, 11),
        "entropy": -(p * log_p).sum(-1),
        "brier": ((p - follows) ** 2).sum(-1),
        "confidence": p.max(-1),
        "correct": p.argmax(-1) == tokens[:, 1:],
    }
    assert 0 < expected["correct"].mean() < 1
    assert set(expected) == set(found._fields)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-4, atol=1e-5, err_msg=name)
