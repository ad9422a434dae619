"""Fixed, hashed splits: the same images in the same order for the same seed, on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from searchae.config import DataSpec, ProgressCallback
from searchae.data.raw_images import RawImages
from searchae.data.sources import SOURCES
from searchae.errors import DataError
from searchae.seeds import split_seed

SET_ASIDE = 0.1
"""Share of the images that becomes the test split where a source has none."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, ready to train on. All three splits have the same C, H and W.

    Attributes:
        train: uint8 of shape (N, C, H, W), contiguous, on the CPU; C is 1 or 3.
        validation: The same; held out of the training images for the search's objective.
        test: The same; read once a study, never by a search.
        hash: SHA-256 over the shapes and bytes of the three, in hexadecimal.
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
    """Reads a data set (fetching or drawing it where it must be) and splits it.

    In this order, each choice from the seed alone: a tenth is set aside as the test split where
    the source has none; ``train_images`` and ``test_images`` are drawn at random; the validation
    split is drawn from these training images. Neither torch's global random state nor a device
    has a part in it.

    Args:
        spec: Which images, how many, and the share of the validation split.
        data_dir: Where data sets lie and are fetched to; created where it is needed.
        seed: The study's.
        progress: Called with a line for the user while something long goes on.

    Returns:
        The splits, on the CPU.

    Raises:
        DataError: The data cannot be read, or has too few images for what is asked.
    """
    raw = SOURCES[spec.name](spec, data_dir, seed, progress or _silent)
    return split(raw, spec, seed=seed)


def split(raw: RawImages, spec: DataSpec, *, seed: int) -> Splits:
    """Splits a source's images; see ``load``.

    Raises:
        DataError: There are too few images for what is asked.
    """
    train = torch.from_numpy(np.require(raw.train, requirements=["C", "W"]))
    if raw.test is None:
        test, train = _parted(train, SET_ASIDE, key="the test split", seed=seed, label="test")
    else:
        test = torch.from_numpy(np.require(raw.test, requirements=["C", "W"]))
    train = _subset(train, spec.train_images, spec=spec, part="train", seed=seed)
    test = _subset(test, spec.test_images, spec=spec, part="test", seed=seed)
    validation, train = _parted(
        train, spec.validation, key="data.validation", seed=seed, label="validation"
    )
    return Splits(train, validation, test, _hash(train, validation, test))


def describe_splits(splits: Splits) -> dict[str, Any]:
    """What a data set consists of, as JSON can hold it.

    Returns:
        ``train``, ``validation``, ``test`` (images), ``image_shape`` ([C, H, W]), ``bytes`` (of
        all three splits in memory) and ``hash``.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        **{name: len(images) for name, images in parts.items()},
        "image_shape": list(splits.image_shape),
        "bytes": sum(images.numel() for images in parts.values()),
        "hash": splits.hash,
    }


def require_same_data(splits: Splits, expected_hash: str) -> None:
    """Makes sure that this machine has the data that a study was made with.

    Raises:
        DataError: It has not: with both hashes and what to check.
    """
    if splits.hash == expected_hash:
        return
    raise DataError(
        f"this machine's data (hash {splits.hash[:12]}) differs from what the study was made with "
        f"(hash {expected_hash[:12]}): check that data.path or --data-dir points to the same "
        "files, that none was changed or damaged, and, for house-numbers and folder, that Pillow "
        "and numpy have the same versions as there"
    )


def _silent(message: str) -> None:
    """For callers that want no progress."""


def _permutation(count: int, *, seed: int, label: str) -> torch.Tensor:
    """A permutation that depends on seed and label only: int64 (count,)."""
    generator = torch.Generator(device="cpu").manual_seed(split_seed(seed, label))
    return torch.randperm(count, generator=generator, device="cpu")


def _parted(
    images: torch.Tensor, share: float, *, key: str, seed: int, label: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a share of the images, rounded (a half upwards), and the others."""
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
    """Draws ``count`` of the images; all of them, in their order, where that is all there are."""
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
