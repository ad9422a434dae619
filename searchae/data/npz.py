"""``npz``: arrays in numpy's archive format, under the names that Keras uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import find_data_file
from searchae.data.levels import DARK, doubt_of_range, likely_white, to_levels
from searchae.data.npz_file import open_npz
from searchae.data.raw_images import MOST_CHANNELS, Images, RawImages
from searchae.errors import DataError
from searchae.formatting import format_count

_CHANNELS = range(1, MOST_CHANNELS + 1)
_WANTED = "x_train (and x_test), or images"
_NARROWEST_PX = 4
_LARGER = "save it as (N, H, W, C), with at least 4 pixels a side, such as numpy.transpose gives"
_CLEAR_WHITES = frozenset({1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0})
"""Brightest values that leave no doubt: those of 1, 8, 10, 12, 14 and 16 bits."""
_MOST_SCALED = 1000  # images
_ROUNDED = 0.01
"""Values that are no farther from 256 levels have 8 bits, such as those divided by 255."""
_MANY = 2  # times as many images as pixels a side


@dataclass(frozen=True, eq=False)
class ArrayReading:
    """An array read as images.

    Attributes:
        images: See ``raw_images.Images``.
        text: What the array is and what it was taken for.
        order_doubt: Why its axes may have another order; None if they may not.
        range_doubt: Why another value may be white; None if it may not.
    """

    images: Images
    text: str
    order_doubt: str | None
    range_doubt: str | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """See ``RawImages``."""
        return tuple(doubt for doubt in (self.order_doubt, self.range_doubt) if doubt)


def load_npz(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads ``x_train`` and, if it is there, ``x_test``; or ``images`` alone.

    Arrays are uint8, or float in [0, 1] (rounded to 256 levels), or any numbers from 0 to
    ``spec.white``, of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C from 1 to 4.
    Where (H, W, N) or (H, W, N, C) is as likely, that is a doubt.

    Args:
        spec: ``path`` is the file.
        data_dir: The data folder.
        progress: Called before reading, and with what was taken.

    Raises:
        DataError: The file is missing, damaged, or holds no such arrays.
    """
    if spec.test_path is not None:
        raise DataError(
            "data.test_path: an npz source reads one file; "
            f"remove {spec.test_path!r}, and put the test images under x_test"
        )
    path = find_data_file(spec.path or "", data_dir=data_dir, key="data.path", takes_folder=False)
    progress(f"npz: reading {path}")
    with open_npz(path) as archive:
        taken = _taken(archive.names, path)
        readings = [
            read_array(
                archive.read(name), where=f"{path}: {name}", white=spec.white, bits=spec.bits
            )
            for name in taken
        ]
        left_out = [name for name in archive.names if name not in taken]
    doubts = tuple(doubt for reading in readings for doubt in reading.doubts)
    test = readings[1].images if len(readings) > 1 else None
    found = RawImages(readings[0].images, test, doubts)
    if not doubts:  # what is refused was not taken
        for name, reading in zip(taken, readings, strict=True):
            progress(f"npz: {name}: {reading.text}")
        if left_out:
            progress(f"npz: left out: {', '.join(left_out)}")
    return found


@dataclass(frozen=True)
class ArrayValues:
    """What values an npz has.

    Attributes:
        white: The value of white, where the brightest one leaves no doubt and it is not the one
            that is assumed without ``data.white``; else None.
        is_deep: Whether they have more than 8 bits.
        text: Type and brightest value, in words.
    """

    white: float | None
    is_deep: bool
    text: str


def look_at_values(path: Path) -> ArrayValues:
    """Looks at the values of the training images of an npz.

    Args:
        path: The file.

    Raises:
        DataError: It cannot be read.
    """
    with open_npz(path) as archive:
        array = archive.read(_taken(archive.names, path)[0])
    if array.dtype == np.uint8 or array.dtype.kind not in "uibf" or not array.size:
        return ArrayValues(None, is_deep=False, text=str(array.dtype))
    brightest = float(array.max())
    is_clear = brightest in _CLEAR_WHITES and (array.dtype.kind != "f" or brightest > 1)
    shown = f"{array.dtype} up to {brightest:g}"
    if array.dtype == np.uint16 and brightest > DARK * 65535:  # as of a folder's 16-bit files
        is_clear, brightest = True, 65535.0
    white = brightest if is_clear else None
    scale = 255 / (white or (1.0 if array.dtype.kind == "f" else brightest or 1.0))
    some = array[:_MOST_SCALED] * scale
    is_deep = bool(np.abs(some - np.rint(some)).max() > _ROUNDED)
    return ArrayValues(int(white) if white else None, is_deep=is_deep, text=shown)


def _taken(names: Sequence[str], path: Path) -> list[str]:
    if "x_train" in names:
        return [name for name in ("x_train", "x_test") if name in names]
    if "images" in names:
        return ["images"]
    raise DataError(
        f"{path}: needs {_WANTED}, but holds {', '.join(names) or 'nothing'}; save it again with "
        "numpy.savez under these names"
    )


def as_images(
    array: npt.NDArray[Any],
    *,
    where: str,
    white: float | None = None,
    size: tuple[int, int] | None = None,
    bits: Literal[8, 16] = 8,
    warn: ProgressCallback,
) -> Images:
    """Converts an array to images.

    Args:
        array: See ``load_npz`` for the types and shapes.
        where: What it is called in messages.
        white: The value of white; None for 255 with uint8, and 1 with floats.
        size: The height and width that are wanted: a shape that has them is read so.
        bits: Bits of a level.
        warn: Called with the doubt that another value is white.

    Raises:
        DataError: It has another shape or type, values outside its range, or a shape that can be
            read in two ways.
    """
    reading = read_array(array, where=where, white=white, bits=bits, in_study=False)
    has_size = reading.images.shape[2:] == size and not _may_be_one_image(array.shape)
    if reading.order_doubt is not None and not has_size:
        raise DataError(reading.order_doubt)
    if reading.range_doubt is not None:
        warn(f"warning: {reading.range_doubt}")
    return reading.images


def read_array(
    array: npt.NDArray[Any],
    *,
    where: str,
    white: float | None = None,
    bits: Literal[8, 16] = 8,
    in_study: bool = True,
) -> ArrayReading:
    """Reads an array as images; see ``as_images``.

    Args:
        array: The array.
        where: What it is called in messages.
        white: See ``as_images``.
        bits: Bits of a level.
        in_study: See ``doubt_of_range``.

    Raises:
        DataError: As ``as_images``, but for shapes that can be read in two ways.
    """
    ordered, order = _channels_first(array, where=where)
    if ordered.size == 0:
        raise DataError(f"{where}: there is no image in it: its shape is {array.shape}")
    assumed = _white(array, where=where) if white is None else white
    images = np.ascontiguousarray(to_levels(ordered, assumed, where=where, bits=bits))
    range_doubt = None
    if white is None:
        range_doubt = doubt_of_range(float(ordered.max()), assumed, where=where, in_study=in_study)
    count, channels, height, width = images.shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    text = (
        f"{array.dtype} of shape {array.shape}, {order}: {format_count(count, f'{kind} image')} of "
        f"{width}x{height} pixels; {assumed:g} is white"
    )
    if bits == 8 and in_study and array.dtype.kind == "u" and assumed > 255:
        text += "; rounded to 8 bits (data.bits = 16 keeps 16)"
    return ArrayReading(images, text, _order_doubt(array.shape, order, where=where), range_doubt)


def _white(array: npt.NDArray[Any], *, where: str) -> float:
    if array.dtype == np.uint8:
        return 255.0
    if np.issubdtype(array.dtype, np.floating):
        return 1.0
    what = f"{where}: is {array.dtype} of shape {array.shape}"
    if array.dtype.kind not in "uib":
        raise DataError(f"{what}, not numbers: convert it and save it again")
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise DataError(
            f"{what} with values from {low} to {high}: convert it to uint8, 0 for black"
        )
    raise DataError(
        f"{what} with values from {low} to {high}, not uint8 or float in [0, 1]: convert it, or, "
        f"in a study, say which value is white: for example {likely_white(high)} under [data]"
    )


def _channels_first(array: npt.NDArray[Any], *, where: str) -> tuple[npt.NDArray[Any], str]:
    """Returns an array as (N, C, H, W), and the order of its axes in words."""
    if array.ndim == 3:
        return array[:, None], "(N, H, W)"
    if array.ndim == 4 and array.shape[3] in _CHANNELS:
        return array.transpose(0, 3, 1, 2), "(N, H, W, C)"
    if array.ndim == 4 and array.shape[1] in _CHANNELS:
        return array, "(N, C, H, W)"
    raise DataError(
        f"{where}: is {array.dtype} of shape {array.shape}, "
        f"not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to {MOST_CHANNELS} channels C"
        f"{_ordering(array.shape)}"
    )


def _ordering(shape: tuple[int, ...]) -> str:
    """Returns how to bring an array of another shape into order; empty where that is not known."""
    if len(shape) == 2:
        side = math.isqrt(shape[1])
        sides = f"{side}, {side}" if side**2 == shape[1] else "H, W"
        return (
            f": if a row is an image, save array.reshape(-1, {sides}), or (-1, H, W, C) in colour"
        )
    if len(shape) == 4 and shape[2] in _CHANNELS:
        return ": if it is (H, W, C, N), save numpy.transpose(array, (3, 0, 1, 2))"
    if len(shape) == 4 and shape[0] in _CHANNELS:
        return ": if it is (C, N, H, W), save numpy.transpose(array, (1, 2, 3, 0))"
    return ""


def _order_doubt(shape: tuple[int, ...], order: str, *, where: str) -> str | None:
    """Returns the doubt that an array's axes have another order than the one that was taken."""
    count, *rest = shape
    height, width = rest[1:] if order == "(N, C, H, W)" else rest[:2]
    if _may_be_one_image(shape):
        reason = f"it may be {count} grey images, or one image of {count} channels"
        way_out = "add an axis: array[:, None] for grey images, array[None] for one image"
    elif len(shape) == 4 and shape[1] in _CHANNELS and shape[3] in _CHANNELS:
        reason, way_out = "channels may stand first or last", _LARGER
    elif min(height, width) < _NARROWEST_PX:
        reason, way_out = f"read as {order}, its images have only {width}x{height} pixels", _LARGER
    elif len(shape) == 3 and _may_be_last(count, height, width, strict=True):
        reason = f"it may be {order}, or (H, W, N) as MATLAB has it"
        way_out = "save it as (N, H, W, 1), such as numpy.transpose and array[..., None] give"
    elif order == "(N, H, W, C)" and _may_be_last(count, height, width, strict=False):
        reason = f"it may be {order}, or (H, W, N, C)"
        way_out = "save it as (N, C, H, W), such as numpy.transpose gives"
    else:
        return None
    return f"{where}: the order of the axes of {shape} is not clear: {reason}; {way_out}"


def _may_be_one_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and 1 < shape[0] <= MOST_CHANNELS


def _may_be_last(count: int, height: int, width: int, *, strict: bool) -> bool:
    """Whether the first two of three axes may be those of an image, and the last one the images'.

    Most images are square. Where neither reading has square images, (N, H, W) is clear if it has
    many images; without ``strict`` it is clear also if it has few.
    """
    if count == height:
        return strict or height != width
    if height == width:
        return False
    return strict and count < _MANY * max(height, width)
