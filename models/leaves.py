"""The leaf table has a row (`Leaf`) for each parameter: its axes, its initial value, and where a file stores it."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import einops

from jaxconf.models.config import DecoderConfig

if TYPE_CHECKING:
    import numpy as np


class Part(NamedTuple):
    """The range [start, stop) of an axis of length `of` that several leaves share.

    `blocks`: the length of the view's axis "p", each entry of which has such an axis; 1 if the view has no "p".
    """

    start: int
    stop: int
    of: int
    blocks: int = 1


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A parameter of the decoder, and the stored tensor that it is read from, or the tensors, one for each layer."""

    path: str  # its place in `params`, such as "blocks/attn/wq"
    axes: tuple[str, ...]  # logical axes; stacked leaves begin with "layers"
    # The name of its tensor without the family's prefix. "{i}" stands for the index on the leaf's first axis, "{j}" for
    # that on its second; the leaf is then stacked from one tensor for each index. "{e}" stands for an expert; the
    # leaf's axis "mlp" is then joined from a tensor of each expert.
    source: str
    # An einops pattern from one stored tensor to the leaf without its stacked axes. Empty: the tensor needs no change.
    view: str = ""
    part: Part | None = None  # the range of the view's axis "a" that belongs to this leaf
    init: Literal["normal", "residual", "zeros", "ones"] = "normal"
    shared: str = ""  # if there are experts: the tensor of the shared one, as `source`

    @property
    def stacked(self) -> int:
        """How many axes the leaf is stacked over: the first ones, which its tensors do not have."""
        return ("{i}" in self.source) + ("{j}" in self.source)

    @property
    def joined(self) -> bool:
        """Whether its axis "mlp" is joined from a tensor of each expert."""
        return "{e}" in self.source

    def shape(self, config: DecoderConfig) -> tuple[int, ...]:
        sizes = config.axis_sizes()
        return tuple(sizes[axis] for axis in self.axes)

    def shape_at(self, config: DecoderConfig, place: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is read from one tensor, which stands at `place` among the names."""
        shape = list(self.shape(config)[self.stacked :])
        if self.joined:
            shape[self.axes.index("mlp") - self.stacked] = config.experts[place[-1]]
        return tuple(shape)

    @property
    def stored_as_read(self) -> bool:
        """Whether the stored matrix begins with the axis that the leaf begins with: the input, or of an embedding the
        vocabulary.
        """
        left, right = self.view.split("->") if self.view else ("", "")
        return re.findall(r"\w+", left)[:1] == re.findall(r"\w+", right)[:1]

    def names(self, config: DecoderConfig) -> "np.ndarray":
        """The names of its tensors, as an array of str with the stacked axes, and if it is joined one of experts."""
        import numpy as np

        sizes = self.shape(config)[: self.stacked] + (len(config.experts),) * self.joined
        return np.array([self._name(config, place) for place in itertools.product(*map(range, sizes))]).reshape(sizes)

    def _name(self, config: DecoderConfig, place: tuple[int, ...]) -> str:
        name = self.source
        if self.joined:
            place, expert = place[:-1], place[-1]
            name = self.shared if expert >= config.routed_experts else name.replace("{e}", str(expert))
        return name.replace("{i}", str(place[0]) if place else "").replace("{j}", str(place[-1]) if place else "")

    def read(self, config: DecoderConfig, stored: "np.ndarray", place: tuple[int, ...] = ()) -> "np.ndarray":
        """This leaf's part of one stored tensor, without a copy where numpy can make a view.

        `place`: that of the tensor among the names; needed if the leaf is joined. Raises einops.EinopsError if the
        tensor's shape does not fit.
        """
        if not self.view:
            return stored
        left, flat, right, sizes = self._pattern(self.shape_at(config, place))
        return einops.rearrange(
            self._cut(flat, einops.rearrange(stored, f"{left} -> {flat}", **sizes)),
            f"{flat} -> {right}",
            **self._own(sizes),
        )

    def write(self, value: "np.ndarray", stored: "np.ndarray | None") -> "np.ndarray":
        """The stored tensor from which `read` gives `value`.

        `stored`: that tensor as other leaves have written it so far, or None. Entries that belong to no leaf are 0.
        """
        import numpy as np

        if not self.view:
            return value
        left, flat, right, sizes = self._pattern(value.shape)
        own = einops.rearrange(value, f"{right} -> {flat}", **self._own(sizes))
        if self.part is None:
            return einops.rearrange(own, f"{flat} -> {left}")
        shape = [sizes[letter] for letter in flat.split()]
        whole = (
            np.zeros(shape, value.dtype) if stored is None else einops.rearrange(stored, f"{left} -> {flat}", **sizes)
        )
        self._cut(flat, whole)[:] = own
        return einops.rearrange(whole, f"{flat} -> {left}")

    def _pattern(self, shape: tuple[int, ...]) -> tuple[str, str, str, dict[str, int]]:
        """The view's left side (the tensor), its letters in that order, its right side, and the size of each letter.

        `shape`: of what is read.
        """
        left, right = (side.strip() for side in self.view.split("->"))
        taken = {"a": self.part.stop - self.part.start, "p": self.part.blocks} if self.part else {}
        sizes = {"a": self.part.of, "p": self.part.blocks} if self.part else {}
        for group, size in zip(re.findall(r"\([^)]*\)|\w+", right), shape, strict=True):
            letters = re.findall(r"\w+", group)
            for letter in letters:
                if letter not in taken:
                    sizes[letter] = size // math.prod(taken.get(other, 1) for other in letters)
        sizes = {letter: size for letter, size in sizes.items() if letter in right}
        return left, " ".join(re.findall(r"\w+", left)), right, sizes

    def _cut(self, flat: str, array: "np.ndarray") -> "np.ndarray":
        if self.part is None:
            return array
        index = [slice(None)] * array.ndim
        index[flat.split().index("a")] = slice(self.part.start, self.part.stop)
        return array[tuple(index)]

    def _own(self, sizes: dict[str, int]) -> dict[str, int]:
        return sizes | {"a": self.part.stop - self.part.start} if self.part else sizes


def nest(flat: Iterable[tuple[str, Any]]) -> dict:
    """A nested dict from (path, value) pairs, paths split at "/"."""
    tree: dict = {}
    for path, value in flat:
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = value
    return tree
