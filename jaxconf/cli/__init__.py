"""The command line. Each command has a file, which parses the options, calls the library and prints the result.

Heavy imports wait until a command runs, so that `jaxconf --help` answers at once.
"""

from jaxconf.cli.main import main as main
