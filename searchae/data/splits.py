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
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback, split_seed
from searchae.data.disk import moved_paths
from searchae.data.large_images import gather, new_images, parts
from searchae.data.raw_images import Images, RawImages, levels_of
from searchae.data.sources import SOURCES
from searchae.errors import DataError
from searchae.formatting import format_count, format_list

if TYPE_CHECKING:  # loading it takes two seconds, which commands without images need not wait for
    import torch

SET_ASIDE = 0.1
"""Share of the images that becomes the test split if a source has none of its own."""

_KEYS_OF_SOURCES: Mapping[str, tuple[str, ...]] = {
    "image_size": ("folder",),
    "fit": ("folder",),
    "grayscale": ("folder",),
    "alpha": ("folder",),
    "background": ("folder",),
    "label": ("csv",),
    "white": ("npz", "csv", "folder"),
    "bits": ("npz", "folder"),
    "extra": ("svhn",),
}
"""Keys that other sources than these pass over."""

_DARK = 32  # of 255
_MANY_DARK = 0.01  # share of the images; a night picture or two are no fault


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, split; all images have the same C, H and W.

    Attributes:
        train: Training images (N, C, H, W), contiguous, on the CPU; uint8, or uint16 where 16 bits
            are kept; C is 1 to 4.
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
    def white(self) -> int:
        """The level of white: 255, or 65535 where 16 bits are kept."""
        return levels_of(self.train.numpy())

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def levels(self) -> Mapping[str, tuple[int, float, int]]:
        """Lowest, mean and highest level of each split, from 0 to ``white``."""
        return {name: _levels(images) for name, images in self.parts.items()}

    @cached_property
    def also_in_train(self) -> Mapping[str, int]:
        """How many images of the other splits are in the training split too, pixel by pixel."""
        trained = {_digest(image) for part in parts(self.train) for image in part}
        return {
            name: sum(_digest(image) in trained for part in parts(images) for image in part)
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
        raise DataError(*raw.doubts)
    for doubt in raw.doubts:
        progress(f"warning: {doubt}")
    return split(raw, spec, seed=seed, scratch=data_dir)


def split(raw: RawImages, spec: DataSpec, *, seed: int, scratch: Path | None = None) -> Splits:
    """Splits a source's images; see ``load_splits``.

    Args:
        raw: The source's images.
        spec: How many images, and the share of the validation split.
        seed: The study's seed.
        scratch: A folder for images that are too large for memory; see ``new_images``.

    Raises:
        DataError: There are too few images.
    """
    import torch

    given = _Selection(raw.train)
    if raw.test is None:
        test, train = given.split_off(SET_ASIDE, key="the test split", seed=seed, label="test")
    else:
        test, train = _Selection(raw.test), given
    train = train.subset(spec.train_images, spec=spec, part="train", seed=seed)
    test = test.subset(spec.test_images, spec=spec, part="test", seed=seed)
    validation, train = train.split_off(
        spec.validation, key="data.validation", seed=seed, label="validation"
    )
    train_images, validation_images, test_images = (
        torch.from_numpy(part.taken(scratch)) for part in (train, validation, test)
    )
    hash_ = _hash(train_images, validation_images, test_images)
    return Splits(train_images, validation_images, test_images, hash_)


@dataclass(frozen=True, eq=False)
class _Selection:
    """Some of a source's images, which are not copied yet.

    Attributes:
        images: The source's images.
        order: The indices of those that are selected, int64 (N,); None for all, in order.
    """

    images: Images
    order: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images if self.order is None else self.order)

    def at(self, indices: npt.NDArray[np.int64]) -> _Selection:
        """Returns the images at these indices of the selection."""
        return _Selection(self.images, indices if self.order is None else self.order[indices])

    def split_off(
        self, share: float, *, key: str, seed: int, label: str
    ) -> tuple[_Selection, _Selection]:
        """Splits the images at random into a share of them, rounded (halves up), and the rest.

        Each side gets at least one image.
        """
        count = share_of(len(self), share, key=key)
        order = _permutation(len(self), seed=seed, label=label)
        return self.at(order[:count]), self.at(order[count:])

    def subset(self, count: int | None, *, spec: DataSpec, part: str, seed: int) -> _Selection:
        """Returns ``count`` images drawn at random; all, in order, if there are no more."""
        if count is None or count == len(self):
            return self
        if count > len(self):
            raise DataError(
                f"data.{part}_images = {count}: {spec.name} has only "
                f"{format_count(len(self), f'{part} image')}; ask for fewer, or for all by "
                f"leaving it out (--set data.{part}_images=)"
            )
        return self.at(_permutation(len(self), seed=seed, label=f"{part}_images")[:count])

    def taken(self, scratch: Path | None) -> Images:
        """Returns the images as an array that is contiguous and writable."""
        import torch

        whole = np.require(self.images, requirements=["C", "W"])
        if self.order is None:
            return whole
        shape = (len(self), *self.images.shape[1:])
        what = f"{len(self):,} images, split"
        found = new_images(shape, self.images.dtype, folder=scratch, what=what)
        images, order, start = torch.from_numpy(whole), torch.from_numpy(self.order), 0
        for part in parts(torch.from_numpy(found)):
            part.copy_(gather(images, order[start : start + len(part)]))
            start += len(part)
        return found


def share_of(images: int, share: float, *, key: str) -> int:
    """Returns how many images are a share of some: rounded, halves up, and neither none nor all.

    Args:
        images: How many there are.
        share: The share.
        key: What they are for; the message begins with it.

    Raises:
        DataError: There are fewer than two.
    """
    if images < 2:
        raise DataError(
            f"{key}: {format_count(images, 'image')} cannot be split: training, validation and "
            "test need at least one each; take more images"
        )
    return min(max(int(images * share + 0.5), 1), images - 1)


def split_sizes(spec: DataSpec, images: int, test: int | None) -> tuple[int, int, int]:
    """Returns how many training, validation and test images ``split`` makes of a source's.

    Args:
        spec: How many images, and the share of the validation split.
        images: The source's training images.
        test: Its test images; None if it has no test split.

    Raises:
        DataError: There are too few images.
    """
    if test is None:
        test = share_of(images, SET_ASIDE, key="the test split")
        images -= test
    images, test = min(images, spec.train_images or images), min(test, spec.test_images or test)
    validation = share_of(images, spec.validation, key="data.validation")
    return images - validation, validation, test


def describe_splits(splits: Splits) -> dict[str, Any]:
    """Describes a data set, in JSON's types.

    Returns:
        ``train``, ``validation`` and ``test`` (numbers of images), ``image_shape`` ([C, H, W]),
        ``bytes`` (size of the three splits in memory), ``hash``, ``white`` (the level of white, 255
        or 65535), ``levels`` (of each split ``min``, ``mean`` and ``max``, from 0 to that) and
        ``also_in_train`` (how many images of the other splits are in the training split too).
    """
    return {
        **{name: len(images) for name, images in splits.parts.items()},
        "image_shape": list(splits.image_shape),
        "bytes": sum(images.nbytes for images in splits.parts.values()),
        "hash": splits.hash,
        "white": splits.white,
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
        brightest, blank = _brightest(images)
        if blank:
            warnings.append(
                f"{blank:,} of {len(images):,} {name} images are of one colour all over"
            )
        darkest_usual = splits.white * _DARK // 255
        dark = int((brightest < darkest_usual).sum())
        if dark >= _MANY_DARK * len(images) and dark < len(images):
            warnings.append(
                f"{dark:,} of {len(images):,} {name} images are almost black (no level above "
                f"{darkest_usual - 1}): masks among them, or values on another scale? look at them "
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
    found = [
        (int(p.min()), float(p.sum(dtype=np.float64)), int(p.max()))
        for p in (part.numpy() for part in parts(images))
    ]
    lows, sums, highs = zip(*found, strict=True)
    return min(lows), sum(sums) / images.numel(), max(highs)


def _brightest(images: torch.Tensor) -> tuple[npt.NDArray[Any], int]:
    """Returns the highest level of each image, and how many images have one level only."""
    highest, blank = [], 0
    for part in parts(images):
        flat = part.flatten(1).numpy()
        highest.append(flat.max(1))
        blank += int((flat.min(1) == highest[-1]).sum())
    return np.concatenate(highest), blank


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().data, digest_size=16).digest()


def _ignore(_message: str) -> None:
    """A progress callback that does nothing."""


def _permutation(count: int, *, seed: int, label: str) -> npt.NDArray[np.int64]:
    """Returns a random permutation, int64 (count,), that depends on seed and label alone."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(split_seed(seed, label))
    order: npt.NDArray[np.int64]
    order = torch.randperm(count, generator=generator, device="cpu").numpy()
    return order


def _hash(*splits: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for images in splits:
        digest.update(repr(tuple(images.shape)).encode())
        if images.element_size() > 1:
            digest.update(str(images.dtype).encode())
        for part in parts(images):
            digest.update(part.numpy().data)
    return digest.hexdigest()
