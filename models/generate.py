"""Generation of new tokens after prompts, in one compiled program, with a cache of keys and values.

Letters: b batch, t prompt position, n new tokens, v vocabulary.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, check_tokens, empty_cache, forward, site_shapes
from jaxconf.models.errors import InputError
from jaxconf.models.sites import AddFrom, Edit, check_name


def generate(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[Sequence[int]] | np.ndarray,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    end_ids: Sequence[int] = (),
    edits: Mapping[str, Edit] | None = None,
) -> list[np.ndarray]:
    """The tokens that follow each prompt, int32 [up to max_new_tokens]; a row ends with its first token of `end_ids`.

    Prompts are token ids and may differ in length; shorter ones are padded on the left, which does not change their
    results. `temperature`: 0 takes the most likely token; a larger one draws from softmax(logits/temperature) with
    `seed`. `edits` are made in every pass, so each must be the same at all positions. Raises InputError for prompts
    that are empty or do not fit the model, for edits that differ between positions, and for a `max_new_tokens` or a
    `temperature` out of range.
    """
    if max_new_tokens < 1 or temperature < 0:
        raise InputError(
            f"max_new_tokens is {max_new_tokens} and temperature is {temperature}; "
            "give max_new_tokens of at least 1 and a temperature of at least 0"
        )
    tokens, padding = padded(config, prompts, max_new_tokens)
    _check_edits(config, edits or {})
    new, used = _generate(
        config,
        params,
        jnp.asarray(tokens),
        jnp.asarray(padding),
        jnp.asarray(sorted(end_ids), jnp.int32),
        jnp.float32(temperature),
        jax.random.key(seed),
        dict(edits or {}),
        max_new_tokens,
    )
    return [row[:count] for row, count in zip(np.asarray(new), np.asarray(used), strict=True)]


def padded(
    config: DecoderConfig, prompts: Sequence[Sequence[int] | np.ndarray] | np.ndarray, max_new_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array, int32 [b t], and how many tokens on the left of each are padding, int32 [b].

    Raises InputError for prompts that are empty, or do not fit the model together with so many new tokens.
    """
    rows = [np.asarray(row, np.int64) for row in prompts]
    if not rows or any(row.ndim != 1 or not row.size for row in rows):
        raise InputError("a prompt is empty or not a row of token ids; give at least one token id for each prompt")
    lengths = np.array([row.size for row in rows])
    check_tokens(config, np.concatenate(rows))
    t = int(lengths.max())
    end = t + max_new_tokens
    if end > config.n_positions:
        raise InputError(
            f"prompt and new tokens are {end} tokens together, but the model has {config.n_positions} positions; "
            "ask for fewer"
        )
    if config.rotary and config.rotary.long and lengths.min() <= config.rotary.original < end:
        raise InputError(
            f"the text would cross position {config.rotary.original}, where this model changes its rotary frequencies; "
            "keep each prompt with its new tokens on one side of it"
        )
    return np.stack([np.pad(row, (t - row.size, 0)) for row in rows]).astype(np.int32), (t - lengths).astype(np.int32)


def _check_edits(config: DecoderConfig, edits: Mapping[str, Edit]) -> None:
    for name, edit in edits.items():
        check_name(name, site_shapes(config))
        if isinstance(edit, AddFrom):
            continue  # what it adds depends on the text, and not on the position
        shape = site_shapes(config)[name]
        positions = {-1, -2} if name.endswith(("hook_attn_scores", "hook_pattern")) else {1 - len(shape)}
        for array in jax.tree.leaves(edit):
            if any(jnp.ndim(array) >= -axis and jnp.shape(array)[axis] != 1 for axis in positions):
                raise InputError(
                    f"the edit of {str(name)!r} differs between positions; give one that is the same at all of them"
                )


@functools.partial(jax.jit, static_argnames=("config", "n_new"))
def _generate(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    padding: jax.Array,
    end_ids: jax.Array,
    temperature: jax.Array,
    key: jax.Array,
    edits: dict[str, Edit],
    n_new: int,
) -> tuple[jax.Array, jax.Array]:
    """New tokens [b n], and how many of each row's count, [b]: those up to the first of `end_ids`.

    `tokens`: the prompts, [b t]. `padding` [b]: how many tokens at the start of each are padding.
    """

    def pick(logits: jax.Array, step: Any) -> jax.Array:
        drawn = jax.random.categorical(
            jax.random.fold_in(key, step), logits / jnp.where(temperature > 0, temperature, 1.0)
        )
        return jnp.where(temperature > 0, drawn, jnp.argmax(logits, -1)).astype(jnp.int32)

    cache = empty_cache(config, params, padding, tokens.shape[1] + n_new)
    out = forward(config, params, tokens, edits, cache=cache, last_only=True)
    assert out.logits is not None
    first = pick(out.logits[:, -1], 0)
    new = jnp.zeros((len(tokens), n_new), jnp.int32).at[:, 0].set(first)
    used = jnp.where(jnp.isin(first, end_ids), 1, n_new)

    def unfinished(state: tuple) -> jax.Array:
        step, _, _, _, used = state
        return (step < n_new) & (used == n_new).any()

    def advance(state: tuple) -> tuple:
        step, cache, token, new, used = state
        out = forward(config, params, token[:, None], edits, cache=cache)
        assert out.logits is not None
        token = pick(out.logits[:, -1], step)
        new = new.at[:, step].set(token)
        used = jnp.where((used == n_new) & jnp.isin(token, end_ids), step + 1, used)
        return step + 1, out.cache, token, new, used

    *_, new, used = jax.lax.while_loop(unfinished, advance, (jnp.int32(1), out.cache, first, new, used))
    return new, used
