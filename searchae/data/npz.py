"""``npz``: arrays in numpy's archive format, under the names that Keras uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import find_data_file
from searchae.data.levels import doubt_of_dark, likely_white, to_levels
from searchae.data.npz_file import open_npz
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError

_WANTED = "x_train (and x_test), or images"
_NARROWEST_PX = 4


@dataclass(frozen=True, eq=False)
class ArrayReading:
    """An array read as images.

    Attributes:
        images: uint8 (N, C, H, W), with C 1 or 3.
        text: What the array is and what it was taken for.
        doubts: See ``RawImages``.
    """

    images: Images
    text: str
    doubts: tuple[str, ...]


def load_npz(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads ``x_train`` and, if it is there, ``x_test``; or ``images`` alone.

    Arrays are uint8, or float in [0, 1] (rounded to 256 levels), or any numbers from 0 to
    ``spec.white``, of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3.

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
    path = find_data_file(spec.path or "", data_dir=data_dir, key="data.path")
    progress(f"npz: reading {path}")
    with open_npz(path) as archive:
        taken = _taken(archive.names, path)
        readings = [
            read_array(archive.read(name), where=f"{path}: {name}", white=spec.white)
            for name in taken
        ]
        for name, reading in zip(taken, readings, strict=True):
            progress(f"npz: {name}: {reading.text}")
        if left_out := [name for name in archive.names if name not in taken]:
            progress(f"npz: left out: {', '.join(left_out)}")
    doubts = tuple(doubt for reading in readings for doubt in reading.doubts)
    test = readings[1].images if len(readings) > 1 else None
    return RawImages(readings[0].images, test, doubts)


def _taken(names: Sequence[str], path: Path) -> list[str]:
    if "x_train" in names:
        return [name for name in ("x_train", "x_test") if name in names]
    if "images" in names:
        return ["images"]
    raise DataError(f"{path}: needs {_WANTED}, but holds {', '.join(names) or 'nothing'}")


def as_images(array: npt.NDArray[Any], *, where: str, white: float | None = None) -> Images:
    """Converts an array of images to uint8 (N, C, H, W).

    Args:
        array: See ``load_npz`` for the types and shapes.
        where: What it is called in messages.
        white: The value of white; None for 255 with uint8, and 1 with floats.

    Raises:
        DataError: It has another shape or type, values outside its range, or a shape that can be
            read in two ways.
    """
    reading = read_array(array, where=where, white=white, accept_dark=True)
    if reading.doubts:
        raise DataError("\n".join(reading.doubts))
    return reading.images


def read_array(
    array: npt.NDArray[Any], *, where: str, white: float | None = None, accept_dark: bool = False
) -> ArrayReading:
    """Reads an array as images; see ``as_images``.

    Args:
        array: The array.
        where: What it is called in messages.
        white: See ``as_images``.
        accept_dark: Whether images that are almost black raise no doubt.

    Raises:
        DataError: As ``as_images``, but for shapes that can be read in two ways.
    """
    ordered, order = _channels_first(array, where=where)
    if ordered.size == 0:
        raise DataError(f"{where}: there is no image in it: its shape is {array.shape}")
    assumed = _white(array, where=where) if white is None else white
    images = np.ascontiguousarray(to_levels(ordered, assumed, where=where))
    doubts = _doubts_of_shape(array, ordered, order, where=where)
    if white is None and not accept_dark:
        doubt = doubt_of_dark(float(ordered.max()), assumed, where=where)
        doubts += [doubt] if doubt else []
    count, channels, height, width = images.shape
    kind = "grey" if channels == 1 else "colour"
    text = (
        f"{array.dtype} of shape {array.shape}, {order}: {count:,} {kind} images of "
        f"{width}x{height} pixels; {assumed:g} is white"
    )
    return ArrayReading(images, text, tuple(doubts))


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
        "in a study, say which value is white: for example "
        f"white = {likely_white(high):g} under [data]"
    )


def _channels_first(array: npt.NDArray[Any], *, where: str) -> tuple[npt.NDArray[Any], str]:
    """Returns an array as (N, C, H, W), and the order of its axes in words."""
    if array.ndim == 3:
        return array[:, None], "(N, H, W)"
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2), "(N, H, W, C)"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array, "(N, C, H, W)"
    raise DataError(
        f"{where}: is {array.dtype} of shape {array.shape}, "
        "not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels C"
    )


def _doubts_of_shape(
    array: npt.NDArray[Any], ordered: npt.NDArray[Any], order: str, *, where: str
) -> list[str]:
    """Returns the doubt that an array's axes have another order than the one that was taken."""
    shape = array.shape
    height, width = ordered.shape[2:]
    reason = None
    if array.ndim == 4 and shape[1] in (1, 3) and shape[3] in (1, 3):
        reason = "channels may stand first or last"
    elif min(height, width) < _NARROWEST_PX:
        reason = f"read as {order}, its images have only {width}x{height} pixels"
    elif array.ndim == 3 and shape[0] == shape[1] != shape[2]:
        reason = "it may be (N, H, W), or (H, W, N) as MATLAB has it"
    if reason is None:
        return []
    return [
        f"{where}: the order of the axes of {shape} is not clear: {reason}; save it as "
        "(N, H, W, C), with at least 4 pixels a side, such as numpy.transpose gives"
    ]
