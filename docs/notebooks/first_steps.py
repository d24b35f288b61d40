# %% [markdown]
# # First steps
#
# jaxconf comes with a small language model, so nothing is downloaded here. It was trained on a synthetic text in which
# the right confidence is known at every position ([worlds](../worlds.md)), and it has entropy neurons and
# token-frequency neurons.

# %%
import jaxconf

lm = jaxconf.load(jaxconf.BUNDLED)  # or a hub id, such as "openai-community/gpt2", or a folder
lm.config.n_layers, lm.config.d_model, lm.config.vocab_size

# %% [markdown]
# The text becomes windows of token ids. `own` is the text that the model was trained on.

# %%
text = jaxconf.documents(jaxconf.source_for("own", lm.folder))
windows = jaxconf.windows(text, lm.tokenizer, n_tokens=4096, length=64)
print(windows.tokens.shape, repr(lm.tokenizer.decode(windows.tokens[0, :20])))

# %% [markdown]
# `analyze` ablates every neuron of the last layer at every position, in all three ways: the total effect, with the
# final norm's scale frozen, and with the logits' coordinate along the token-frequency direction frozen. The table
# shows what was found, and the neurons that meet each rule.

# %%
table = jaxconf.analyze(lm, windows)
table

# %% [markdown]
# `ln_mediated` is the share of a neuron's effect on the loss that vanishes when the norm's scale is frozen. `rho` is
# the share of its output weights in the unembedding's effective null space. An entropy neuron has much of both
# ([measures](../measures.md) defines every column).

# %%
table.plot.mediation()

# %% [markdown]
# Ablating one changes the entropy, and hardly ever which token is most likely:

# %%
table.plot.entropy_and_prediction()

# %% [markdown]
# It writes along the directions that the unembedding maps to almost nothing:

# %%
table.plot.null_space()

# %% [markdown]
# All numbers are in a pandas data frame. `interactive=True` gives the figures of the report, in which a point tells
# its numbers.

# %%
frame = table.to_pandas()
frame.nlargest(5, "entropy_abs_delta")[
    ["rho", "ln_mediated", "entropy_delta", "entropy_abs_delta", "top1_change"]
].round(3)

# %% [markdown]
# `table.save(folder)` writes the table, and `jaxconf.NeuronTable.load(folder)` reads it and every run folder of
# `jaxconf analyze`. The command also writes the figures and a report: `jaxconf analyze bundled --out runs/first`.
