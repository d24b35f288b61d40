"""The measurements: a model is run over text, and the effects of ablating its neurons are computed."""
