"""The commands' help: its examples stand a line each and can be typed as they are."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from searchae.cli.app import app

_command = typer.main.get_command(app)
assert isinstance(_command, TyperGroup)
group: TyperGroup = _command


@pytest.mark.parametrize("name", group.commands)
def test_the_examples_are_commands_that_parse(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"]).stdout
    lines = [line.strip() for line in shown.partition("\n  Examples:\n")[2].splitlines()]
    assert lines, shown
    for line in lines:
        words = shlex.split(line.partition(">")[0])  # what follows is the shell's
        start = words.index("searchae")
        assert words[start + 1] == name
        # Raises what a user would be told: an option that there is not, a missing argument.
        group.commands[name].make_context(name, words[start + 2 :])
