"""Training, validation and test splits, reproducible and identified by a hash.

The same data set and seed give the same images in the same order on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchae.config import DataSpec, ProgressCallback, split_seed
from searchae.data.disk import moved_paths
from searchae.data.raw_images import RawImages
from searchae.data.sources import SOURCES
from searchae.errors import DataError
from searchae.formatting import format_count, format_list

if TYPE_CHECKING:  # loading it takes two seconds, which commands without images need not wait for
    import torch

SET_ASIDE = 0.1
"""Share of the images that becomes the test split if a source has none of its own."""

_KEYS_OF_SOURCES: Mapping[str, tuple[str, ...]] = {
    "image_size": ("folder",),
    "grayscale": ("folder",),
    "background": ("folder",),
    "label": ("csv",),
    "white": ("npz", "csv", "folder"),
}
"""Keys that other sources than these pass over."""

_DARK_LEVEL = 32
_MANY_DARK = 0.01  # share of the images; a night picture or two are no fault


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

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def levels(self) -> Mapping[str, tuple[int, float, int]]:
        """Lowest, mean and highest level of each split, from 0 to 255."""
        return {name: _levels(images) for name, images in self.parts.items()}

    @cached_property
    def also_in_train(self) -> Mapping[str, int]:
        """How many images of the other splits are in the training split too, pixel by pixel."""
        trained = {_digest(image) for image in self.train}
        return {
            name: sum(_digest(image) in trained for image in images)
            for name, images in self.parts.items()
            if name != "train"
        }


def load_splits(
    spec: DataSpec,
    *,
    data_dir: Path,
    seed: int,
    progress: ProgressCallback | None = None,
    accept_doubts: bool = False,
) -> Splits:
    """Loads a data set, downloading or drawing it first if needed, and splits it.

    In this order: a tenth becomes the test split if the source has none; ``train_images`` and
    ``test_images`` are drawn at random; the validation split is drawn from these training images.
    Each random choice depends on the seed alone.

    Args:
        spec: The source, how many images, and the share of the validation split.
        data_dir: The folder of data sets, which downloads go to; created if needed.
        seed: The study's seed.
        progress: Called with a line of text for the user when a long operation starts or proceeds,
            and with what was taken, left out or changed.
        accept_doubts: Whether files that can be read in two ways are read in the usual one, with a
            warning, and files that are missing are looked for in the data folder; for a study that
            was made with them, whose hash the caller checks.

    Returns:
        The splits, on the CPU.

    Raises:
        DataError: The data cannot be read or downloaded, or there are too few images; or files can
            be read in two ways, and the message says what to write into the study file.
    """
    progress = progress or _ignore
    if accept_doubts:
        spec = moved_paths(spec, data_dir=data_dir)
    for key, sources in _KEYS_OF_SOURCES.items():
        default = type(spec).model_fields[key].get_default()
        if spec.name not in sources and getattr(spec, key) != default:
            progress(
                f"{spec.name}: data.{key} changes nothing here; it is for {format_list(sources)}"
            )
    raw = SOURCES[spec.name](spec, data_dir, seed, progress)
    if raw.doubts and not accept_doubts:
        raise DataError("\n".join(raw.doubts))
    for doubt in raw.doubts:
        progress(f"warning: {doubt}")
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
    import torch

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
        ``bytes`` (size of the three splits in memory), ``hash``, ``levels`` (of each split ``min``,
        ``mean`` and ``max``, from 0 to 255) and ``also_in_train`` (how many images of the other
        splits are in the training split too).
    """
    return {
        **{name: len(images) for name, images in splits.parts.items()},
        "image_shape": list(splits.image_shape),
        "bytes": sum(images.numel() for images in splits.parts.values()),
        "hash": splits.hash,
        "levels": {
            name: {"min": low, "mean": round(mean, 3), "max": high}
            for name, (low, mean, high) in splits.levels.items()
        },
        "also_in_train": dict(splits.also_in_train),
    }


def split_warnings(splits: Splits) -> list[str]:
    """Returns what may make a data set's results worthless, a sentence each."""
    warnings = [
        f"{count:,} of {len(splits.parts[name]):,} {name} images are in the training split too, "
        "pixel by pixel: the PSNR on them says nothing of new images; keep one of each"
        for name, count in splits.also_in_train.items()
        if count
    ]
    for name, images in splits.parts.items():
        flat = images.flatten(1)
        brightest = flat.amax(1)
        if blank := int((flat.amin(1) == brightest).sum()):
            warnings.append(
                f"{blank:,} of {len(images):,} {name} images are of one colour all over"
            )
        dark = int((brightest < _DARK_LEVEL).sum())
        if dark >= _MANY_DARK * len(images) and dark < len(images):
            warnings.append(
                f"{dark:,} of {len(images):,} {name} images are almost black (no level above "
                f"{_DARK_LEVEL - 1}): masks among them, or values on another scale? look at them "
                "with --show"
            )
    return warnings


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
        "and numpy have the same versions as there. Versions of searchae before this one read "
        "transparent, linked and other pictures than PNG and JPEG, and CSV whose label is last, "
        "otherwise: with such files start a new study"
    )


def _levels(images: torch.Tensor) -> tuple[int, float, int]:
    pixels = images.numpy()
    return int(pixels.min()), float(pixels.mean(dtype=np.float64)), int(pixels.max())


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().data, digest_size=16).digest()


def _ignore(_message: str) -> None:
    """A progress callback that does nothing."""


def _permutation(count: int, *, seed: int, label: str) -> torch.Tensor:
    """Returns a random permutation, int64 (count,), that depends on seed and label alone."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(split_seed(seed, label))
    return torch.randperm(count, generator=generator, device="cpu")


def _split_off(
    images: torch.Tensor, share: float, *, key: str, seed: int, label: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits images at random into a share of them, rounded (halves up), and the rest.

    Each side gets at least one image.
    """
    if len(images) < 2:
        raise DataError(
            f"{key}: there is nothing to take it from, only {format_count(len(images), 'image')}: "
            "training, validation and test need at least one each; take more images"
        )
    count = min(max(int(len(images) * share + 0.5), 1), len(images) - 1)
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
            f"data.{part}_images = {count}: {spec.name} has only "
            f"{format_count(len(images), f'{part} image')}; ask for fewer, or for all by "
            "leaving it out"
        )
    return images[_permutation(len(images), seed=seed, label=f"{part}_images")[:count]]


def _hash(*parts: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for images in parts:
        digest.update(repr(tuple(images.shape)).encode())
        digest.update(images.numpy().data)
    return digest.hexdigest()
