"""What the tests of training share."""

from tiny_training import trained  # noqa: F401  (a fixture)
