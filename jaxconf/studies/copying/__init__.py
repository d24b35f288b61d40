"""Whether a model repeats its context or its memory if they disagree."""
