"""``mnist``: handwritten digits, downloaded by torchvision, read from idx or gzipped idx files."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import disk_errors
from searchae.data.download import Download, damaged, fetch, not_published, require_torchvision
from searchae.data.raw_images import Images, RawImages
from searchae.files import atomic_file, open_input

logger = logging.getLogger(__name__)

HOME = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FOLDER = "MNIST/raw"
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
}
"""MD5 of the idx files. torchvision has only those of the archives, which a user may have made
anew."""

_MOST_BYTES = 100_000_000
"""A file with more is another one, and is not read: twice the training images."""

_HEADER_BYTES = 16
_MAGIC = 0x00000803


def load_mnist(
    _spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback
) -> RawImages:
    """Loads MNIST: 60,000 training and 10,000 test images of 1 x 28 x 28.

    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits". Only the
    two files of images are needed, decompressed or as ``.gz``.

    Args:
        data_dir: The data folder.
        progress: Called before a download and before reading.

    Returns:
        uint8 (N, 1, 28, 28).

    Raises:
        DataError: The files cannot be downloaded, or are not the published ones.
    """
    names = tuple(f"{FOLDER}/{name}" for name in CHECKSUMS)
    by_hand = tuple(f"{name}.gz" for name in names)
    download = Download("mnist", HOME, 12, names, by_hand, _download, gzipped=True)
    fetch(download, data_dir=data_dir, progress=progress)
    progress(f"mnist: reading {data_dir / FOLDER}")
    train, test = (_images(data_dir / FOLDER / n, md5=md5) for n, md5 in CHECKSUMS.items())
    return RawImages(train, test)


def _download(staging: Path, _data_dir: Path, _missing: tuple[str, ...]) -> None:
    require_torchvision()
    from torchvision.datasets import MNIST

    MNIST(staging, download=True)


def _images(path: Path, *, md5: str) -> Images:
    """Reads one idx file of images: uint8 (N, 1, H, W)."""
    archive = path.with_name(f"{path.name}.gz")
    is_compressed = not path.is_file()
    data = _decompressed(archive) if is_compressed else _bytes(path)
    source = archive if is_compressed else path
    images = _parsed(data, source)
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise not_published(source, home=HOME)
    if is_compressed:
        _keep(path, data)
    return images


def _bytes(path: Path) -> bytes:
    with disk_errors("cannot read", path), open_input(path) as file:
        return _limited(file, path)


def _decompressed(archive: Path) -> bytes:
    with disk_errors("cannot read", archive), open_input(archive) as compressed:
        try:
            with gzip.open(compressed) as file:
                return _limited(file, archive)
        except (gzip.BadGzipFile, EOFError, zlib.error) as e:
            raise damaged(archive, e) from e


def _limited(file: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise damaged(path, f"it holds more than {_MOST_BYTES:,} bytes")
    return data


def _parsed(data: bytes, path: Path) -> Images:
    """Reads the idx format: a magic number, three sizes (big-endian), the pixels."""
    header = np.frombuffer(data[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0"), ">u4")
    magic, count, height, width = (int(v) for v in header)
    if magic != _MAGIC:
        raise damaged(path, f"it begins with {magic:#010x}, not with {_MAGIC:#010x}")
    expected = _HEADER_BYTES + count * height * width
    if len(data) != expected:
        raise damaged(
            path,
            f"{count:,} images of {height} x {width} take {expected:,} bytes, not {len(data):,}",
        )
    pixels = np.frombuffer(data, np.uint8, offset=_HEADER_BYTES)
    return pixels.reshape(count, 1, height, width)


def _keep(path: Path, data: bytes) -> None:
    """Saves the decompressed file for later runs and other programs, if the disk allows it."""
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as e:
        logger.info("%s is not kept decompressed: %s", path, e)
