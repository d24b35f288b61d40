# %% [markdown]
# # A neuron's life
#
# A small model is trained from scratch, on text in which the right confidence changes from place to place, and
# measured meanwhile. The recipe is that of `jaxconf train`, with a third of the steps.

# %%
import dataclasses
import tempfile
from pathlib import Path

import jaxconf

config = dataclasses.replace(jaxconf.PRESETS["noise"], steps=400)
track = jaxconf.TrackConfig(points=12, effects_every=0, tokens=512)
folder = Path(tempfile.mkdtemp()) / "first"
result = jaxconf.train(config, "noise", folder, track=track)
print({name: round(result[name], 3) for name in ("loss", "held_out_loss")})

# %% [markdown]
# The track has a row for each measured step, and one for each step and neuron.

# %%
life = jaxconf.Emergence.load(folder)
life.steps[["step", "loss", "entropy", "accuracy", "rho_chance"]].tail(4).round(3)

# %% [markdown]
# The neuron that ends deepest in the null space, from its birth on:

# %%
layer, last = life.facts["layer"], life.neurons[life.neurons["step"] == config.steps]
neuron = int(last.loc[last["rho"].idxmax(), "neuron"])
rho = life.neurons[life.neurons["neuron"] == neuron].set_index("step")["rho"]
print(f"{layer}.{neuron}")
rho.round(3).to_frame().T

# %% [markdown]
# It is not alone. For some hundred steps no neuron is above chance, while the model learns which words follow; then
# several turn into the null space together.

# %%
life.plot.rho()

# %% [markdown]
# What they turn to is made at the same time: the singular values of the unembedding grow, but the smallest falls back.

# %%
life.plot.spectrum()

# %% [markdown]
# And what it is good for: the entropies at the levels of noise part, towards the best ones (dashed).

# %%
life.plot.levels()

# %% [markdown]
# With `effects_every=4`, which is the default, every neuron is also ablated at some of the steps, the rules name
# neurons, and `life.plot.events()` shows what came first. On the command line, `jaxconf train --out runs/first &&
# jaxconf track runs/first` does it all, and draws a page in which the neurons move. [Where confidence neurons come
# from](../emergence.md) is what was found in this way.
