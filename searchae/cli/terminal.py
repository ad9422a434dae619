"""What reaches the terminal: text from files and databases cannot act on it, and all of it prints.

A study's name, a choice, a host's name or an error's text may hold escape sequences, which would
recolour or retitle a terminal, or Rich's markup. Everything that a command prints goes through
``SafeStream`` or ``SafeConsole``, so that no place can forget it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from searchae.formatting import one_line, printable

_STREAMS = {"<stdout>": "standard output", "<stderr>": "standard error"}


@contextmanager
def _naming(stream: Any) -> Iterator[None]:
    """Within the block, an ``OSError`` of a stream gets its name as ``filename``."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or _STREAMS.get(getattr(stream, "name", ""))
        raise


class SafeStream:
    """A text stream that shows control characters as escapes; else as the stream itself.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes a text.

        Raises:
            OSError: The stream takes no more; its ``filename`` says which stream.
        """
        with _naming(self.stream):
            return self.stream.write(_shown(text, self.stream.encoding))

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered; see ``write``."""
        with _naming(self.stream):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class SafeConsole(Console):
    """Rich's console without markup, whose only control characters are Rich's own.

    A string is printed as one line.

    Args:
        stderr: Whether it writes to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(
            file=stream.stream if isinstance(stream, SafeStream) else None,
            stderr=stderr,
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints objects; see Rich."""
        with _naming(self.file):
            super().print(*(one_line(o) if isinstance(o, str) else o for o in objects), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Renders something; see Rich."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(_shown(segment.text, self.encoding), segment.style)


class LineFormatter(logging.Formatter):
    """Formats a log record so that its message is one line; a traceback may follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Returns the line; see logging."""
        record.message = one_line(record.message)
        return super().formatMessage(record)


def print_line(text: str, *, file: TextIO | None = None) -> None:
    """Prints a text, which may hold names from files and databases, as one line.

    Args:
        text: The text.
        file: The stream; standard output if unset.
    """
    print(one_line(text), file=file, flush=True)


@contextmanager
def safe_streams() -> Iterator[None]:
    r"""Within the block, nothing that is printed acts on the terminal or cannot be encoded.

    What the encoding of a stream lacks is shown as an escape, such as ``\u753b``.
    """
    before = sys.stdout, sys.stderr
    # A process may have been started without one of them.
    sys.stdout, sys.stderr = (
        cast("TextIO", SafeStream(stream)) if stream else stream for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _shown(text: str, encoding: str | None) -> str:
    """Returns a text with escapes for what acts on a terminal, or is not in an encoding."""
    text, encoding = printable(text), encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
