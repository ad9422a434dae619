"""``house-numbers``: drawn digits that stand in for photographs of house numbers.

They need no network. Images come from a seed alone: the same seed gives the same bytes on every
machine with the same version of Pillow (whose font and rasteriser draw the glyphs) and numpy
(whose random stream is used); where versions differ in a pixel, the splits' hash tells.
Images are drawn in batches with a stream of random numbers each, so that image i does not depend
on how many are asked for: a smaller set is a prefix of a larger one.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from searchae.config import DataSpec, ProgressCallback
from searchae.data import drawn_digits
from searchae.data.disk import disk_errors, exclusive_preparation
from searchae.data.raw_images import Images, RawImages
from searchae.files import atomic_file, remove_unfinished

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever the generator changes; part of the random seed and of the cache's names."""

TRAIN_IMAGES = 20_000
TEST_IMAGES = 4_000
_BATCH = 250
_STREAMS = {"train": 0, "test": 1}
_DIGEST_BYTES = 32


def load(spec: DataSpec, data_dir: Path, seed: int, progress: ProgressCallback) -> RawImages:
    """Draws the images, or reads them from ``data_dir/house-numbers`` where they were kept.

    Args:
        spec: ``train_images`` and ``test_images`` may be any number; 20,000 and 4,000 if unset.
        data_dir: Where drawn images are kept, as one ``.npy`` file a split.
        seed: At least 0.
        progress: Told when images are drawn.

    Returns:
        uint8 of shape (N, 3, 32, 32).

    Raises:
        DataError: The data folder cannot be written to.
    """
    counts = {
        "train": spec.train_images or TRAIN_IMAGES,
        "test": spec.test_images or TEST_IMAGES,
    }
    train, test = (
        _kept(split, count, data_dir=data_dir, seed=seed, progress=progress)
        for split, count in counts.items()
    )
    return RawImages(train, test)


def generate(split: str, count: int, *, seed: int) -> Images:
    """Draws the first ``count`` images of a split.

    Args:
        split: ``train`` or ``test``: two endless, independent rows of images.
        count: At least 1.
        seed: At least 0.

    Returns:
        uint8 of shape (count, 3, 32, 32), RGB.
    """
    images = np.empty((count, 3, drawn_digits.SIDE_PX, drawn_digits.SIDE_PX), np.uint8)
    for batch, start in enumerate(range(0, count, _BATCH)):
        entropy = [VERSION, seed, _STREAMS[split], batch]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        images[start : start + _BATCH] = drawn_digits.draw_digits(rng, _BATCH)[: count - start]
    return images


def _kept(
    split: str, count: int, *, data_dir: Path, seed: int, progress: ProgressCallback
) -> Images:
    """Reads a split from the cache; draws and caches it where it is missing or damaged."""
    shape = (count, 3, drawn_digits.SIDE_PX, drawn_digits.SIDE_PX)
    path = data_dir / "house-numbers" / f"v{VERSION}-seed{seed}-{split}{count}.npy"
    cached = _read(path, shape)
    if cached is not None:
        return cached
    with exclusive_preparation("house-numbers", data_dir=data_dir, progress=progress) as alone:
        cached = _read(path, shape)
        if cached is not None:
            return cached
        progress(f"house-numbers: drawing {count:,} {split} images")
        images = generate(split, count, seed=seed)
        with disk_errors("cannot write", path):
            path.parent.mkdir(exist_ok=True)
            if alone:
                remove_unfinished(path)
            _write(path, images)
    return images


def _write(path: Path, images: Images) -> None:
    """Writes an ``.npy`` file with the images' SHA-256 behind the array, where numpy skips it."""
    with atomic_file(path) as file:
        np.save(file, images)
        file.write(hashlib.sha256(images.data).digest())


def _read(path: Path, shape: tuple[int, ...]) -> Images | None:
    """Reads what ``_write`` wrote; None where it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            images: Images = np.load(file, allow_pickle=False)
            digest = file.read(_DIGEST_BYTES + 1)
    except (OSError, ValueError, EOFError) as e:
        logger.warning("%s cannot be read (%s): drawing its images again", path, e)
        return None
    if images.shape != shape or hashlib.sha256(images.data).digest() != digest:
        logger.warning("%s is damaged: drawing its images again", path)
        return None
    return images
