"""What an analysis leaves: the neuron table, the rules that name neurons, and the run folder."""
