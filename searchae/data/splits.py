"""Training, validation and test splits, reproducible and identified by a hash.

The same data set and seed give the same images in the same order on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from searchae.config import DataSpec, ProgressCallback, split_seed
from searchae.data.raw_images import RawImages
from searchae.data.sources import SOURCES
from searchae.errors import DataError

SET_ASIDE = 0.1
"""Share of the images that becomes the test split if a source has none of its own."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, split; all images have the same C, H and W.

    Attributes:
        train: Training images, uint8 (N, C, H, W), contiguous, on the CPU; C is 1 or 3.
        validation: Validation images, likewise; the search's objective is measured on them.
        test: Test images, likewise; a search never uses them.
        hash: SHA-256 of the shapes and bytes of the three splits, in hexadecimal.
    """

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    hash: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def load_splits(
    spec: DataSpec, *, data_dir: Path, seed: int, progress: ProgressCallback | None = None
) -> Splits:
    """Loads a data set, downloading or drawing it first if needed, and splits it.

    In this order: a tenth becomes the test split if the source has none; ``train_images`` and
    ``test_images`` are drawn at random; the validation split is drawn from these training images.
    Each random choice depends on the seed alone.

    Args:
        spec: The source, how many images, and the share of the validation split.
        data_dir: The folder of data sets, which downloads go to; created if needed.
        seed: The study's seed.
        progress: Called with a line of text for the user when a long operation starts or proceeds.

    Returns:
        The splits, on the CPU.

    Raises:
        DataError: The data cannot be read or downloaded, or there are too few images.
    """
    raw = SOURCES[spec.name](spec, data_dir, seed, progress or _ignore)
    return split(raw, spec, seed=seed)


def split(raw: RawImages, spec: DataSpec, *, seed: int) -> Splits:
    """Splits a source's images; see ``load_splits``.

    Args:
        raw: The source's images.
        spec: How many images, and the share of the validation split.
        seed: The study's seed.

    Raises:
        DataError: There are too few images.
    """
    train = torch.from_numpy(np.require(raw.train, requirements=["C", "W"]))
    if raw.test is None:
        test, train = _split_off(train, SET_ASIDE, key="the test split", seed=seed, label="test")
    else:
        test = torch.from_numpy(np.require(raw.test, requirements=["C", "W"]))
    train = _subset(train, spec.train_images, spec=spec, part="train", seed=seed)
    test = _subset(test, spec.test_images, spec=spec, part="test", seed=seed)
    validation, train = _split_off(
        train, spec.validation, key="data.validation", seed=seed, label="validation"
    )
    return Splits(train, validation, test, _hash(train, validation, test))


def describe_splits(splits: Splits) -> dict[str, Any]:
    """Describes a data set, in JSON's types.

    Returns:
        ``train``, ``validation`` and ``test`` (numbers of images), ``image_shape`` ([C, H, W]),
        ``bytes`` (size of the three splits in memory) and ``hash``.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        **{name: len(images) for name, images in parts.items()},
        "image_shape": list(splits.image_shape),
        "bytes": sum(images.numel() for images in parts.values()),
        "hash": splits.hash,
    }


def require_same_data(splits: Splits, expected_hash: str) -> None:
    """Checks that this machine's data is what a study was created with.

    Args:
        splits: This machine's data.
        expected_hash: The hash of the study's data.

    Raises:
        DataError: The hashes differ.
    """
    if splits.hash == expected_hash:
        return
    raise DataError(
        f"this machine's data (hash {splits.hash[:12]}) differs from what the study was made with "
        f"(hash {expected_hash[:12]}): check that data.path or --data-dir points to the same "
        "files, that none was changed or damaged, and, for house-numbers and folder, that Pillow "
        "and numpy have the same versions as there"
    )


def _ignore(_message: str) -> None:
    """A progress callback that does nothing."""


def _permutation(count: int, *, seed: int, label: str) -> torch.Tensor:
    """Returns a random permutation, int64 (count,), that depends on seed and label alone."""
    generator = torch.Generator(device="cpu").manual_seed(split_seed(seed, label))
    return torch.randperm(count, generator=generator, device="cpu")


def _split_off(
    images: torch.Tensor, share: float, *, key: str, seed: int, label: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits images at random into a share of them, rounded (halves up), and the rest."""
    count = int(len(images) * share + 0.5)
    if not 0 < count < len(images):
        raise DataError(
            f"{key}: a share of {share:g} of {len(images)} training images is {count}, and leaves "
            f"{len(images) - count}: each side needs at least one image; take more images"
        )
    order = _permutation(len(images), seed=seed, label=label)
    return images[order[:count]], images[order[count:]]


def _subset(
    images: torch.Tensor, count: int | None, *, spec: DataSpec, part: str, seed: int
) -> torch.Tensor:
    """Returns ``count`` images drawn at random; all of them, in order, if there are no more."""
    if count is None or count == len(images):
        return images
    if count > len(images):
        raise DataError(
            f"data.{part}_images = {count}: {spec.name} has only {len(images)} {part} images; "
            "ask for fewer, or for all by leaving it out"
        )
    return images[_permutation(len(images), seed=seed, label=f"{part}_images")[:count]]


def _hash(*parts: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for images in parts:
        digest.update(repr(tuple(images.shape)).encode())
        digest.update(images.numpy().data)
    return digest.hexdigest()
