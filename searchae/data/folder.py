"""``folder``: PNG and JPEG files in a folder and the folders below it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import disk_errors, find_data_file
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_CHUNK = 512
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def load_folder(
    spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback
) -> RawImages:
    """Loads every image below ``spec.path``, in the order of the relative paths.

    Each image is rotated according to its EXIF orientation, converted to RGB (or grey), resized
    (bicubic) so that its shorter side is ``spec.image_size`` pixels, and cropped to the central
    square. Hidden files are skipped, and so are test images in a folder below ``spec.path``.

    Args:
        spec: ``path`` and ``test_path`` are the folders.
        data_dir: The data folder.
        progress: Called before reading and from time to time.

    Returns:
        uint8 (N, 3 or 1, image_size, image_size).

    Raises:
        DataError: A folder is missing or has no image, or an image cannot be read.
    """
    train = find_data_file(spec.path or "", data_dir=data_dir, key="data.path").resolve()
    if spec.test_path is None:
        return RawImages(_read(_files(train), spec, train, progress=progress))
    test = find_data_file(spec.test_path, data_dir=data_dir, key="data.test_path").resolve()
    if train.is_relative_to(test):
        raise DataError(
            f"data.test_path: {test} holds the training images too ({train}): "
            "a model must not be tested on what it was trained on"
        )
    files = [f for f in _files(train) if not f.is_relative_to(test)]
    return RawImages(
        _read(files, spec, train, progress=progress),
        _read(_files(test), spec, test, progress=progress),
    )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; a folder source needs a folder of images")
    with disk_errors("cannot read", folder):
        found = [p.relative_to(folder) for p in folder.rglob("*") if _is_image(p)]
    visible = [p for p in found if not any(part.startswith(".") for part in p.parts)]
    return [folder / p for p in sorted(visible, key=lambda p: p.as_posix())]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _read(files: list[Path], spec: DataSpec, folder: Path, *, progress: ProgressCallback) -> Images:
    if not files:
        raise DataError(f"{folder}: there is no PNG or JPEG image in it, nor below it")
    progress(f"folder: reading {len(files):,} images from {folder}")
    channels = 1 if spec.grayscale else 3
    images = np.empty((len(files), channels, spec.image_size, spec.image_size), np.uint8)
    one = partial(_read_one, size_px=spec.image_size, grayscale=spec.grayscale)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _CHUNK):
            chunk: Iterable[Images] = pool.map(one, files[start : start + _CHUNK])
            for i, image in enumerate(chunk, start):
                images[i] = image
            if start and start % (20 * _CHUNK) == 0:
                progress(f"folder: {start:,} of {len(files):,} images read")
    return images


def _read_one(path: Path, *, size_px: int, grayscale: bool) -> npt.NDArray[np.uint8]:
    """Reads one image as uint8 (C, size_px, size_px)."""
    try:
        with Image.open(path) as opened:
            # Lets the JPEG decoder reduce the image, which is faster than resizing it.
            opened.draft(None, (2 * size_px, 2 * size_px))
            image = _eight_bits(ImageOps.exif_transpose(opened))
            image = image.convert("L" if grayscale else "RGB")
    except _FAULTS as e:
        size = path.stat().st_size
        raise DataError(
            f"{path}: cannot be read as an image ({size:,} bytes): {e}; mend it or remove it"
        ) from e
    square = ImageOps.fit(image, (size_px, size_px), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(square, np.uint8)
    return pixels[None] if grayscale else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey to 8 bits; Pillow's conversion would clip the values."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(
        np.rint(np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8)
    )
