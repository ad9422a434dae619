"""The commands' help: its examples stand a line each and can be typed as they are."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from searchae.cli.app import app, run

_command = typer.main.get_command(app)
assert isinstance(_command, TyperGroup)
group: TyperGroup = _command


def test_no_summary_is_cut_in_a_terminal_of_80_columns() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    assert all(name in shown for name in group.commands)
    assert "..." not in shown.partition("Commands:")[2]


def test_a_shell_completes_commands_and_options() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
    asked = {"_SEARCHAE_COMPLETE": "complete_bash", "COMP_WORDS": "searchae st", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], env=asked, prog_name="searchae")
    assert set(done.stdout.split()) == {name for name in group.commands if name.startswith("st")}


@pytest.mark.parametrize("name", group.commands)
def test_help_has_a_short_form(name: str) -> None:
    shown = [CliRunner().invoke(app, [name, option]) for option in ("-h", "--help")]
    assert shown[0].exit_code == 0
    assert shown[0].stdout == shown[1].stdout


@pytest.mark.parametrize("name", group.commands)
def test_values_are_named_by_what_they_are_not_by_their_type(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"]).stdout.partition("\nOptions:\n")[2]
    assert "--help" in shown
    assert not re.findall(r"^  -.* <[a-z ]+>", shown, re.MULTILINE)


def test_a_study_without_its_option_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "mine", "--trials", "3"]) == 2
    assert "searchae tune -s mine --trials 3" in capsys.readouterr().err
    assert run(["data", "nowhere", "-x"]) == 2
    assert " -s nowhere" not in capsys.readouterr().err, "its data set is an argument"


@pytest.mark.parametrize("words", [["tune"], ["best", "--json"], ["compare", "--until", "1"]])
def test_a_study_that_is_not_named_is_asked_for_with_an_example(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    said = capsys.readouterr().err
    assert f"{words[0]}: name a study with -s, as in `searchae {words[0]} -s quickstart`" in said


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
