"""Images that are too many to be held in memory: arrays mapped from files, used part by part.

A process that reads a mapped array holds what it has read until the operating system needs the
memory, which looks as if the process needed it. So mapped arrays are read through ``parts``, or
``release`` is called from time to time: what was read stays in the system's page cache, which all
processes share, and is no longer counted as the process's.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from searchae.data.memory import require_memory
from searchae.errors import DataError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LARGE_BYTES = 2**29
"""Arrays from this size on are kept in a file."""

PART_BYTES = 2**22
"""How much of a large array is read before what was read is released."""


class _Mapping(mmap.mmap):
    """A mapped file.

    Attributes:
        file: Its descriptor.
        offset: Where in it the array begins, in bytes.
    """

    file: int = -1
    offset: int = 0

    def __del__(self) -> None:
        """Closes the file, after the last array of it is gone."""
        if self.file >= 0:
            os.close(self.file)


_mappings: WeakValueDictionary[int, _Mapping] = WeakValueDictionary()
"""Maps by the address of the array in them."""


def new_images(
    shape: tuple[int, ...], dtype: npt.DTypeLike, *, folder: Path | None, what: str
) -> npt.NDArray[Any]:
    """Returns an array of zeros, in memory or, if it is large, in a temporary file.

    The file has no name, and vanishes with the array.

    Args:
        shape: The array's shape.
        dtype: Its type.
        folder: The folder of the file; None for an array in memory, whatever its size.
        what: What takes the space; the message begins with it.

    Raises:
        DataError: A large array can be kept neither on the disk nor in memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if folder is None or size < LARGE_BYTES:
        require_memory(size, what=what)
        return np.zeros(shape, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Without space set aside, a full disk would end the process by a signal.
            os.posix_fallocate(file.fileno(), 0, size)
            return _array(_Mapping(file.fileno(), size), file, shape, np.dtype(dtype), offset=0)
    except OSError as e:
        logger.info("%s: not kept on the disk: %s", what, e)
        require_memory(size, what=f"{what} ({folder}: {e.strerror or e})")
        return np.zeros(shape, dtype)


def map_images(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], *, offset: int
) -> npt.NDArray[Any]:
    """Maps a file as an array; writing to the array does not change the file (copy-on-write).

    What is written is seen by nobody else, and not by ``gather`` either.

    Args:
        file: The file.
        shape: The array's shape.
        dtype: Its type.
        offset: Where in the file it begins, in bytes.

    Raises:
        ValueError: The shape is impossible, or the file is shorter.
        OSError: It cannot be mapped.
    """
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"the file has no array of shape {shape}")
    mapping = _Mapping(file.fileno(), offset + size, access=mmap.ACCESS_COPY)
    return _array(mapping, file, shape, dtype, offset=offset)


def is_large(images: torch.Tensor) -> bool:
    """Whether images are so many that they must not be copied in memory."""
    return images.nbytes >= LARGE_BYTES


def release(images: torch.Tensor | npt.NDArray[Any]) -> None:
    """Gives back the memory that holds what was read of a mapped array; it can be read again.

    Does nothing if the images are not mapped. Of an array from ``map_images``, changes are lost.

    Args:
        images: The whole array, or a tensor that shares its memory.
    """
    mapping = _mappings.get(_address(images))
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def gather(rows: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Returns rows by their indices, as ``rows.index_select(0, indices)`` does.

    Of a large mapped array they are read from its file: reading them through the map may count
    much of the file around each as this process's memory (2 MiB with Linux 6.18 on ext4).

    Args:
        rows: (N, ...), contiguous.
        indices: int64 (B,), on the same device.

    Raises:
        DataError: The file can no longer be read.
    """
    import torch

    if rows.dtype == torch.uint16:  # which not every version selects from
        return gather(rows.view(torch.int16), indices).view(torch.uint16)
    is_mapped = rows.device.type == "cpu" and is_large(rows)
    mapping = _mappings.get(_address(rows)) if is_mapped else None
    if mapping is None:
        return rows.index_select(0, indices)
    found = torch.empty((len(indices), *rows.shape[1:]), dtype=rows.dtype)
    if not found.numel():
        return found
    size = rows.nbytes // len(rows)
    start = mapping.offset + rows.storage_offset() * rows.element_size()
    values: npt.NDArray[Any] = found.numpy()
    content = values.data.cast("B")
    for i, index in enumerate(indices.tolist()):
        place = content[i * size : (i + 1) * size]
        try:
            count = os.preadv(mapping.file, [place], start + index * size)
        except OSError as e:
            raise DataError(f"the decoded images can no longer be read: {e.strerror}") from e
        if count < size:
            raise DataError("the decoded images can no longer be read: their file was cut short")
    return found


def parts(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields images part by part, and releases each part of a large array after its use."""
    count = max(1, PART_BYTES * len(images) // max(1, images.nbytes))
    for start in range(0, len(images), count):
        yield images[start : start + count]
        if is_large(images):
            release(images)


def _array(
    mapping: _Mapping,
    file: IO[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    offset: int,
) -> npt.NDArray[Any]:
    array = np.frombuffer(mapping, dtype, count=math.prod(shape), offset=offset).reshape(shape)
    mapping.file, mapping.offset = os.dup(file.fileno()), offset
    _mappings[array.ctypes.data] = mapping
    return array


def _address(images: torch.Tensor | npt.NDArray[Any]) -> int:
    if isinstance(images, np.ndarray):
        return images.ctypes.data
    return images.untyped_storage().data_ptr()
