"""The text that a model is trained on: its tokenizer, its tokens, and the part held out.

Letters: b sequence, s window, t position, v vocabulary.
"""

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from jaxconf.data.documents import documents
from jaxconf.data.windows import encode
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.models.language_model import find
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.models.tokenizer_files import NAMES
from jaxconf.runtime.hosts import told
from jaxconf.runtime.progress import Progress

END = "<|endoftext|>"
HELD_OUT = 0.05  # share of the text, its end, that is never trained on
HELD_OUT_TOKENS = 1_000_000  # the most tokens that this share may have

Documents = Callable[[], Iterator[str]]
"""Gives the documents of a text anew at each call."""


def documents_of(data: str | Documents) -> Documents:
    """The documents of a source as `jaxconf.data.documents.documents` takes it, or those that a function gives."""
    return data if callable(data) else functools.partial(documents, data)


@dataclass(frozen=True)
class Corpus:
    """Encoded text, its documents joined by the token that ends a text.

    `train` and `held_out`: int32 tokens. `begin`: the token that begins each sequence, or None. `end`: the token that
    ends each document, or None. `tokenizer_files`: name → content of the files that a model's folder needs so that it
    is read with the same tokenizer.
    """

    train: np.ndarray
    held_out: np.ndarray
    begin: int | None
    end: int | None
    tokenizer_files: Mapping[str, str]

    def batch(self, seed: int, step: int, batch: int, context: int) -> np.ndarray:
        """The sequences of one step, int32 [b t+1], from places in the text that seed and step alone determine."""
        starts = np.random.default_rng([seed, step]).integers(0, len(self.train) - context, batch)
        return self._sequences(self.train, starts, context)

    def held_out_windows(self, n_tokens: int, context: int) -> np.ndarray:
        """Windows int32 [s t] spread evenly over the held-out text; as many as `n_tokens` fill, at least one."""
        count = min(max(1, n_tokens // context), len(self.held_out) // context)
        starts = np.arange(count) * len(self.held_out) // count
        return self._sequences(self.held_out, starts, context - 1)

    def counts(self, vocab_size: int) -> np.ndarray:
        """How often each token occurs in the training text, int64 [v]; those that begin and end a text have 0."""
        counts = np.bincount(self.train, minlength=vocab_size)
        counts[[i for i in {self.begin, self.end} if i is not None]] = 0
        return counts

    def digest(self) -> str:
        """The SHA-256 of all tokens, in hex."""
        return hashlib.sha256(np.concatenate([self.train, self.held_out]).astype("<i4").tobytes()).hexdigest()

    def _sequences(self, text: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Sequences of `length` + 1 tokens; the first of them is `begin`, if there is such a token."""
        if self.begin is None:
            return text[starts[:, None] + np.arange(length + 1)]
        rows = text[starts[:, None] + np.arange(length)]
        return np.pad(rows, ((0, 0), (1, 0)), constant_values=self.begin)


def read_corpus(
    vocab_size: int,
    context: int,
    documents: Documents,
    tokenizer: str | Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Corpus:
    """Encode the documents.

    `tokenizer`: a folder or hub id; by default a byte-level BPE is trained on the documents, which are then passed over
    twice. `vocab_size`: of the model. Raises InputError if the tokenizer and `vocab_size` do not fit, or if the text is
    too short for the vocabulary or for one held-out sequence of `context` tokens.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if tokenizer is None:
            progress("training the tokenizer", 0, 0)
            folder = Path(temporary)
            _save_tokenizer(documents(), vocab_size, context, folder)
        else:
            folder, _ = find(tokenizer, weights=False)
        encoder = Tokenizer.from_folder(folder)
        present = [name for name in ("tokenizer.json", *NAMES) if (folder / name).is_file()]
        files = {name: (folder / name).read_text("utf-8") for name in present}
    if "tokenizer.json" not in files:
        files["tokenizer.json"] = encoder.to_json()
    begin = encoder.eos_id if encoder.bos_id is None else encoder.bos_id
    size = max([encoder.vocab_size, *(i + 1 for i in (begin, encoder.eos_id) if i is not None)])
    if size > vocab_size:
        raise InputError(f"the tokenizer has {size} tokens and vocab_size is {vocab_size}; give --vocab-size {size}")
    parts = []
    progress("encoding the text", 0, 0)
    for ids in encode(documents(), encoder):
        parts.append(ids)
        progress("encoding the text", sum(map(len, parts)), 0)
    text = np.concatenate(parts) if parts else np.array([], np.int32)
    n_train = len(text) - min(int(len(text) * HELD_OUT), HELD_OUT_TOKENS)
    if len(text) - n_train <= context:
        raise InputError(
            f"the text gives {len(text)} tokens, too few to hold out {HELD_OUT:.0%} and still fill a sequence; "
            "give more text"
        )
    return Corpus(text[:n_train], text[n_train:], begin, encoder.eos_id, files)


def write_tokenizer(corpus: Corpus, folder: Path) -> None:
    """Put the tokenizer's files into a model's folder."""
    for name, content in corpus.tokenizer_files.items():
        with replacing(folder / name) as path:
            path.write_text(content, "utf-8")


def _save_tokenizer(documents: Iterator[str], vocab_size: int, context: int, folder: Path) -> None:
    trained = told(lambda: train_tokenizer(documents, vocab_size).to_str().encode())
    tokenizer = tokenizers.Tokenizer.from_str(trained.decode())
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise InputError(f"vocab_size is {vocab_size}, but the bytes alone need {size}; give at least that")
    if size < vocab_size:
        raise InputError(f"the text gives a vocabulary of only {size} tokens; give more text or a smaller vocab_size")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "bos_token": END,
        "eos_token": END,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n")


def train_tokenizer(documents: Iterator[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer; token 0 is both beginning and end of text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer
