# %% [markdown]
# # Your own ablation, in ten lines
#
# Nothing about an ablation is built in: it is an edit of a site, and an edit is a pytree of arrays. Here a set of
# neurons is set to its mean activation, once with everything free and once with the final norm's scale held as it was.

# %%
import jax
import jax.numpy as jnp

import jaxconf

lm = jaxconf.load(jaxconf.BUNDLED)
text = jaxconf.documents(jaxconf.source_for("own", lm.folder))
tokens = jnp.asarray(jaxconf.windows(text, lm.tokenizer, n_tokens=2048, length=64).tokens)
entropy_neurons = [33, 8, 28]  # those of the bundled model, from `jaxconf analyze`


# %% [markdown]
# The ten lines:


# %%
def entropy(logits):
    """Nats, at every position."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


post, scale = "blocks.0.mlp.hook_post", "ln_final.hook_scale"
before = lm.apply(tokens, capture=[post, scale])
mask = jnp.zeros(before.captured[post].shape[-1], bool).at[jnp.array(entropy_neurons)].set(True)
ablated = {post: jaxconf.Ablate(mask, before.captured[post].mean((0, 1)))}
total = lm.apply(tokens, edits=ablated).logits
frozen = lm.apply(tokens, edits={**ablated, scale: jaxconf.Replace(before.captured[scale])}).logits

# %% [markdown]
# What it did, as the mean |change of entropy| in nats:

# %%
changes = {
    name: abs(entropy(logits) - entropy(before.logits)).mean()
    for name, logits in (("total", total), ("norm frozen", frozen))
}
{name: round(float(change), 3) for name, change in changes.items()}

# %% [markdown]
# Most of the effect is gone when the norm cannot respond, and the most likely token stays nearly everywhere:

# %%
assert changes["norm frozen"] < 0.5 * changes["total"]
round(float((total.argmax(-1) == before.logits.argmax(-1)).mean()), 3)

# %% [markdown]
# Since an edit is data, one program serves every neuron. `vmap` over masks ablates each neuron of the layer by itself:


# %%
@jax.jit
@jax.vmap
def entropy_without(mask):
    edits = {post: jaxconf.Ablate(mask, before.captured[post].mean((0, 1)))}
    return entropy(lm.apply(tokens[:8], edits=edits).logits).mean()


each = entropy_without(jnp.eye(len(mask), dtype=bool)) - entropy(before.logits[:8]).mean()
largest = jnp.argsort(-abs(each))[:5]
{f"0.{neuron}": round(float(each[neuron]), 3) for neuron in largest}

# %% [markdown]
# `jaxconf.analyze` computes the same for all neurons and positions at once, with nulls and intervals, and
# `ablation=jaxconf.Ablation(...)` chooses among the ablations of the papers. A part of the stream can be edited in the
# same way: `jaxconf.Add` pushes it, `jaxconf.Scale` scales it.
