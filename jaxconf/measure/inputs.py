"""The windows of tokens that a measurement runs on. Letters: s window, t position."""

import numpy as np

from jaxconf.data.documents import documents
from jaxconf.data.windows import windows
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel

WINDOW = 256  # tokens, where the model's context is not shorter


def windows_of(tokens: np.ndarray | int, data: str, *lms: LanguageModel) -> np.ndarray:
    """The windows int32 [s t] that `tokens` is, or that many tokens of the text `data`.

    Text is read with the first model's tokenizer, in windows of 256 tokens, or of the shortest context of the models. `data`: as for
    `jaxconf.documents`. Raises InputError for a number below 1, and as `jaxconf.documents` and `jaxconf.windows` do.
    """
    if not isinstance(tokens, int):
        return np.asarray(tokens, np.int32)
    if tokens < 1:
        raise InputError(f"tokens is {tokens}; give at least 1")
    return windows(documents(data), lms[0].tokenizer, tokens, min(WINDOW, *(lm.config.n_positions for lm in lms)))
