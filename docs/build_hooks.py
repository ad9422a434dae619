"""What ``mkdocs build`` does besides: the commands' page from the commands, pages from elsewhere.

Pages link to files of the repository as they lie there, so that links work where Markdown is
shown as it is. Here those to pages outside of ``docs/`` are turned to their place on the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that a test can read this where mkdocs is not installed
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = ("benchmarks/*.md", "studies/*.toml", "CHANGELOG.md")
"""What lies outside of ``docs/`` and is on the site under the same path."""

COMMANDS = "<!-- commands -->"
_LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=[)#])")
_BRACKETS = re.compile(r"\s*\[([^\[\]]*)\]$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files from outside of ``docs/``."""
    from mkdocs.structure.files import File

    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to their place on the site, and describes the commands where a page asks."""
    if COMMANDS in markdown:
        return markdown.replace(COMMANDS, "\n".join(describe_commands()))
    source = page.file.src_uri
    at = source if _is_outside(source) else f"docs/{source}"

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(at), match[1]))
        uri = target.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return match[1]  # mkdocs says what is wrong with it
        return posixpath.relpath(uri, posixpath.dirname(source) or ".")

    return _LINK.sub(turned, markdown)


def _is_outside(uri: str) -> bool:
    return any(fnmatch(uri, pattern) for pattern in OUTSIDE)


def describe_commands() -> Iterator[str]:
    """The commands in the order of ``searchae --help``, as Markdown."""
    sys.path.insert(0, str(ROOT))
    import typer

    from searchae.cli.app import app

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        yield f"## searchae {name}\n"
        yield f"{command.help}\n"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = " ".join(
            ["searchae", name, *(p.metavar or p.human_readable_name for p in arguments)]
        )
        yield f"```text\n{words} [OPTIONS]\n```\n"
        yield from _table("argument", arguments, context)
        yield from _table("option", [p for p in command.params if p not in arguments], context)
        yield _examples(command.epilog)


def _table(title: str, parameters: list[Any], context: Any) -> Iterator[str]:
    if not parameters:
        return
    yield f"| {title} | what | default |\n|---|---|---|"
    for parameter in parameters:
        names, text = parameter.get_help_record(context)
        bracket = _BRACKETS.search(text)
        facts = bracket[1].split("; ") if bracket else []
        text = text[: bracket.start()] if bracket else text
        variable = next((f[9:] for f in facts if f.startswith("env var: ")), "")
        default = next((f[9:] for f in facts if f.startswith("default: ")), "")
        default = default or ("required" if "required" in facts else "")
        text = text.replace("|", "\\|") + (f" (`{variable}`)" if variable else "")
        yield f"| `{names}` | {text} | {default.strip('()')} |"
    yield ""


def _examples(epilog: str) -> str:
    lines = [line.strip() for line in epilog.partition("Examples:")[2].splitlines()]
    return "\n".join(["```sh", *filter(None, lines), "```", ""])
