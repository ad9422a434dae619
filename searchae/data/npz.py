"""``npz``: arrays in numpy's archive format, under the names that Keras uses."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import disk_errors, find_data_file
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError

_CHUNK = 4096
_FAULTS = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError)
_WANTED = "x_train (and x_test), or images"


def load_npz(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads ``x_train`` and, if it is there, ``x_test``; or ``images`` alone.

    Arrays are uint8, or float in [0, 1] (rounded to 256 levels), of shape (N, H, W), (N, H, W, C)
    or (N, C, H, W) with C 1 or 3. A shape that could be either of the last two is read as
    (N, H, W, C).

    Args:
        spec: ``path`` is the file.
        data_dir: The data folder.
        progress: Called before reading.

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
    with disk_errors("cannot read", path):
        arrays = _read(path)
    if "x_train" in arrays:
        test = arrays.get("x_test")
        return RawImages(
            as_images(arrays["x_train"], where=f"{path}: x_train"),
            None if test is None else as_images(test, where=f"{path}: x_test"),
        )
    return RawImages(as_images(arrays["images"], where=f"{path}: images"))


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads the arrays that are needed."""
    key = "the archive"
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path}: holds one bare array; save it with numpy.savez as images")
        arrays = {}
        with loaded as archive:
            for key in _keys(archive, path):
                arrays[key] = archive[key]
        return arrays
    except _FAULTS as e:
        size = path.stat().st_size
        raise DataError(
            f"{path}: {key} cannot be read ({e}); the file ({size:,} bytes) is damaged, not an "
            "npz, or holds Python objects: save plain arrays with numpy.savez"
        ) from e


def _keys(archive: Mapping[str, Any], path: Path) -> list[str]:
    if "x_train" in archive:
        return [k for k in ("x_train", "x_test") if k in archive]
    if "images" in archive:
        return ["images"]
    found = ", ".join(archive) or "nothing"
    raise DataError(f"{path}: needs {_WANTED}, but holds {found}")


def as_images(array: npt.NDArray[Any], *, where: str) -> Images:
    """Converts an array of images to uint8 (N, C, H, W).

    Args:
        array: See ``load_npz`` for the types and shapes.
        where: What it is called in messages.

    Raises:
        DataError: It has another shape or type, or floats outside [0, 1].
    """
    ordered = _channels_first(array, where=where)
    if ordered.size == 0:
        raise DataError(f"{where}: there is no image in it: its shape is {array.shape}")
    if ordered.dtype == np.uint8:
        return np.ascontiguousarray(ordered)
    if not np.issubdtype(ordered.dtype, np.floating):
        raise DataError(
            f"{where}: is {array.dtype} of shape {array.shape}, "
            "not uint8 or float in [0, 1]: convert it and save it again"
        )
    low, high = ordered.min(), ordered.max()
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{where}: is {array.dtype} of shape {array.shape} with values from {low:g} to "
            f"{high:g}; floats must be in [0, 1]: scale it, or save it as uint8"
        )
    images = np.empty(ordered.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        part = ordered[start : start + _CHUNK].astype(np.float64)
        images[start : start + _CHUNK] = np.rint(part * 255)
    return images


def _channels_first(array: npt.NDArray[Any], *, where: str) -> npt.NDArray[Any]:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise DataError(
        f"{where}: is {array.dtype} of shape {array.shape}, "
        "not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels C"
    )
