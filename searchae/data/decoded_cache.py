"""A cache of decoded images that a search writes and its workers map into memory.

The workers of a machine share one copy in the operating system's page cache, and none of them has
to decode the files again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from searchae.data.large_images import map_images, parts
from searchae.data.splits import Splits
from searchae.files import SharedFolder

if TYPE_CHECKING:
    import torch

Rows = npt.NDArray[Any]
"""uint8 or uint16 (N, H, W, C)."""

logger = logging.getLogger(__name__)

FOLDER = "decoded"
KEPT = 4
"""How many data sets the cache keeps; older ones are removed."""

_PARTS = ("train", "validation")
"""What every worker needs: earlier versions cached no more than this."""
_TEST = "test"
_SUMS = "sha256.json"
_MALFORMED = (EOFError, ValueError, KeyError, TypeError, RecursionError)
_LARGEST_SUMS, _LARGEST_PART = 2**16, 2**40
"""Bytes of the largest files that are opened; parts are mapped, not read."""


def decoded_folder(hash_: str, data_dir: Path) -> Path:
    """Returns the folder of a data set's cached images.

    Args:
        hash_: ``Splits.hash`` of the data set.
        data_dir: The data folder, which contains the cache.
    """
    return data_dir / FOLDER / hash_


def decoded_sums(splits: Splits) -> dict[str, str]:
    """Returns the checksums of a data set's cached images, for the study to keep.

    A worker that takes them from the study uses no other images, whoever can write the cache.

    Returns:
        ``train``, ``validation`` and ``test`` -> SHA-256, in hexadecimal.
    """
    return {part: _sum(_rows(splits.parts[part])) for part in (*_PARTS, _TEST)}


def keep_decoded(splits: Splits, data_dir: Path, sums: Mapping[str, str] | None = None) -> bool:
    """Writes the images to the cache, under their hash, unless they are there.

    Args:
        splits: The images.
        data_dir: The data folder, which contains the cache.
        sums: What ``decoded_sums`` returns for them; computed if unset.

    Returns:
        Whether they are in the cache now. If not, for example on a read-only disk, each worker
        decodes the images itself.
    """
    home, sums = decoded_folder(splits.hash, data_dir), sums or decoded_sums(splits)
    if _is_whole(SharedFolder(home), splits):
        return True
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home.parent))
        old = draft.with_name(f"{draft.name}-old")
        try:
            for part in sums:
                with SharedFolder(draft).writing(f"{part}.npy") as file:
                    _write(file, _rows(splits.parts[part]))
            with SharedFolder(draft).writing(_SUMS) as file:
                file.write(json.dumps(dict(sums)).encode())
            draft.chmod(0o755)
            if os.path.lexists(home):  # who has mapped its files keeps them
                os.rename(home, old)
            os.rename(draft, home)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            _remove(old)
        for stale in sorted(home.parent.glob("[!.]*"), key=_age)[:-KEPT]:
            _remove(stale)
    except OSError as e:
        logger.info("decoded images are not kept: %s", e)
    return _is_whole(SharedFolder(home), splits)


def find_decoded(
    hash_: str, data_dir: Path, sums: Mapping[str, str] | None = None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Maps cached training and validation images into memory.

    Args:
        hash_: ``Splits.hash`` of the data set.
        data_dir: The data folder, which contains the cache.
        sums: What ``decoded_sums`` returned, as the study has it; those in the cache itself if
            unset, for studies of earlier versions.

    Returns:
        Training and validation images (N, C, H, W), channels last in memory. Writing to
        them does not change the cache (copy-on-write). None if they are not cached, or damaged.
    """
    found = _find(hash_, data_dir, _PARTS, sums)
    return None if found is None else (found[0], found[1])


def find_decoded_test(
    hash_: str, data_dir: Path, sums: Mapping[str, str] | None = None
) -> torch.Tensor | None:
    """Maps cached test images into memory, as ``find_decoded`` does the others."""
    found = _find(hash_, data_dir, (_TEST,), sums)
    return None if found is None else found[0]


def _find(
    hash_: str, data_dir: Path, parts: Sequence[str], sums: Mapping[str, str] | None
) -> list[torch.Tensor] | None:
    home = SharedFolder(data_dir / FOLDER / hash_)
    if home.path.name != hash_ or hash_ == "..":  # it comes from a database
        return None
    try:
        if sums is None:
            with home.reading(_SUMS, limit=_LARGEST_SUMS) as file:
                sums = json.loads(file.read())
            if parts == (_TEST,) and _TEST not in sums:  # written by an earlier version
                return None
        return [_read(home, part, sums[part]) for part in parts]
    except FileNotFoundError:
        return None
    except (OSError, *_MALFORMED) as e:
        logger.warning("decoded images in %s are of no use (%s): reading the source", home.path, e)
        with suppress(OSError):
            home.remove(_SUMS)  # so that the next search writes them anew
        return None


def _is_whole(home: SharedFolder, splits: Splits) -> bool:
    """Whether a cache has all files, in their size; workers check what is in them."""
    try:
        with home.reading(_SUMS, limit=_LARGEST_SUMS):
            pass
        for part in (*_PARTS, _TEST):
            found, wanted = _map(home, part), _rows(getattr(splits, part)).numpy()
            if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                return False
    except (OSError, *_MALFORMED):
        return False
    return True


def _rows(images: torch.Tensor) -> torch.Tensor:
    """Returns images as they are cached: (N, H, W, C), so that no trial has to copy them."""
    return images.permute(0, 2, 3, 1)


def _write(file: IO[bytes], rows: torch.Tensor) -> None:
    """Writes rows in numpy's format, part by part: ``numpy.save`` would copy all of them."""
    header = {
        "descr": np.lib.format.dtype_to_descr(rows.numpy().dtype),
        "fortran_order": False,
        "shape": tuple(rows.shape),
    }
    np.lib.format.write_array_header_1_0(cast("BinaryIO", file), header)
    for part in parts(rows):
        file.write(part.contiguous().numpy().data)


def _read(home: SharedFolder, part: str, sha256: str) -> torch.Tensor:
    import torch

    rows = torch.from_numpy(_map(home, part))
    if _sum(rows) != sha256:
        raise ValueError(f"{part}.npy was changed")
    return rows.permute(0, 3, 1, 2)


def _map(home: SharedFolder, part: str) -> Rows:
    """Maps a file of the cache into memory.

    Raises:
        ValueError: It is cut short, or holds something else.
    """
    name = f"{part}.npy"
    with home.reading(name, limit=_LARGEST_PART) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} has another format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if len(shape) != 4 or is_fortran or dtype not in (np.uint8, np.uint16):
            raise ValueError(f"{name} holds something else")
        return map_images(file, shape, dtype, offset=file.tell())


def _sum(rows: torch.Tensor) -> str:
    """Returns the SHA-256 of cached images."""
    digest = hashlib.sha256()
    for part in parts(rows):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Removes an entry of the cache; a link, not what it leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # removed by another search meanwhile
        return 0.0
