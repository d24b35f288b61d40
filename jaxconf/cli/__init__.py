"""The command line: a file for each command, which parses the options, calls the Python function of the same name and
prints.

Heavy imports wait until a command runs, so that `jaxconf --help` answers at once.
"""

from jaxconf.cli.main import main as main
