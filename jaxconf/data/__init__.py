"""Text and what is made of it: corpora, windows of token ids, token counts, statements."""
