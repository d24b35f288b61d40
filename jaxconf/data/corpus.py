"""Training text: its tokenizer, its tokens, and the part that is held out.

Letters: b sequence, s window, t position, v vocabulary.
"""

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from jaxconf.data.documents import documents, reading_facts
from jaxconf.data.own_text import source_for
from jaxconf.data.windows import encode
from jaxconf.data.worlds import World, world_of
from jaxconf.models.errors import InputError
from jaxconf.models.files import replacing
from jaxconf.models.language_model import find, text_folder
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.models.tokenizer_names import NAMES
from jaxconf.runtime.hosts import told
from jaxconf.runtime.progress import Progress

END = "<|endoftext|>"
HELD_OUT = 0.05  # the held-out part is this share of the text, taken from its end
HELD_OUT_TOKENS = 1_000_000  # the most tokens that are held out

Documents = Callable[[], Iterator[str]]
"""A function that returns a new iterator over the same documents at each call."""


def documents_of(data: str | Documents) -> Documents:
    """`data` itself if it is a function, else a function that reads the source `data` as `jaxconf.documents` does."""
    return data if callable(data) else functools.partial(documents, data)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Encoded text, split into a training part and a held-out part.

    `train` and `held_out`: token ids, int32, one axis. `begin`: the id of the token that begins each sequence, or None.
    `end`: the id of the token that ends each document, or None. `tokenizer_files`: name → content of the tokenizer's
    files, which the folder of the trained model gets too. `world`: the one that the text is of, or None. `facts`: of
    `jaxconf.documents`, what was skipped or joined in reading the text.
    """

    train: np.ndarray
    held_out: np.ndarray
    begin: int | None
    end: int | None
    tokenizer_files: Mapping[str, str]
    world: World | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def batch(self, seed: int, step: int, batch: int, context: int) -> np.ndarray:
        """The sequences of one training step, int32 [b t+1], with t = `context`.

        They start at random places in the training text, which depend on `seed` and `step` alone.
        """
        starts = np.random.default_rng([seed, step]).integers(0, len(self.train) - context, batch)
        return self._sequences(self.train, starts, context)

    def held_out_windows(self, n_tokens: int, context: int) -> np.ndarray:
        """Windows int32 [s t], with t = `context`, spread evenly over the held-out text.

        There are as many as `n_tokens` tokens fill, at least one, and at most as many as the held-out text fills.
        """
        count = min(max(1, n_tokens // context), len(self.held_out) // context)
        starts = np.arange(count) * len(self.held_out) // count
        return self._sequences(self.held_out, starts, context - 1)

    def counts(self, vocab_size: int) -> np.ndarray:
        """How often each token occurs in the training text, int64 [v]; `begin` and `end` count as 0."""
        counts = np.bincount(self.train, minlength=vocab_size)
        counts[[i for i in {self.begin, self.end} if i is not None]] = 0
        return counts

    def digest(self) -> str:
        """The SHA-256 of all tokens, in hexadecimal digits."""
        return hashlib.sha256(np.concatenate([self.train, self.held_out]).astype("<i4").tobytes()).hexdigest()

    def _sequences(self, text: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Sequences of `length` + 1 tokens, int32 [b length+1]; the first token of each is `begin` unless that is None.

        `starts`: where each sequence starts in the text.
        """
        if self.begin is None:
            return text[starts[:, None] + np.arange(length + 1)]
        rows = text[starts[:, None] + np.arange(length)]
        return np.pad(rows, ((0, 0), (1, 0)), constant_values=self.begin)


def read_corpus(
    vocab_size: int,
    context: int,
    data: str | Documents,
    tokenizer: str | Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Corpus:
    """Encode the documents, and hold out the end of the text.

    `vocab_size`: the size of the model's vocabulary. `context`: the length of the sequences. `data`: as for
    `documents_of`. `tokenizer`: a folder or hub id; by default that of the world if `data` names one, which takes no
    other, and else a byte-level BPE tokenizer that is trained on the documents, which are then read twice. Raises
    InputError if the tokenizer has more tokens than `vocab_size` or is not that of the world, or if the text is too
    short to train a tokenizer of `vocab_size` tokens or to hold out one sequence.
    """
    world = world_of(data) if isinstance(data, str) else None
    with tempfile.TemporaryDirectory() as temporary:
        if tokenizer is None and world:
            folder = Path(temporary)
            for name, content in world.tokenizer_files.items():
                (folder / name).write_text(content, "utf-8")
        elif tokenizer is None:
            progress("training the tokenizer", 0, 0)
            folder = Path(temporary)
            _save_tokenizer(documents_of(data)(), vocab_size, context, folder)
        else:
            folder = text_folder(find(tokenizer, weights=False, what="tokenizer")[0])
            data = source_for(data, folder) if isinstance(data, str) else data
        encoder = Tokenizer.from_folder(folder)
        files = {name: (folder / name).read_text("utf-8") for name in NAMES if (folder / name).is_file()}
    # The class that the folder names, or that its model_type has, may mean something else beside another model.
    named = json.loads(files.get(NAMES[0], "{}")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    files |= {"tokenizer.json": encoder.to_json(), NAMES[0]: json.dumps(named, indent=1) + "\n"}
    begin = encoder.eos_id if encoder.bos_id is None else encoder.bos_id
    size = max([encoder.vocab_size, *(i + 1 for i in (begin, encoder.eos_id) if i is not None)])
    if size > vocab_size:
        raise InputError(f"the tokenizer has {size} tokens and vocab_size is {vocab_size}; give --vocab-size {size}")
    parts = []
    progress("encoding the text", 0, 0)
    read = documents_of(data)()
    for ids in encode(read, encoder):
        parts.append(ids)
        progress("encoding the text", sum(map(len, parts)), 0)
    text = np.concatenate(parts) if parts else np.array([], np.int32)
    n_train = len(text) - min(int(len(text) * HELD_OUT), HELD_OUT_TOKENS)
    if len(text) - n_train <= context:
        raise InputError(
            f"the text gives {len(text)} tokens, and the {HELD_OUT:.0%} of them that are held out do not fill a "
            f"sequence of {context} tokens; give more text"
        )
    return Corpus(text[:n_train], text[n_train:], begin, encoder.eos_id, files, world, reading_facts(read))


def write_tokenizer(corpus: Corpus, folder: Path) -> None:
    """Write the tokenizer's files into a model's folder."""
    for name, content in corpus.tokenizer_files.items():
        with replacing(folder / name) as path:
            path.write_text(content, "utf-8")


def _save_tokenizer(documents: Iterator[str], vocab_size: int, context: int, folder: Path) -> None:
    trained = told(lambda: train_tokenizer(documents, vocab_size).to_str().encode())
    tokenizer = tokenizers.Tokenizer.from_str(trained.decode())
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise InputError(f"vocab_size is {vocab_size}, but the bytes alone need {size}; give at least {size}")
    if size < vocab_size:
        raise InputError(f"the text gives a vocabulary of only {size} tokens; give more text or a smaller vocab_size")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {"bos_token": END, "eos_token": END, "model_max_length": context}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n")


def train_tokenizer(documents: Iterator[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Train a byte-level BPE tokenizer; its token 0 marks both the beginning and the end of a text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer
