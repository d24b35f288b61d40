"""The page to play with: the bundled model runs in the browser."""
