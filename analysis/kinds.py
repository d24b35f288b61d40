"""The kinds of ablation. They are not in `jaxconf.analysis.ablation`, so that the command line need not load JAX."""

from typing import Literal, get_args

Kind = Literal["mean", "zero", "median", "mode", "min", "fixed", "scale", "mean+3std", "mean-3std", "clip"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VALUED: tuple[Kind, ...] = ("fixed", "scale", "clip")  # the kinds that take a value
