"""Companion studies, a folder each: the study, its figures, its sentences and its page."""
