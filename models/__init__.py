"""Decoders: the forward pass, parameters and their files, tokenizers, generation, and the device mesh."""
