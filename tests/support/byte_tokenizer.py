"""A tokenizer with one token for each byte."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jaxconf.models.tokenizer import Tokenizer

BOS, EOS = 256, 257


def byte_tokenizer(bos_id: int | None = BOS, eos_id: int | None = EOS) -> Tokenizer:
    """One token for each byte, ids 0 to 255."""
    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer(tokenizer, bos_id, [] if eos_id is None else [eos_id])
