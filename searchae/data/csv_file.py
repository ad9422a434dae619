"""``csv``: one image in each row, a common format of MNIST."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import disk_errors, find_data_file
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError

_BLOCK_BYTES = 4 << 20
_ZERO, _COMMA, _NEWLINE = b"0,\n"


def load_csv(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads rows of H * H grey values from 0 to 255, each with or without a label before them.

    Images are square. A header row is skipped, files named ``*.gz`` are decompressed, and labels
    are ignored.

    Args:
        spec: ``path`` and ``test_path`` are the files.
        data_dir: The data folder.
        progress: Called before each file is read.

    Returns:
        uint8 (N, 1, H, H).

    Raises:
        DataError: A file is missing, damaged or has an invalid value; the message has its line.
    """
    train = find_data_file(spec.path or "", data_dir=data_dir, key="data.path")
    if spec.test_path is None:
        return RawImages(read(train, progress=progress))
    test = find_data_file(spec.test_path, data_dir=data_dir, key="data.test_path")
    return RawImages(read(train, progress=progress), read(test, progress=progress))


def read(path: Path, *, progress: ProgressCallback) -> Images:
    """Reads one file; see ``load_csv``."""
    progress(f"csv: reading {path}")
    table = None
    parts = []
    with disk_errors("cannot read", path), _opened(path) as file:
        for line, block in _blocks(file, path):
            if table is None:
                table, block, line = _begin(path, block, line)  # noqa: PLW2901  # header removed
            parts.append(table.pixels(block, line))
    images = np.concatenate(parts) if parts else np.empty((0, 1), np.uint8)
    if table is None or len(images) == 0:
        raise DataError(f"{path}: there is no row of pixels in it")
    return images.reshape(len(images), 1, table.side_px, table.side_px)


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _blocks(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields blocks of whole lines, each with the number of its first line, from 1."""
    line, rest = 1, b""
    while True:
        try:
            fresh = file.read(_BLOCK_BYTES)
        except (gzip.BadGzipFile, zlib.error, EOFError) as e:
            size = path.stat().st_size
            raise DataError(
                f"{path}: after line {line}: the compressed file ({size:,} bytes) is damaged "
                f"or not gzip: {e}"
            ) from e
        text, newline, rest = (rest + fresh).rpartition(b"\n")
        if not fresh:
            text, newline, rest = text + newline + rest, b"\n", b""
        if text.strip():
            yield line, text.replace(b"\r", b"") + b"\n"
        line += text.count(b"\n") + len(newline)
        if not fresh:
            return


def _begin(path: Path, block: bytes, line: int) -> tuple[_Table, bytes, int]:
    """Finds a file's layout from its first line.

    Returns:
        The layout; the block without leading blank lines and header; its first line's number.
    """
    text = block.removeprefix(b"\xef\xbb\xbf")
    body = text.lstrip()
    line += text.count(b"\n", 0, len(text) - len(body))
    first, _, rest = body.partition(b"\n")
    table = _Table(path, columns=first.count(b",") + 1, line=line)
    return (table, rest, line + 1) if _is_header(first) else (table, body, line)


def _is_header(line: bytes) -> bool:
    """Whether a line is a header: several cells are not numbers, or they count up beyond 255."""
    values = [_number(cell) for cell in line.split(b",")]
    tail = values[1:]
    counted = len(tail) > 256 and tail in (list(range(len(tail))), list(range(1, len(tail) + 1)))
    return counted or sum(v is None for v in values) > 1


@dataclass(frozen=True)
class _Table:
    """A file's layout; ``line`` is the number of its first row."""

    path: Path
    columns: int
    line: int

    def __post_init__(self) -> None:
        if self.side_px < 2:
            raise DataError(
                f"{self.path}: line {self.line}: {self.columns} columns are neither a square "
                "image's pixels nor a label and a square image's pixels (as 784 and 785 are)"
            )

    @property
    def labelled(self) -> bool:
        return math.isqrt(self.columns) ** 2 != self.columns

    @property
    def side_px(self) -> int:
        """Side of the images in pixels; 0 if the columns do not make a square."""
        pixels = self.columns - self.labelled
        side = math.isqrt(pixels)
        return side if side * side == pixels else 0

    def pixels(self, block: bytes, line: int) -> npt.NDArray[np.uint8]:
        """Parses whole lines to uint8 (rows, pixels); ``line`` is the number of the first."""
        table = _parsed(block, self.columns)
        if table is None:
            rows = enumerate(block.split(b"\n"), start=line)
            slow = [self._row(row, number) for number, row in rows if row.strip()]
            return np.array(slow, np.uint8).reshape(len(slow), self.columns - self.labelled)
        return table[:, 1:] if self.labelled else table

    def _row(self, text: bytes, line: int) -> list[int]:
        """Parses one row that ``_parsed`` does not support; raises an error if it is invalid."""
        cells = text.split(b",")
        if len(cells) != self.columns:
            raise DataError(
                f"{self.path}: line {line}: has {len(cells)} values; "
                f"line {self.line} has {self.columns}"
            )
        row = []
        for column, cell in enumerate(cells[self.labelled :], start=1 + self.labelled):
            value = _number(cell)
            if value is None or value != int(value) or not 0 <= value <= 255:
                found = cell.decode("utf-8", "replace").strip()[:40]
                raise DataError(
                    f"{self.path}: line {line}, column {column}: {found!r} is not a whole "
                    "number from 0 to 255"
                )
            row.append(int(value))
        return row


def _number(cell: bytes) -> float | None:
    try:
        value = float(cell.strip().strip(b"\"'"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parsed(block: bytes, columns: int) -> npt.NDArray[np.uint8] | None:
    """Parses lines of digits and commas only, all at once, which is fast.

    Returns:
        uint8 (rows, columns); None if the block contains anything else or an invalid value.
    """
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((text == _COMMA) | (text == _NEWLINE))
    lengths = np.diff(ends, prepend=-1) - 1
    if not len(ends) or len(ends) % columns or lengths.min() < 1 or lengths.max() > 3:
        return None
    newlines = np.flatnonzero(text == _NEWLINE)
    if not np.array_equal(ends[columns - 1 :: columns], newlines):
        return None
    digits = text - np.uint8(_ZERO)
    if np.count_nonzero(digits <= 9) != len(text) - len(ends):
        return None
    values = digits[ends - 1].astype(np.int16)
    values += 10 * np.where(lengths > 1, digits[ends - 2], 0).astype(np.int16)
    values += 100 * np.where(lengths > 2, digits[ends - 3], 0).astype(np.int16)
    if values.max() > 255:
        return None
    return values.astype(np.uint8).reshape(-1, columns)
