"""The output that people read: figures, pages, and text in the terminal."""
