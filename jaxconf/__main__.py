"""`python -m jaxconf` is the `jaxconf` command."""

from jaxconf.cli import main

main()
