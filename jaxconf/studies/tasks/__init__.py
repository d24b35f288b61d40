"""How well a model answers questions and knows whether it does, with and without its confidence neurons."""
