"""Reading npz files: no pickle, and nothing allocated before its size is known and checked."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from searchae.data.disk import disk_errors
from searchae.data.memory import require_memory, require_plausible_expansion
from searchae.data.other_formats import START_BYTES, other_format
from searchae.errors import DataError
from searchae.files import open_input
from searchae.formatting import format_count, shortened

_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    TypeError,  # numpy's, of a shape of truth values
    OverflowError,
    tokenize.TokenError,  # and of a header with brackets left open
)
_LONGEST_REASON = 200
"""Characters of an error: numpy's of a header repeats all of it."""

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK"
_ARRAY_SUFFIX = ".npy"

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
_HEADER_READERS: dict[tuple[int, int], Callable[[BinaryIO], _Header]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzFile:
    """An open npz file.

    Attributes:
        path: The file.
        names: Names of its arrays.
    """

    path: Path
    names: tuple[str, ...]

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members = {n.removesuffix(_ARRAY_SUFFIX): n for n in archive.namelist()}
        self.names = tuple(self._members)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Reads one array.

        Raises:
            DataError: It is damaged, holds Python objects, or takes too much memory.
        """
        where = f"{self.path}: {name}"
        try:
            info = self._archive.getinfo(self._members[name])
            require_plausible_expansion(info.file_size, info.compress_size, what=where)
            with self._archive.open(info) as file:
                shape, dtype, offset = _header(cast("BinaryIO", file))
            size_bytes = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject:
                if info.file_size != offset + size_bytes:
                    raise ValueError(
                        f"its header says {dtype} of shape {shape}, {size_bytes:,} bytes, and "
                        f"{info.file_size - offset:,} follow"
                    )
                require_memory(size_bytes, what=where)
            with self._archive.open(info) as file:
                array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except _FAULTS as e:
            raise _damaged(self.path, name, e) from e
        return array


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Opens an npz file.

    Args:
        path: The file.

    Raises:
        DataError: It cannot be read, or is no npz.
    """
    with disk_errors("cannot read", path):
        with open_input(path) as file:
            start = file.read(START_BYTES)
        if start.startswith(_NPY_MAGIC):
            raise DataError(
                f"{path}: holds one bare array; save it with numpy.savez(FILE, images=array)"
            )
        try:
            archive = zipfile.ZipFile(path)
        except _FAULTS as e:
            what = other_format(start)
            if what and not start.startswith(_ZIP_MAGIC):
                raise DataError(f"{path}: is {what}; an npz is made with numpy.savez") from e
            raise _damaged(path, "the archive", e) from e
        with archive:
            yield NpzFile(path, archive)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Reads an array's header: its shape, its type and the number of bytes before its values."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"version {version} of the npy format, which images do not need")
    shape, _, dtype = _HEADER_READERS[version](file)
    return shape, dtype, file.tell()


def _damaged(path: Path, part: str, error: Exception) -> DataError:
    size = path.stat().st_size
    reason = shortened(str(error), _LONGEST_REASON)
    return DataError(
        f"{path}: {part} cannot be read ({reason}); the file ({format_count(size, 'byte')}) is "
        "damaged, not an npz, or holds Python objects: save plain arrays with numpy.savez"
    )
