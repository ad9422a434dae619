"""The command line, ``searchae COMMAND``."""

from searchae.cli.app import run

__all__ = [
    "run",
]
