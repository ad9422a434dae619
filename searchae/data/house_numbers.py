"""``house-numbers``: synthetic digits that resemble photographs of house numbers.

They need no network. A seed gives the same bytes on every machine with the same versions of Pillow
(which draws the glyphs) and numpy (which draws the random numbers); if other versions differ in a
pixel, the hash of the splits differs. Each batch of images has a random generator of its own, so
that image i does not depend on how many are drawn: a smaller set is a prefix of a larger one.
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

VERSION = 2
"""Version of the generator, part of the random seed and of the file names in the data folder."""

TRAIN_IMAGES = 20_000
TEST_IMAGES = 4_000
_BATCH = 250  # images of one random generator; another number would draw other images
_SPLIT_NUMBERS = {"train": 0, "test": 1}
_DIGEST_BYTES = 32


def load_house_numbers(
    spec: DataSpec, data_dir: Path, seed: int, progress: ProgressCallback
) -> RawImages:
    """Reads the images from ``data_dir/house-numbers``, or draws them and writes them there.

    Args:
        spec: ``train_images`` and ``test_images`` may be any number; 20,000 and 4,000 if unset.
        data_dir: The data folder; images are kept there, as one ``.npy`` file for each split.
        seed: The study's seed, at least 0.
        progress: Called before images are drawn.

    Returns:
        uint8 (N, 3, 32, 32).

    Raises:
        DataError: The data folder cannot be written to.
    """
    counts = {
        "train": spec.train_images or TRAIN_IMAGES,
        "test": spec.test_images or TEST_IMAGES,
    }
    train, test = (
        _read_or_draw(split, count, data_dir=data_dir, seed=seed, progress=progress)
        for split, count in counts.items()
    )
    return RawImages(train, test)


def generate(split: str, count: int, *, seed: int) -> Images:
    """Draws the first ``count`` images of a split.

    Args:
        split: ``train`` or ``test``; their images are independent.
        count: The number of images, at least 1.
        seed: The study's seed, at least 0.

    Returns:
        uint8 (count, 3, 32, 32), RGB.
    """
    images = np.empty((count, 3, drawn_digits.SIDE_PX, drawn_digits.SIDE_PX), np.uint8)
    for batch, start in enumerate(range(0, count, _BATCH)):
        entropy = [VERSION, seed, _SPLIT_NUMBERS[split], batch]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        images[start : start + _BATCH] = drawn_digits.draw_digits(rng, _BATCH)[: count - start]
    return images


def _read_or_draw(
    split: str, count: int, *, data_dir: Path, seed: int, progress: ProgressCallback
) -> Images:
    """Reads a split from its file; draws it and writes the file if that is missing or damaged."""
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
    """Writes an ``.npy`` file with the images' SHA-256 after the array, where numpy ignores it."""
    with atomic_file(path) as file:
        np.save(file, images)
        file.write(hashlib.sha256(images.data).digest())


def _read(path: Path, shape: tuple[int, ...]) -> Images | None:
    """Reads a file that ``_write`` wrote; None if it is missing or damaged."""
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
