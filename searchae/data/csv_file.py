"""``csv``: one image in each row, a common format of MNIST."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.csv_layout import (
    Cell,
    LabelColumn,
    Layout,
    decide_label,
    find_layout,
    is_header,
    number,
    quoted_separator,
)
from searchae.data.csv_text import read_blocks
from searchae.data.disk import find_data_file
from searchae.data.levels import ROUNDING, doubt_of_range, likely_white, to_levels
from searchae.data.memory import require_memory
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError
from searchae.formatting import format_count

_WHITE = 255.0
_ZERO, _COMMA, _NEWLINE = b"0,\n"


@dataclass(frozen=True, eq=False)
class CsvReading:
    """What a file holds.

    Attributes:
        images: uint8 (N, 1, H, H).
        doubts: See ``RawImages``.
        label: Where the label is, if the values say so.
        notes: What was taken and left out, and what speaks against it; for the user.
    """

    images: Images
    doubts: tuple[str, ...]
    label: LabelColumn | None
    notes: tuple[str, ...]


def load_csv(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads rows of H * H grey values, each with or without a label before or after them.

    Values are whole numbers from 0 to 255, or any numbers from 0 to ``spec.white``. Images are
    square. A header row is skipped, labels are left out: the column that the header names or
    ``spec.label`` says, or the one of the two ends that looks like labels. Gzip, UTF-16, and
    semicolons, tabs or spaces as separators are recognised.

    Args:
        spec: ``path`` and ``test_path`` are the files.
        data_dir: The data folder.
        progress: Called before each file is read, and with what was taken, once it is known that
            nothing has to be refused.

    Returns:
        uint8 (N, 1, H, H).

    Raises:
        DataError: A file is missing, damaged or has an invalid value; the message has its line.
    """
    path = find_data_file(spec.path or "", data_dir=data_dir, key="data.path", takes_folder=False)
    paths = [path]
    if spec.test_path is not None:
        paths.append(
            find_data_file(
                spec.test_path, data_dir=data_dir, key="data.test_path", takes_folder=False
            )
        )
    found: list[CsvReading] = []
    for each in paths:
        usual = found[0].label if found else None
        found.append(read(each, progress=progress, white=spec.white, label=spec.label, usual=usual))
    doubts = tuple(doubt for reading in found for doubt in reading.doubts)
    raw = RawImages(found[0].images, found[1].images if len(found) > 1 else None, doubts=doubts)
    if not doubts:
        for note in (note for reading in found for note in reading.notes):
            progress(note)
    return raw


def read(
    path: Path,
    *,
    progress: ProgressCallback,
    white: float | None = None,
    label: LabelColumn | None = None,
    usual: LabelColumn | None = None,
) -> CsvReading:
    """Reads one file; see ``load_csv``.

    Args:
        path: The file.
        progress: Called before it is read.
        white: The value of white; None for 255 and whole numbers only.
        label: Where the label is; None to find out.
        usual: Where it is if the header does not say; None for what the values say.

    Raises:
        DataError: See ``load_csv``.
    """
    progress(f"csv: reading {path}")
    rows: _Rows | None = None
    form = ""
    for line, block, separator in read_blocks(path):
        if rows is None:
            layout, header, body, line = _begin(path, block, line, label=label, usual=usual)  # noqa: PLW2901  # header removed
            rows = _Rows(path, layout, line - header, white=white)
            form = f"{'with' if header else 'without'} a header, separated by {separator.text}"
            rows.add(body, line)
        else:
            rows.add(block, line)
    if rows is None or rows.count == 0:
        raise DataError(f"{path}: there is no row of pixels in it")
    return rows.reading(form)


def _begin(
    path: Path, block: bytes, line: int, *, label: LabelColumn | None, usual: LabelColumn | None
) -> tuple[Layout, bool, bytes, int]:
    """Finds a file's layout from its first line.

    Returns:
        The layout; whether there is a header; the block without it and without leading blank lines,
        and its first line's number.
    """
    body, line = _without_blank_lines(block, line)
    first, _, rest = body.partition(b"\n")
    while first.startswith(b"#"):
        after, line_after = _without_blank_lines(rest, line + 1)
        header = first.lstrip(b"#, ")
        if header.count(b",") == after.partition(b"\n")[0].count(b",") > 0:
            first = header
        else:  # a comment
            body, line = after, line_after
            first, _, rest = body.partition(b"\n")
    cells = first.split(b",")
    has_header = is_header(cells)
    layout = find_layout(cells, label, usual, has_header=has_header, where=f"{path}: line {line}")
    return (layout, True, rest, line + 1) if has_header else (layout, False, body, line)


def _without_blank_lines(block: bytes, line: int) -> tuple[bytes, int]:
    """Returns a block without its first lines if they are blank, and its first line's number."""
    body = block.lstrip()
    return body, line + block.count(b"\n", 0, len(block) - len(body))


@dataclass(eq=False)
class _Rows:
    """The rows of a file so far; ``line`` is the number of the first, or of the header."""

    path: Path
    layout: Layout
    line: int
    white: float | None
    count: int = 0
    parts: list[Images] = field(default_factory=list)
    brightest: npt.NDArray[np.float64] = field(init=False)
    seen: dict[int, Counter[Cell]] = field(init=False)
    invalid: dict[int, str] = field(default_factory=dict)
    """Column -> the first fault of a column that may be a label."""

    def __post_init__(self) -> None:
        columns = self.layout.columns
        self.brightest = np.zeros(columns)
        ends = (0, columns - 2, columns - 1) if self.layout.dropped is None else ()
        self.seen = {column: Counter() for column in ends}

    def add(self, block: bytes, line: int) -> None:
        """Adds whole lines; ``line`` is the number of the first."""
        white = self.white or _WHITE
        fast = _parsed(block, self.layout.columns)
        if fast is None or fast.max(initial=0) > white:
            numbered = enumerate(block.split(b"\n"), start=line)
            rows = [self._row(text, n) for n, text in numbered if text.strip()]
            values: npt.NDArray[Any] = np.array(rows).reshape(len(rows), self.layout.columns)
        else:
            values = fast
            for column, counter in self.seen.items():
                found, counts = np.unique(fast[:, column], return_counts=True)
                for value, count in zip(found.tolist(), counts.tolist(), strict=True):
                    counter[float(value)] += count
        if len(values):
            self.brightest = np.maximum(self.brightest, values.max(axis=0))
        self.parts.append(to_levels(values, white, where=str(self.path)))
        self.count += len(values)
        require_memory(self.count * self.layout.columns, what=str(self.path))

    def reading(self, form: str) -> CsvReading:
        """Returns the images.

        Args:
            form: How the file is written, for the user.
        """
        dropped, text, doubts, label = self.layout.dropped, self.layout.text, [], None
        if dropped is None:
            columns = self.layout.columns
            first, last_but_one, last = (self.seen[i] for i in (0, columns - 2, columns - 1))
            label, why, sure = decide_label(first, last, last_but_one)
            dropped = (0,) if label == "first" else (columns - 1,)
            text = f"the {label} is taken for the label ({why}) and left out"
            if not sure:
                doubts.append(
                    f"{self.path}: {columns} columns are a label and {columns - 1} pixels, and "
                    "neither a header nor the values say whether the label is the first or the "
                    'last: write label = "first" or label = "last" under [data] in the study file'
                )
        for column in sorted(set(self.invalid) - set(dropped)):
            raise DataError(self.invalid[column])
        pixels = [i for i in range(self.layout.columns) if i not in dropped]
        kept: slice | list[int] = pixels
        if pixels == list(range(pixels[0], pixels[-1] + 1)):
            kept = slice(pixels[0], pixels[-1] + 1)  # a view, not a copy
        images = np.concatenate([part[:, kept] for part in self.parts])
        if self.white is None:
            # Where the label may be at either end, neither end counts.
            counted = pixels[1:-1] if doubts else pixels
            doubt = doubt_of_range(
                float(self.brightest[counted].max()), _WHITE, where=str(self.path)
            )
            doubts += [doubt] if doubt else []
        side = self.layout.side_px
        count = format_count(len(images), "image")
        notes = [
            f"csv: {self.path}: {count} of {side}x{side} pixels, {form}; "
            f"of {self.layout.columns} columns {text}"
        ]
        if self.layout.warning:
            notes.append(f"warning: {self.layout.warning}")
        return CsvReading(images.reshape(-1, 1, side, side), tuple(doubts), label, tuple(notes))

    def _row(self, text: bytes, line: int) -> list[float]:
        """Parses one row that ``_parsed`` does not support; raises an error if it is invalid."""
        cells = text.split(b",")
        if len(cells) != self.layout.columns:
            raise DataError(
                f"{self.path}: line {line}: has {format_count(len(cells), 'value')}; "
                f"line {self.line} has {self.layout.columns}{quoted_separator(cells)}"
            )
        row = []
        for column, cell in enumerate(cells):
            value = number(cell)
            if column in self.seen:
                shown = cell.decode("utf-8", "replace").strip().strip("\"'")
                self.seen[column][shown if value is None else value] += 1
            if not self._is_pixel(value):
                fault = self._fault(cell, value, line=line, column=column + 1)
                if column not in self.layout.open_columns:
                    raise DataError(fault)
                self.invalid.setdefault(column, fault)
                value = 0.0
            row.append(value or 0.0)
        return row

    def _is_pixel(self, value: float | None) -> bool:
        if value is None:
            return False
        if self.white is None:
            return 0 <= value <= _WHITE and value.is_integer()
        return -ROUNDING * self.white <= value <= self.white * (1 + ROUNDING)

    def _fault(self, cell: bytes, value: float | None, *, line: int, column: int) -> str:
        shown = cell.decode("utf-8", "replace").strip()[:40]
        wanted = (
            "whole number from 0 to 255"
            if self.white is None
            else f"number from 0 to data.white = {self.white:g}"
        )
        hint = ""
        if self.white is None and value is not None and value > 0:
            likely = likely_white(max(value, 1.0))
            hint = f"; if this file has another white than 255, write it: {likely} under [data]"
        elif value is not None and value < 0:
            hint = "; scale the values to 0 (black) to 1 (white)"
            hint += "" if self.white else ", and write white = 1 under [data]"
        elif self.white is not None and value is not None and value > self.white:
            hint = f"; clip what is above {self.white:g} to it, or write another white under [data]"
        return f"{self.path}: line {line}, column {column}: {shown!r} is not a {wanted}{hint}"


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
