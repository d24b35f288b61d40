"""What becomes of the neurons with a model's size and over its training, across the analyses of many models."""
