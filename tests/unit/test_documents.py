"""The documentation holds together: its links lead somewhere, and its commands can be parsed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from searchae.cli.app import app
from tests import documents

_command = typer.main.get_command(app)
assert isinstance(_command, TyperGroup)
GROUP: TyperGroup = _command

PAGES = documents.pages()
USER_PAGES = documents.user_pages()
VARIABLES = re.compile(r"\bSEARCHAE_[A-Z]+(?:_[A-Z]+)*\b")
INTERNAL = {
    *("SEARCHAE_PARENT", "SEARCHAE_SHARES", "SEARCHAE_HELD"),
    *("SEARCHAE_WANTED", "SEARCHAE_MANAGED_IDLE_S"),
}
"""Variables that searchae sets for its own processes."""


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_its_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in documents.links(page):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_relative_to(documents.ROOT), f"{link}: outside of the repository"
        assert file.exists(), link
        if anchor:
            assert anchor in documents.anchors(file), link


@pytest.mark.parametrize("page", USER_PAGES, ids=documents.name)
def test_its_commands_have_the_options_that_they_use(page: Path) -> None:
    for command in documents.commands(page):
        program, *words = command.words
        if program.rpartition("/")[2] == "searchae":
            parse(words)
    for command in documents.inline_commands(page):
        parse(["1" if word == "N" else word for word in command.words[1:]], may_lack=True)


def parse(words: list[str], *, may_lack: bool = False) -> None:
    """Parses a command as the command line does; raises what a user would be told.

    Args:
        words: What follows ``searchae``.
        may_lack: Whether required options may be missing, as where a text only names a command.
    """
    if not words or words[0] == "COMMAND" or words[0].startswith("--"):
        return
    try:
        GROUP.commands[words[0]].make_context(words[0], words[1:])
    except Exception as e:
        if not may_lack or type(e).__name__ != "MissingParameter":
            raise


def test_the_parser_notices_an_option_that_there_is_not() -> None:
    with pytest.raises(Exception, match="--trails"):
        parse(["tune", "-s", "mine", "--trails", "3"], may_lack=True)


def test_every_environment_variable_is_described() -> None:
    code = "".join(p.read_text() for p in (documents.ROOT / "searchae").rglob("*.py"))
    page = (documents.ROOT / "docs" / "reference" / "environment.md").read_text()
    assert set(VARIABLES.findall(code)) - INTERNAL == set(VARIABLES.findall(page))


def test_the_readme_is_short_and_has_the_command_that_ci_runs() -> None:
    readme = documents.ROOT / "README.md"
    assert len(readme.read_text().split()) <= 900
    assert sum(1 for link in documents.links(readme) if link.endswith((".png", ".svg"))) == 2
    run = [b for b in documents.blocks(readme, "sh") if "python -m pytest" in b]
    assert len(run) == 1
    assert run[0].count("\n") == 1


def test_no_paragraph_stands_twice() -> None:
    seen: dict[str, str] = {}
    for page in USER_PAGES:
        for paragraph in re.split(r"\n\s*\n", documents.prose(page)):
            text = " ".join(paragraph.split())
            if len(text) > 120 and not text.startswith("!["):
                assert text not in seen, f"{documents.name(page)} and {seen[text]}: {text[:80]}"
                seen[text] = documents.name(page)


def test_the_page_of_the_commands_describes_every_one_of_their_options() -> None:
    path = documents.ROOT / "docs" / "build_hooks.py"
    spec = importlib.util.spec_from_file_location("build_hooks", path)
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.COMMANDS in (documents.ROOT / "docs/reference/commands.md").read_text()
    sections = "\n".join(hooks.describe_commands()).split("## searchae ")[1:]
    assert [section.split()[0] for section in sections] == list(GROUP.commands)
    for section, command in zip(sections, GROUP.commands.values(), strict=True):
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                shown = name if name.startswith("-") else (parameter.metavar or name)
                assert shown in section, shown
        assert "```sh\n" in section, "its examples"
