"""The model that comes along: it is small, it loads, and it knows its text."""

import numpy as np

import jaxconf


def test_the_bundled_model_is_small_and_predicts_code():
    assert sum(file.stat().st_size for file in jaxconf.BUNDLED.iterdir()) < 2 * 2**20
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in jaxconf.BUNDLED.iterdir()}
    lm = jaxconf.load(jaxconf.BUNDLED)
    tokens = jaxconf.windows(
        jaxconf.documents("stdlib"), lm.tokenizer, n_tokens=16384, length=lm.config.n_positions
    ).tokens
    logits = np.asarray(lm.apply(tokens).logits, np.float64)[:, :-1]
    lp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    loss = -np.take_along_axis(lp, tokens[:, 1:, None], -1).mean()
    assert loss < 0.5 * np.log(lm.config.vocab_size)
