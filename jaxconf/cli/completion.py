"""`jaxconf completion`."""

import contextlib
import dataclasses
import io
from typing import Annotated, Any, Literal, Union

import tyro

from jaxconf.cli.common import Command, answer, terminal
from jaxconf.cli.main import COMMANDS


@dataclasses.dataclass(frozen=True)
class Completion(Command):
    """Print the script with which a shell completes the commands and options of jaxconf.

    bash: jaxconf completion bash > ~/.local/share/bash-completion/completions/jaxconf

    zsh: jaxconf completion zsh > ~/.zfunc/_jaxconf, where ~/.zshrc has fpath+=~/.zfunc before compinit

    fish: jaxconf completion fish > ~/.config/fish/completions/jaxconf.fish
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """the shell that completes"""

    def run(self) -> None:
        script = completion(self.shell)
        answer(terminal(), lambda: {"shell": self.shell, "script": script}, lambda: print(script, end=""))


def completion(shell: str) -> str:
    """The script for a shell. It is tyro's, for all commands as subcommands of one."""
    commands: Any = Union[  # noqa: UP007
        tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items() if "-" not in name)
    ]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        tyro.cli(commands, prog="jaxconf", args=["--tyro-write-completion", shell, "-"])
    return said.getvalue()
