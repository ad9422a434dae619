"""The command line."""

from searchae.cli.app import run

__all__ = [
    "run",
]
