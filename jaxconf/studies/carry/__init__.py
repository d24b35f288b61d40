"""Which neuron sets influence a model's confidence, which carry it, and how well it can be decoded at all."""
