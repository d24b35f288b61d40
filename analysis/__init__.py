"""Pure functions of arrays: what a model's weights say about its neurons, and what ablating them does."""
