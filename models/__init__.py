"""Decoders: their definitions, their parameters, and the way from a checkpoint to both."""
