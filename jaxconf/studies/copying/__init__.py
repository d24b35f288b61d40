"""Whether a model repeats its context or its memory where they disagree."""
