"""Which columns of a CSV are pixels: by the header, by the values, or as the user says."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from searchae.errors import DataError

LabelColumn = Literal["first", "last"]
Cell = float | str
"""A cell's number, or its text where it is none."""

_FEWEST_COUNTED = 16
_FEWEST_COUNTED_AFTER_LABEL = 9
_MOST_LABELS = 100
_LARGEST_SHARE = 0.9
_MOST_LISTED = 4
_FEW = 4
_DIGITS = re.compile(r"\d+")
_NUMBERED = re.compile(rb"\d+:-?[\d.eE+-]+")
_DECIMAL_COMMA = re.compile(rb'"-?\d+,\d+"')
_NO_PIXELS = frozenset(
    {
        "label",
        "labels",
        "class",
        "classes",
        "classname",
        "target",
        "targets",
        "y",
        "digit",
        "category",
        "letter",
        "id",
        "idx",
        "index",
        "name",
        "names",
        "file",
        "filename",
        "path",
        "image",
        "image_id",
        "unnamed:_#",
        "usage",
        "",
    }
)
"""Names of columns that are no pixels, with numbers as #."""


@dataclass(frozen=True)
class Layout:
    """The columns of a file.

    Attributes:
        columns: How many there are.
        dropped: Numbers of those that are no pixels, from 0; None if it is one of the two ends, and
            the values have to say which.
        text: What is left out, and why; for the user.
        warning: What the header says against it; empty if it says nothing.
    """

    columns: int
    dropped: tuple[int, ...] | None
    text: str
    warning: str = ""

    @property
    def open_columns(self) -> tuple[int, ...]:
        """Columns that may hold anything: those that are dropped, or the two that may be."""
        return (0, self.columns - 1) if self.dropped is None else self.dropped

    @property
    def side_px(self) -> int:
        """Side of the square images in pixels."""
        return math.isqrt(self.columns - (1 if self.dropped is None else len(self.dropped)))


def number(cell: bytes) -> float | None:
    """Returns the finite number in a cell, with or without quotes; None if there is none."""
    try:
        value = float(cell.strip().strip(b"\"'"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_header(cells: Sequence[bytes]) -> bool:
    """Whether a file's first line is a header: most cells are no numbers, or they count up.

    Counting are 0, 1, 2 ... and 1, 2, 3 ..., which a data frame without names of columns writes;
    also after or before the name of a label.
    """
    values = [number(cell) for cell in cells]
    numbers = [v for v in values if v is not None]
    if len(values) - len(numbers) > 1:
        # A row of pixels may begin with several texts, such as a class and a file's name.
        return 2 * len(numbers) <= len(values) or _counts(numbers, 2)
    if _counts(values, _FEWEST_COUNTED) or _counts(values[1:], 257):
        return True
    return (values[0] is None and _counts(values[1:], _FEWEST_COUNTED_AFTER_LABEL)) or (
        values[-1] is None and _counts(values[:-1], _FEWEST_COUNTED_AFTER_LABEL)
    )


def find_layout(
    cells: Sequence[bytes],
    label: LabelColumn | None,
    usual: LabelColumn | None,
    *,
    has_header: bool,
    where: str,
) -> Layout:
    """Finds a file's layout by its first line: the number of columns, and their names.

    Args:
        cells: The first line's cells.
        label: Where the label is, if the user says so.
        usual: Where it is in the training file, if the header does not say.
        has_header: Whether they are names.
        where: The file and line; a message begins with it.

    Raises:
        DataError: The pixels are not those of a square image, whichever column is left out.
    """
    columns = len(cells)
    _check_dense(cells, where)
    names = [_name(cell) for cell in cells] if has_header else []
    extra = _no_pixels(names)
    if names:
        _check_order([cell for i, cell in enumerate(cells) if i not in extra], where)
    if label is not None:
        if not _is_square(columns - 1):
            raise _not_square(columns, where, f'; with data.label = "{label}" one is left out')
        at = 0 if label == "first" else columns - 1
        others = [i for i in extra if i != at]
        found = _labelled(columns, label, "as data.label says")
        if not others:
            return found
        against = (
            f'by the header, {_listed(others, cells)} no pixels, against data.label = "{label}"'
        )
        return replace(found, warning=f"{where}: {against}")
    if extra and _is_square(columns - len(extra)):
        return Layout(columns, extra, f"by the header, {_listed(extra, cells)} left out")
    if _is_square(columns):
        if any(names[i] in _NO_PIXELS for i in extra):
            raise DataError(
                f"{where}: the header has {columns} columns; {_listed(extra, cells)} left out, and "
                f"{columns - len(extra)} pixels make no square image"
            )
        return Layout(columns, (), "all are pixels")
    if not _is_square(columns - 1):
        raise _not_square(columns, where, _hint(cells))
    if usual is not None:
        return _labelled(columns, usual, "as in the training file")
    return Layout(columns, None, "")


def _check_dense(cells: Sequence[bytes], where: str) -> None:
    if all(_NUMBERED.fullmatch(cell.strip()) for cell in cells[1:3]) and len(cells) > 2:
        raise DataError(
            f"{where}: pixels are written as NUMBER:VALUE, as LIBSVM does: write all pixels of an "
            "image, separated by commas"
        )


def _check_order(pixels: Sequence[bytes], where: str) -> None:
    """Raises an error if the names of the pixels' columns have numbers that do not rise."""
    numbers = [tuple(map(int, _DIGITS.findall(_shown(cell)[:40]))) for cell in pixels]
    for i in range(1, len(numbers)):
        if len(numbers[i]) == len(numbers[0]) and numbers[i] < numbers[i - 1]:
            shown = ", ".join(_shown(cell)[:40] for cell in pixels[i - 1 : i + 1])
            raise DataError(
                f"{where}: the header does not number the pixels in rising order ({shown}): sort "
                "the columns by their numbers, or remove the header if the pixels stand row by row "
                "as they are"
            )


def _labelled(columns: int, label: LabelColumn, why: str) -> Layout:
    at = 0 if label == "first" else columns - 1
    return Layout(columns, (at,), f"the {label} is left out, {why}")


def decide_label(
    first: Mapping[Cell, int], last: Mapping[Cell, int], last_but_one: Mapping[Cell, int]
) -> tuple[LabelColumn, str, bool]:
    """Decides by the values which end of a row is its label.

    A label is a text, or one of a few numbers next to each other, none of which most rows have. A
    pixel at an image's corner seldom looks like that, except where pixels have few values.

    Args:
        first: Value -> number of rows, of the first column.
        last: The same of the last column.
        last_but_one: The same of the column before it, which is a pixel's either way.

    Returns:
        Which it is, why, and whether that is sure. If it is not, it is the first: what is usual.
    """
    if _all_text(first) != _all_text(last):
        which: LabelColumn = "first" if _all_text(first) else "last"
        values = first if which == "first" else last
        return which, "it is empty" if set(values) == {""} else "it is a text", True
    like_first, like_last = _like_labels(first), _like_labels(last)
    if like_first and not like_last:
        return "first", "by its values", True
    if like_last and not like_first:
        if set(first) == {0.0}:
            return "last", "by its values, and the first is 0 in every row", True
        if not _like_labels(last_but_one):
            return "last", "by its values", True
    return "first", "which is usual", False


def _counts(values: Sequence[float | None], fewest: int) -> bool:
    """Whether values are 0, 1, 2 ... or 1, 2, 3 ..., in any order."""
    size = len(values)
    if size < fewest or any(v is None for v in values):
        return False
    return sorted(v for v in values if v is not None) in (
        list(range(size)),
        list(range(1, size + 1)),
    )


def _shown(cell: bytes) -> str:
    return cell.decode("utf-8", "replace").strip().strip("\"'").strip()


def _name(cell: bytes) -> str:
    return _DIGITS.sub("#", _shown(cell).lower()).replace(" ", "_")


def _listed(columns: Sequence[int], header: Sequence[bytes]) -> str:
    """Returns columns as ``columns 1 (no name), 785 (label) are``, the first ones of many."""
    texts = [f"{i + 1} ({_shown(header[i])[:40] or 'no name'})" for i in columns]
    if len(texts) > _MOST_LISTED:
        texts = [*texts[: _MOST_LISTED - 1], f"... {texts[-1]}"]
    return f"column {texts[0]} is" if len(texts) == 1 else f"columns {', '.join(texts)} are"


def _no_pixels(names: Sequence[str]) -> tuple[int, ...]:
    """Returns the columns whose names differ from those of the pixels, which differ in numbers."""
    if not names:
        return ()
    pattern, count = Counter(names).most_common(1)[0]
    if 2 * count > len(names):
        return tuple(i for i, name in enumerate(names) if name != pattern)
    return tuple(i for i, name in enumerate(names) if name in _NO_PIXELS)


def _is_square(count: int) -> bool:
    return count >= 4 and math.isqrt(count) ** 2 == count


def _not_square(columns: int, where: str, hint: str) -> DataError:
    are = "column is" if columns == 1 else "columns are"
    return DataError(
        f"{where}: {columns} {are} neither a square image's pixels nor a label and a square "
        f"image's pixels (as 784 and 785 are){hint}"
    )


def quoted_separator(cells: Sequence[bytes]) -> str:
    """Returns a hint if quotes hold a separator or a decimal comma; empty otherwise."""
    if not any(cell.count(b'"') % 2 for cell in cells):
        return ""
    if found := _DECIMAL_COMMA.search(b",".join(cells)):
        shown = found[0].decode()
        return (
            f": quotes hold decimal commas here, such as {shown}: write decimal points, or save it "
            "from a spreadsheet in an English format"
        )
    return ": quotes hold a separator here, which is read as the end of a value; save it without"


def _hint(cells: Sequence[bytes]) -> str:
    columns = len(cells)
    if text := quoted_separator(cells):
        return text
    if columns <= _FEW:
        start = b",".join(cells)[:40].decode("utf-8", "replace")
        return (
            f": it begins with {start!r}, but a csv source has an image in each line, whose values "
            "are separated by commas, semicolons, tabs, bars or spaces"
        )
    if _is_square(columns - 2):
        if not cells[-1].strip():
            return ": its lines end with a separator; remove that"
        return ": where more than one column holds no pixels, a header has to name them"
    return ": images that are in colour or not square go into an npz or a folder"


def _all_text(values: Mapping[Cell, int]) -> bool:
    return all(isinstance(v, str) for v in values)


def _like_labels(values: Mapping[Cell, int]) -> bool:
    rows = sum(values.values())
    numbers = [v for v in values if isinstance(v, float)]
    texts = sum(count for v, count in values.items() if isinstance(v, str))
    if texts:
        return 2 * texts >= rows
    if not all(v.is_integer() for v in numbers):
        return False
    span = max(numbers) - min(numbers) + 1
    return (
        2 <= len(numbers) <= min(_MOST_LABELS, rows / 2)
        and len(numbers) >= span / 2
        and max(values.values()) <= _LARGEST_SHARE * rows
    )
