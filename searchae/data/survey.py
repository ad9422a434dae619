"""What images somebody has, and which keys of ``[data]`` read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchae.config import SOURCES_WITHOUT_PATH, DataSpec, ProgressCallback, spec_from_document
from searchae.data.csv_file import load_csv
from searchae.data.disk import absolute_paths, disk_errors, find_data_file, possible_places
from searchae.data.house_numbers import TEST_IMAGES, TRAIN_IMAGES
from searchae.data.mnist import CHECKSUMS, FOLDER
from searchae.data.npz import load_npz, look_at_values
from searchae.data.picture_files import SUFFIX_FORMATS
from searchae.data.picture_survey import survey_pictures
from searchae.data.raw_images import RawImages
from searchae.data.splits import split_sizes
from searchae.errors import DataError, nearest

MANY, ENOUGH = 40_000, 20_000
"""Of more training images than ``MANY`` a search gets ``ENOUGH``."""
FEW = 1000
"""Of fewer training images a larger share is held out: PSNRs of a few images tell trials apart
badly."""
Shape = tuple[int, int, int]
_KNOWN: Mapping[str, tuple[int, int, Shape]] = {
    "mnist": (60_000, 10_000, (1, 28, 28)),
    "cifar10": (50_000, 10_000, (3, 32, 32)),
    "svhn": (73_257, 26_032, (3, 32, 32)),
    "house-numbers": (TRAIN_IMAGES, TEST_IMAGES, (3, 32, 32)),
}
"""Data sets that need not be fetched to be known: training and test images, and their shape."""
_IDX_MAGIC = b"\0\0\x08\x03"
_WAY_OUT = re.compile(r"(white|label) = (\"?[\w.]+\"?)")
"""What a message says to write into the study file."""


@dataclass(frozen=True)
class Survey:
    """What images somebody has.

    Attributes:
        spec: What reads them.
        keys: Keys of ``[data]`` -> values, in the order in which a study file has them.
        reasons: Some of the keys -> why they have that value.
        shape: (C, H, W) of the images as nets get them.
        train: Number of images of each split.
        validation: See ``train``.
        test: See ``train``.
        text: What the images are, in words.
        splits: How they are split, in words.
    """

    spec: DataSpec
    keys: Mapping[str, Any]
    reasons: Mapping[str, str]
    shape: Shape
    train: int
    validation: int
    test: int
    text: str
    splits: str


@dataclass(frozen=True)
class _Found:
    """What was found of a source: see ``Survey``; ``test`` is None if it has no test split."""

    keys: Mapping[str, Any]
    reasons: Mapping[str, str]
    train: int
    test: int | None
    shape: Shape | None
    text: str


def survey_images(
    images: str,
    given: Mapping[str, Any],
    *,
    data_dir: Path,
    study_folder: Path | None = None,
    progress: ProgressCallback,
) -> Survey:
    """Looks at images: at some of the pictures of a folder, at all of an npz or a csv.

    Args:
        images: A folder of pictures, an npz, a csv, or the name of a data set, which is not
            fetched.
        given: Keys of ``[data]`` that are decided already -> values.
        data_dir: The data folder.
        study_folder: Where the study file will be.
        progress: Called with lines of text for the user.

    Raises:
        DataError: The images are not there or cannot be read; or they can be read in two ways, and
            ``given`` does not say in which.
        SpecError: A value in ``given`` is wrong.
    """
    _checked({"name": "house-numbers", **given})
    try:
        found = _look(images, given, data_dir, study_folder, progress)
    except DataError as e:
        if not any("under [data]" in line for line in e.args):
            raise
        ways = (f"--set data.{k}={v}" for k, v in _WAY_OUT.findall(" ".join(e.args)))
        raise DataError(*e.args, f"  here: {' or '.join(dict.fromkeys(ways))}") from e
    keys: dict[str, Any] = {**found.keys, **given}
    keys["validation"] = given.get("validation", 0.1 if found.train >= FEW else 0.2)
    reasons = {"name": _names(found.keys["name"]), **found.reasons}
    reasons["validation"] = "share held out, whose PSNR ranks the trials"
    if "path" in keys:
        reasons["path"] = "looked for where you type, in --data-dir, beside this file"
    if found.train > MANY and "train_images" not in given:
        keys["train_images"] = ENOUGH
        reasons["train_images"] = (
            f"of {found.train:,}, to search faster; train --train-images all takes all"
        )
    spec = _checked({**keys, **given})
    absolute_paths(spec, data_dir=data_dir, study_folder=study_folder)
    train, validation, test = split_sizes(spec, found.train, found.test)
    shape = found.shape or (
        (1 if spec.grayscale else 3) + spec.alpha,
        *spec.height_and_width,
    )
    share = " (a tenth of all)" if found.test is None else ""
    splits = (
        f"{train:,} for training, {validation:,} for validation and {test:,}{share} for the test"
    )
    return Survey(spec, keys, reasons, shape, train, validation, test, found.text, splits)


def _checked(keys: Mapping[str, Any]) -> DataSpec:
    return spec_from_document({"data": dict(keys)}, source="--set").data


def _look(
    images: str,
    given: Mapping[str, Any],
    data_dir: Path,
    study_folder: Path | None,
    progress: ProgressCallback,
) -> _Found:
    if images in SOURCES_WITHOUT_PATH:
        train, test, shape = _KNOWN[images]
        if images == "svhn" and given.get("extra"):
            train += 531_131
        text = f"{images}, {train + test:,} images of {_shape_text(shape)}"
        return _Found({"name": images}, {}, train, test, shape, text)
    places = possible_places(images, data_dir, study_folder)
    if not any(place.exists() for place in places) and "://" not in images:
        here, *others = places
        tried = f"neither {here} nor {others[0]}" if others else f"no {here}"
        raise DataError(
            f"--images: {images!r} was not found: there is {tried}",
            "  Give the path of a folder of pictures, an npz or a csv, or the name of a data set: "
            f"{nearest(images, SOURCES_WITHOUT_PATH)}",
        )
    place = find_data_file(images, data_dir=data_dir, key="--images", study_folder=study_folder)
    if place.is_dir():
        return _look_into(images, place, given, data_dir, progress)
    return _look_at_file(images, place, given, data_dir, progress)


def _look_into(
    images: str,
    folder: Path,
    given: Mapping[str, Any],
    data_dir: Path,
    progress: ProgressCallback,
) -> _Found:
    path = str(Path(images))
    try:
        p = survey_pictures(path, folder, given, data_dir=data_dir, progress=progress)
    except DataError as e:
        if home := _home_of_mnist(folder):
            raise DataError(*e.args, f"  {home}") from e
        raise
    return _Found(p.keys, p.reasons, p.train, p.test, None, p.text)


def _look_at_file(
    images: str,
    file: Path,
    given: Mapping[str, Any],
    data_dir: Path,
    progress: ProgressCallback,
) -> _Found:
    keys: dict[str, Any] = {"name": _kind(file), "path": str(Path(images))}
    reasons: dict[str, str] = {}
    load = load_npz if keys["name"] == "npz" else load_csv
    if load is load_npz:
        values = look_at_values(file)
        if values.white is not None:
            keys["white"] = values.white
            reasons["white"] = f"{values.text}: the value of white"
        if values.is_deep:
            keys["bits"] = 16
            reasons["bits"] = f"{values.text}: more than 8 bits a value"
    notes: list[str] = []
    spec = _checked({**keys, **given, "path": str(file)})
    raw: RawImages = load(spec, data_dir, 0, notes.append)
    if raw.doubts:
        raise DataError(*raw.doubts)
    for note in notes:
        progress(note)
    test = None if raw.test is None else len(raw.test)
    channels, height, width = raw.train.shape[1:]
    shape = (channels, height, width)
    text = f"{len(raw.train) + (test or 0):,} images of {_shape_text(shape)}"
    return _Found(keys, reasons, len(raw.train), test, shape, text)


def _kind(path: Path) -> str:
    """Returns the source that reads a file.

    Raises:
        DataError: None does.
    """
    with disk_errors("cannot read", path), path.open("rb") as file:
        start = file.read(1024)
    suffixes = {s.lower() for s in path.suffixes}
    if suffixes & {".npz", ".npy"}:
        return "npz"
    if start.startswith(_IDX_MAGIC) or any(name in path.name for name in CHECKSUMS):
        raise DataError(
            f"{path}: is a file of MNIST's format; MNIST is read by its name (--images mnist), "
            f"from DATA-DIR/{FOLDER}; save other images of this format as an npz, with "
            "numpy.savez(FILE, images=array)"
        )
    if suffixes & {".csv", ".tsv", ".txt"}:
        return "csv"
    if path.suffix.lower() in SUFFIX_FORMATS:
        raise DataError(f"{path}: is one picture; name the folder of the pictures")
    if start.startswith(b"PK\x03\x04"):
        return "npz"
    with suppress(UnicodeDecodeError):
        if start.decode() and "\0" not in start.decode():
            return "csv"
    raise DataError(
        f"{path}: is neither an npz nor a csv; images are read from these, and from folders of "
        "pictures"
    )


def _home_of_mnist(folder: Path) -> str:
    """Returns how to name MNIST if a folder has its own files; an empty text if it has not."""
    names = [f"{name}{suffix}" for name in CHECKSUMS for suffix in ("", ".gz")]
    inner = (folder, folder / "raw", folder / FOLDER)
    home = next((f for f in inner if any((f / name).is_file() for name in names)), None)
    if home is None:
        return ""
    parent = home.parents[1]
    if home == parent / FOLDER:
        return f"these are MNIST's own files: --images mnist --data-dir {parent}"
    return f"these are MNIST's own files: move them to data/{FOLDER}, then --images mnist"


def _names(name: str) -> str:
    return {
        "folder": "a tree of picture files",
        "npz": "arrays of numpy: x_train and x_test, or images",
        "csv": "a row an image",
    }.get(name, "drawn from the seed" if name == "house-numbers" else "fetched to --data-dir")


def _shape_text(shape: Shape) -> str:
    channels, height, width = shape
    kind = {1: "grey", 3: "in colour"}.get(channels, f"with {channels} channels")
    return f"{width}x{height} pixels, {kind}"
