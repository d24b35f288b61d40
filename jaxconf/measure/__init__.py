"""The main job: a model streamed over text, and what ablating its neurons does."""
