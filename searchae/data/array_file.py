"""Images from Python, such as a notebook's array, as a file of the data folder.

A search's workers are processes of their own, perhaps on other machines: they read a file, which is
hashed and checked like any data set.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchae.data.disk import disk_errors, exclusive_preparation
from searchae.data.memory import require_memory
from searchae.data.npz import read_array
from searchae.errors import DataError
from searchae.files import atomic_file

FOLDER = "arrays"
_NAMED_BY = 16  # hexadecimal digits of the hash in a file's name
_PILLOW_MODES = ("L", "RGB", "RGBA", "LA")
_WHAT = "images"


def write_array_file(
    images: Any,
    data_dir: Path,
    *,
    white: float | None = None,
    bits: Literal[8, 16] = 8,
) -> str:
    """Writes images as an npz file, named by their hash, unless it is there already.

    Args:
        images: An array or tensor, see ``load_npz`` for types and shapes; or what has a length and
            items, such as a torch ``Dataset``: images, or tuples that begin with one.
        data_dir: The data folder.
        white: See ``load_npz``.
        bits: Bits of a level.

    Returns:
        The file's path below ``data_dir``.

    Raises:
        DataError: They are no images, can be read in two ways, differ in shape or type, take too
            much memory, or cannot be written.
    """
    array = np.ascontiguousarray(_as_array(images))
    if array.dtype.hasobject:
        raise DataError(f"{_WHAT}: holds Python objects, not numbers: give one array of all images")
    reading = read_array(array, where=_WHAT, white=white, bits=bits)
    if reading.doubts:
        raise DataError(*reading.doubts)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
    name = f"{FOLDER}/{digest.hexdigest()[:_NAMED_BY]}.npz"
    path = data_dir / name
    with exclusive_preparation(FOLDER, data_dir=data_dir, progress=lambda _: None):
        if not path.is_file():
            with disk_errors("cannot write", path):
                path.parent.mkdir(exist_ok=True)
                with atomic_file(path) as file:
                    np.savez(file, images=array)
    return name


def _as_array(images: Any) -> npt.NDArray[Any]:
    if isinstance(images, np.ndarray):
        return images
    if hasattr(images, "detach"):
        return _tensor_as_array(images)
    if isinstance(images, str | Path):
        raise DataError(
            f"{_WHAT}: {str(images)!r} is a text: for a file or a folder write a [data] section, "
            'such as {"name": "folder", "path": ...}'
        )
    if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise DataError(
            f"{_WHAT}: {type(images).__name__} has no length and no items: give an array, a "
            "tensor, or a Dataset with __len__ and __getitem__"
        )
    if len(images) == 0:
        raise DataError(f"{_WHAT}: there is no image in it")
    first = _item(images, 0)
    require_memory(first.nbytes * len(images), what=f"{_WHAT}: {len(images):,} of them")
    array = np.empty((len(images), *first.shape), first.dtype)
    array[0] = first
    for i in range(1, len(images)):
        item = _item(images, i)
        if item.shape != first.shape or item.dtype != first.dtype:
            raise DataError(
                f"{_WHAT}: number {i} is {item.dtype} of shape {item.shape}, number 0 is "
                f"{first.dtype} of shape {first.shape}: resize them, or convert them, to one"
            )
        array[i] = item
    return array


def _item(images: Any, index: int) -> npt.NDArray[Any]:
    """Returns an item of a data set as an array."""
    try:
        item = images[index]
    except Exception as e:  # it is the user's code
        raise DataError(f"{_WHAT}: number {index} cannot be read: {type(e).__name__}: {e}") from e
    if isinstance(item, tuple | list):  # image and label
        if not item:
            raise DataError(f"{_WHAT}: number {index} is an empty {type(item).__name__}")
        item = item[0]
    if hasattr(item, "detach"):
        return _tensor_as_array(item)
    if hasattr(item, "convert") and getattr(item, "mode", "L") not in _PILLOW_MODES:
        item = item.convert("RGB")  # a palette's numbers are no levels
    return np.asarray(item)


def _tensor_as_array(tensor: Any) -> npt.NDArray[Any]:
    plain = tensor.detach().cpu()
    if str(plain.dtype) == "torch.bfloat16":  # which numpy has not
        plain = plain.float()
    array: npt.NDArray[Any] = plain.numpy()
    return array
