"""Token counts of a corpus as a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxconf.data.documents import documents
from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.token_counts import count_tokens
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing
from jaxconf.models.language_model import find, read_config, text_folder
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.results.run_folder import claim
from jaxconf.results.words import reading_notes
from jaxconf.runtime.progress import Progress


def unigram(
    model: str,
    out: str | Path,
    *,
    revision: str | None = None,
    accept: str | Sequence[str] = (),
    data: str = OWN,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> np.ndarray:
    """Count the tokens of a corpus with a model's tokenizer, save the counts as the .npy file `out`, and return them.

    The counts are int64 [v], one for each id of the vocabulary.
    `model`, `revision` and `accept`: as for `jaxconf.load`; no weights are loaded. `data`: as for `jaxconf.analyze`.
    `force`: replace the file `out`. `say`: called with a sentence about rows of the text that were skipped or joined.
    Raises InputError for a file that exists or cannot be written, and for a model or a text that cannot be read.
    """
    out = Path(out)
    with claim(out.parent, out.name, force):
        folder, _ = find(model, revision, weights=False)
        vocab_size = config_from_hf(read_config(folder), accept).vocab_size
        folder = text_folder(folder)
        tokenizer = Tokenizer.from_folder(folder, vocab_size)
        progress("token counts", 0, 0)
        text = documents(source_for(data, folder))
        counts = count_tokens(text, tokenizer, vocab_size, lambda done: progress("token counts", done, 0))
        with replacing(out) as path, path.open("wb") as file:
            np.save(file, counts)
        for note in reading_notes(text.facts):
            say(note)
    return counts
