"""The text of a CSV file as blocks of lines: decompressed, in UTF-8, separated by commas."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from searchae.data.disk import disk_errors
from searchae.data.memory import require_plausible_expansion
from searchae.data.other_formats import other_format
from searchae.errors import DataError

_BLOCK_BYTES = 4 << 20
_LONGEST_LINE_BYTES = 32 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_SEPARATORS = {b";": "semicolons", b"\t": "tabs", b"|": "vertical bars"}
_SPACES = re.compile(rb"[ \t]+")
_NAMED_SEPARATOR = re.compile(rb"\s*\"?sep=([^\r\n])\"?[ \r]*\n", re.IGNORECASE)
"""The first line of a file that Excel wrote."""

_NUMBERS_APART = {
    mark: re.compile(rb"\d *" + re.escape(mark) + rb" *\d") for mark in (b"\t", b"|", b" ")
}
"""Numbers that a mark separates, in lines with commas: those are decimal commas then."""

_FEWEST_APART = 3


@dataclass(frozen=True)
class Separator:
    """How the values of a line are separated.

    Attributes:
        text: The separator in words.
        to_commas: Converts lines to lines with commas.
    """

    text: str
    to_commas: Callable[[bytes], bytes]


def read_blocks(path: Path) -> Iterator[tuple[int, bytes, Separator]]:
    """Reads a file as blocks of whole lines.

    Gzip, UTF-16 with its mark and old line ends are recognised by the content. The separator is
    that of the first line that is neither blank nor a comment (``#``), or the one that a line
    ``sep=;`` before it names, which is left out.

    Args:
        path: The file.

    Yields:
        The number of the block's first line, from 1; its lines, in UTF-8 or ASCII, separated by
        commas, each with a newline; and how they were separated.

    Raises:
        DataError: The file cannot be read, is damaged, no text, or has an endless line.
    """
    separator = None
    with _opened(path) as file:
        for line, block in _blocks(file, path):
            if separator is None:
                if named := _NAMED_SEPARATOR.match(block):
                    separator = _separated_by(named[1])
                    line += block.count(b"\n", 0, named.end())  # noqa: PLW2901  # that line removed
                    block = block[named.end() :]  # noqa: PLW2901
                else:
                    separator = _separator(_first_line(block))
            if separator.text != "commas" and b"," in block:
                start = _first_line(block)[:40].decode("utf-8", "replace")
                raise DataError(
                    f"{path}: line {line} or after it: values are separated by {separator.text}, "
                    "and there are commas too: write decimal points, and separate by commas; "
                    f"it begins with {start!r}"
                )
            yield line, separator.to_commas(block), separator


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, decompressed and in UTF-8."""
    with disk_errors("cannot read", path), path.open("rb") as plain:
        head = plain.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)]
        file: BinaryIO = plain
        if head == _GZIP_MAGIC or path.suffix == ".gz":
            file = cast("BinaryIO", gzip.GzipFile(fileobj=plain))
        with _damage(path, line=1):
            mark = file.read(len(codecs.BOM_UTF8))
            if mark != codecs.BOM_UTF8:
                file.seek(0)
        if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            file = cast("BinaryIO", codecs.EncodedFile(file, "utf-8", "utf-16"))
        yield file


@contextmanager
def _damage(path: Path, *, line: int) -> Iterator[None]:
    size = path.stat().st_size
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as e:
        raise DataError(
            f"{path}: after line {line}: the compressed file ({size:,} bytes) is damaged "
            f"or not gzip: {e}"
        ) from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: after line {line}: is not UTF-16 ({e}): save it as UTF-8") from e


def _blocks(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields blocks of whole lines, each with the number of its first line, from 1."""
    line, rest, total = 1, b"", 0
    old_mac = None
    while True:
        with _damage(path, line=line):
            fresh = file.read(_BLOCK_BYTES)
        total += len(fresh)
        require_plausible_expansion(total, path.stat().st_size, what=str(path))
        if old_mac is None:
            _check_text(fresh, path)
            old_mac = b"\r" in fresh[:-1] and b"\n" not in fresh
        if old_mac:
            fresh = fresh.replace(b"\r", b"\n")
        text, newline, rest = (rest + fresh).rpartition(b"\n")
        lines = text.count(b"\n") + len(newline)
        if len(rest) > _LONGEST_LINE_BYTES:
            raise DataError(
                f"{path}: line {line + lines}: has no end within {_LONGEST_LINE_BYTES >> 20} MiB: "
                "this is no CSV of images, one a line"
            )
        if not fresh:
            text, newline, rest = text + newline + rest, b"\n", b""
        if text.strip():
            yield line, text.replace(b"\r", b"") + b"\n"
        line += lines
        if not fresh:
            return


def _check_text(start: bytes, path: Path) -> None:
    if what := other_format(start):
        raise DataError(
            f"{path}: is {what}; a csv source reads text, with a line of numbers for each image, "
            "also compressed by gzip"
        )
    if b"\0" in start:
        raise DataError(
            f"{path}: holds NUL bytes: it is no text in UTF-8, but UTF-16 without its mark, "
            "UTF-32, or no CSV at all: save it as CSV in UTF-8"
        )


def _first_line(block: bytes) -> bytes:
    """Returns the first line that is neither blank nor a comment; else the first one."""
    lines = (line for line in block.split(b"\n") if line.strip() and not line.startswith(b"#"))
    return next(lines, block.strip().partition(b"\n")[0])


def _separator(line: bytes) -> Separator:
    """Finds the separator of a file by a line of it."""
    for mark in _SEPARATORS:
        if mark in line and (b"," not in line or mark == b";" or _separates(mark, line)):
            return _separated_by(mark)
    if b" " in line.strip() and (b"," not in line or _separates(b" ", line)):
        return Separator("spaces", _spaces_to_commas)
    return Separator("commas", bytes)


def _separates(mark: bytes, line: bytes) -> bool:
    """Whether a mark separates the numbers of a line that has commas too."""
    return len(_NUMBERS_APART[mark].findall(line)) >= _FEWEST_APART


def _separated_by(mark: bytes) -> Separator:
    if mark == b",":
        return Separator("commas", bytes)
    text = _SEPARATORS.get(mark) or repr(mark.decode("utf-8", "replace"))
    return Separator(text, partial(_to_commas, mark))


def _to_commas(mark: bytes, block: bytes) -> bytes:
    return block.replace(mark, b",")


def _spaces_to_commas(block: bytes) -> bytes:
    lines = (_SPACES.sub(b",", line.strip()) for line in block.split(b"\n"))
    return b"\n".join(lines)
