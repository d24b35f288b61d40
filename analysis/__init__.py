"""Pure functions of arrays: statistics of neurons, the effects of ablating them, and measures of predictions."""
