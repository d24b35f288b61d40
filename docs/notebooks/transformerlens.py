# %% [markdown]
# # From TransformerLens to here and back
#
# jaxconf uses TransformerLens's names for what can be read and edited. Here the same small GPT-NeoX runs in both: its
# weights, hooks and caches are carried over in both directions. (This notebook needs PyTorch and TransformerLens: `pip
# install 'jaxconf[parity]'`.)

# %%
import shutil
import tempfile

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from transformer_lens import ActivationCache
from transformer_lens.model_bridge.sources.transformers import boot

import jaxconf

torch.set_grad_enabled(False)
transformers.utils.logging.disable_progress_bar()
lm = jaxconf.load(jaxconf.BUNDLED)
folder = tempfile.mkdtemp()  # without the tokenizer, which has no token for the letters that TransformerLens tries out
for name in ("config.json", "model.safetensors"):
    shutil.copy(lm.folder / name, folder)
hf = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
bridge = boot(folder, hf_model=hf.eval(), device="cpu")
tokens = np.random.default_rng(0).integers(0, 136, (2, 32))

# %% [markdown]
# ## Names
#
# The hooks of a TransformerLens model are the sites of `lm.apply`.

# %%
logits, cache = bridge.run_with_cache(torch.from_numpy(tokens))
names = ["blocks.0.mlp.hook_post", "blocks.0.attn.hook_pattern", "blocks.0.hook_resid_post", "ln_final.hook_scale"]
out = lm.apply(tokens, capture=names)
{name: float(abs(np.asarray(out.captured[name]) - cache[name].numpy()).max()) for name in names}

# %%
assert all(np.allclose(out.captured[name], cache[name].numpy(), atol=1e-4) for name in names)
assert np.allclose(out.logits, logits.numpy(), atol=1e-4)

# %% [markdown]
# ## Hooks
#
# A hook is a function that changes a tensor when the model runs. An edit is the value or the change itself, and so it
# passes through `jit` and `vmap`.

# %%
neuron = 33


def hook(value, hook):
    value[..., neuron] = 0.0
    return value


theirs = bridge.run_with_hooks(torch.from_numpy(tokens), fwd_hooks=[("blocks.0.mlp.hook_post", hook)])
mask = jnp.arange(lm.config.d_mlp) == neuron
ours = lm.apply(tokens, edits={"blocks.0.mlp.hook_post": jaxconf.Ablate(mask, 0.0)}).logits
assert np.allclose(ours, theirs.numpy(), atol=1e-4)

# %% [markdown]
# | TransformerLens | jaxconf |
# |---|---|
# | `value[..., 33] = 0` | `jaxconf.Ablate(mask, 0.0)` |
# | `return other` | `jaxconf.Replace(other)` |
# | `return value + push` | `jaxconf.Add(push)` |
# | `return 2 * value` | `jaxconf.Scale(2.0)` |
# | hook on `ln_final.hook_scale` that returns the cached scale | `jaxconf.Replace(captured["ln_final.hook_scale"])` |
#
# ## Caches, there and back
#
# What is captured here is an `ActivationCache` there, whose methods then work:

# %%
names = ["blocks.0.hook_resid_pre", "blocks.0.hook_attn_out", "blocks.0.hook_mlp_out", "blocks.0.hook_resid_post"]
captured = lm.apply(tokens, capture=[*names, "hook_embed"]).captured
back = ActivationCache({name: torch.from_numpy(np.array(value)) for name, value in captured.items()}, bridge)
stream, labels = back.decompose_resid(return_labels=True, mode="all")
assert np.allclose(stream.sum(0).numpy(), captured["blocks.0.hook_resid_post"], atol=1e-4)
labels

# %% [markdown]
# And what TransformerLens caches is edited in here: the same prediction, from its stream.

# %%
edits = {"blocks.0.hook_resid_post": jaxconf.Replace(jnp.asarray(cache["blocks.0.hook_resid_post"].numpy()))}
assert np.allclose(lm.apply(tokens, edits=edits).logits, logits.numpy(), atol=1e-4)

# %% [markdown]
# Weights are raw on both sides by default. TransformerLens folds with `enable_compatibility_mode`; here folding is
# part of the weight statistics (`jaxconf.weight_statistics`, convention `paper`), and the model that runs is never
# changed.
