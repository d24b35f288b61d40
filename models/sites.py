"""Sites: the named places of the forward pass that can be read (captured) and written (edited).

Names are TransformerLens's. Shapes: b batch, t position, q and s query and source position, d model width, h head, g
key/value head, k head width, m MLP neuron, e expert; `blocks.{i}.` precedes all but the embedding and `ln_final`.

    hook_embed                                          b t d    the token's embedding (projected, scaled, normed)
    hook_pos_embed                                      b t d    the position's embedding
    hook_resid_pre, hook_resid_mid, hook_resid_post     b t d    the stream (no mid in parallel blocks)
    ln1.hook_scale, ln2.…, ln_final.hook_scale          b t 1    σ = √(var + eps), what the norm divides by
    ln1.hook_normalized, ln2.…, ln_final.…              b t d    (x − mean)/σ, before the gain and bias
    ln1_post.…, ln2_post.…, ln_embed.…                           norms after attention, MLP, embedding, if any
    attn.hook_q; hook_k, hook_v                         b t h k; b t g k
    attn.hook_rot_q; hook_rot_k                         b t h k; b t g k    after the rotation (rotary models)
    attn.hook_attn_scores, attn.hook_pattern            b h q s  before and after the softmax
    attn.hook_z                                         b t h k  the sum of the values, weighted by the pattern
    hook_attn_out, hook_mlp_out                         b t d    what is added to the stream
    mlp.hook_pre, mlp.hook_post                         b t m    before the activation; what w_out reads
    mlp.hook_pre_linear                                 b t m    the other factor of a gated MLP
    mlp.hook_router                                     b t e    the router's weight of each expert, 0 if not chosen

In a model that norms the stream after each addition (OPT-350m), `hook_resid_mid` is the input of ln1,
`hook_resid_post` is the input of ln2, the next layer's `hook_resid_pre` is the output of ln2, and there is no ln_final.
A model without a final norm has the sites of ln_final all the same: its scale is 1, and `hook_normalized` is the
stream.

Whatever is computed from a site uses its edited value: freezing `ln_final.hook_scale` changes the logits.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxconf.models.errors import InputError, nearest


@struct.dataclass
class Replace:
    """The site becomes `value`, which broadcasts to its shape. On a norm's `hook_scale` it freezes the norm."""

    value: jax.Array

    def __call__(self, activation: jax.Array) -> jax.Array:
        return jnp.broadcast_to(self.value, activation.shape).astype(activation.dtype)


@struct.dataclass
class Add:
    """`value` is added to the site."""

    value: jax.Array

    def __call__(self, activation: jax.Array) -> jax.Array:
        return activation + jnp.asarray(self.value).astype(activation.dtype)


@struct.dataclass
class Scale:
    """The site is multiplied by `factor`."""

    factor: jax.Array

    def __call__(self, activation: jax.Array) -> jax.Array:
        return activation * jnp.asarray(self.factor).astype(activation.dtype)


@struct.dataclass
class Ablate:
    """Where `mask` is true the site becomes `value`. Both broadcast to its shape: a bool [m] mask ablates neurons."""

    mask: jax.Array
    value: jax.Array

    def __call__(self, activation: jax.Array) -> jax.Array:
        return jnp.where(self.mask, jnp.asarray(self.value).astype(activation.dtype), activation)


@struct.dataclass
class Dropout:
    """Each entry of the site becomes 0 with probability `rate`, else it is divided by 1 − `rate`.

    `key`: a key of jax.random. Source: Srivastava et al. 2014.
    """

    rate: jax.Array
    key: jax.Array

    def __call__(self, activation: jax.Array) -> jax.Array:
        kept = jax.random.bernoulli(self.key, 1 - self.rate, activation.shape)
        return jnp.where(kept, activation / (1 - jnp.asarray(self.rate).astype(activation.dtype)), 0)


@struct.dataclass
class AddFrom:
    """What `written` gives for the value of the site `reads` is added to the site.

    `reads`: this site, or one of the same layer that runs before it. `written`: a callable pytree with array leaves,
    from a value [… i] to what is added; a function would be no data.
    """

    reads: str = struct.field(pytree_node=False)
    written: Any

    def __call__(self, activation: jax.Array, read: jax.Array) -> jax.Array:
        return activation + self.written(read).astype(activation.dtype)


Edit = Replace | Add | Scale | Ablate | Dropout | AddFrom


class Sites:
    """The forward pass calls this at each site. It applies the site's edit, and keeps the value if it is captured."""

    def __init__(self, edits: Mapping[str, Edit], capture: Collection[str] | None):
        self._edits = edits
        self._capture = capture  # None: all sites
        self._reads = {edit.reads for edit in edits.values() if isinstance(edit, AddFrom)}
        self._read: dict[str, jax.Array] = {}
        self.captured: dict[str, jax.Array] = {}

    def used(self, *names: str) -> bool:
        """Whether any of these sites is captured or edited."""
        return self._capture is None or any(
            name in self._edits or name in self._capture or name in self._reads for name in names
        )

    def __call__(self, name: str, activation: jax.Array) -> jax.Array:
        edit = self._edits.get(name)
        if isinstance(edit, AddFrom):
            activation = edit(activation, activation if edit.reads == name else self._of(name, edit.reads))
        elif edit is not None:
            activation = edit(activation)
        if name in self._reads:
            self._read[name] = activation
        if self._capture is None or name in self._capture:
            self.captured[name] = activation
        return activation

    def _of(self, name: str, reads: str) -> jax.Array:
        if reads not in self._read:
            raise InputError(
                f"the edit of {name!r} reads {reads!r}, which does not run before it in its layer; read one that does"
            )
        return self._read[reads]


def check_name(name: str, known: Collection[str]) -> None:
    """Raises InputError, with the nearest known name, if `name` is not known."""
    if name not in known:
        raise InputError(
            f"this model has no site {str(name)!r}; the nearest is {nearest(name, known)!r}, "
            "and site_shapes(config) lists them all"
        )
