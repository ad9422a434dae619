"""The documentation as data: its pages, links, headings and commands.

``python -m tests.documents`` lists the links to other places, a line each; no test opens them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]+`")
_OPERATORS = frozenset({"&&", "||", ";", "|", "(", ")", ">", ">>", "&"})


def pages() -> list[Path]:
    """Every page that a user or developer reads, README.md first."""
    found = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "tests/README.md", "studies/README.md"]
    return [
        *(ROOT / name for name in found),
        *sorted((ROOT / "benchmarks").glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def user_pages() -> list[Path]:
    """The pages whose commands a user types."""
    return [
        ROOT / "README.md",
        ROOT / "studies" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def name(page: Path) -> str:
    """Its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks in one language, without their indentation."""
    return [
        "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        for indent, found, text in _FENCE.findall(page.read_text())
        if found == language
    ]


def prose(page: Path) -> str:
    """The text without fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of links and pictures, as written."""
    return _LINK.findall(_CODE.sub("code", prose(page)))


def anchors(page: Path) -> set[str]:
    """What ``#`` may name in it: its headings as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {w.strip().replace(" ", "-") for w in words}


@dataclass(frozen=True)
class Command:
    """One program with its arguments, as a line of a ``sh`` block has it."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As one would type it."""
        return shlex.join(self.words)


def commands(page: Path) -> Iterator[Command]:
    """The programs that a page's ``sh`` blocks run, in their order."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for words in _programs(line):
                yield Command(name(page), words)


def _programs(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    is_file = False
    for word in [*lexer, ";"]:
        if word in _OPERATORS:
            if words:
                yield tuple(words)
            words, is_file = [], word in {">", ">>"}
        elif is_file:
            is_file = False
        else:
            words.append(word)


def inline_commands(page: Path) -> Iterator[Command]:
    """The commands of searchae that stand between backticks in the text."""
    for code in _CODE.findall(prose(page)):
        if code.startswith("`searchae "):
            for words in _programs(code.strip("`")):
                yield Command(name(page), words)


if __name__ == "__main__":
    for each in pages():
        for target in dict.fromkeys(links(each)):
            if "://" in target:
                print(f"{name(each)}: {target}")
