"""A user's images: npz files and folders of PNG and JPEG, in and out, unchanged in size."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from searchae.bundle.config import BundleConfig
from searchae.bundle.model import BATCH
from searchae.data import as_images
from searchae.errors import BundleError, DataError
from searchae.files import atomic_file
from searchae.formatting import format_count

Images = npt.NDArray[np.uint8]
_NPZ = ".npz"
_NAMED = ("images", "x_test", "x_train")
_SUFFIXES = {".png", ".jpg", ".jpeg"}
_NPZ_FAULTS = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError)
_IMAGE_FAULTS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Source:
    """A user's images, all of the size that a bundle takes.

    Attributes:
        count: How many.
        names: Their files below the folder, with ``/``; empty for an npz.
        batches: uint8 (B, C, H, W), in order; reads as it goes.
    """

    count: int
    names: tuple[str, ...]
    batches: Iterator[Images]


def open_images(path: Path, config: BundleConfig, *, array: str = "") -> Source:
    """Opens an npz or a folder of PNG and JPEG files.

    Args:
        path: ``.npz`` or a folder.
        config: The bundle that they are for.
        array: Which array of an npz; unset: ``images``, or the only one of ``x_train``, ``x_test``.

    Raises:
        DataError: There is nothing of the kind, or it is damaged.
        BundleError: The images are of another size than the bundle takes.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if array:
            raise DataError(f"--array {array}: {path} is a folder; only an npz has arrays")
        files = _files(path)
        names = tuple(f.relative_to(path).as_posix() for f in files)
        return Source(len(files), names, _read_files(files, config))
    if path.suffix != _NPZ:
        raise DataError(f"{path}: give an .npz file, or a folder of PNG or JPEG images")
    images = _from_npz(path, array)
    _check_size(images.shape[1:], config, where=str(path))
    return Source(len(images), (), iter(_parts(images)))


def read_latents(path: Path) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Reads what ``encode`` wrote: latents (N, latent_size), and file names if there are any.

    Raises:
        DataError: The file is missing or damaged, or has no ``latents``.
    """
    with _npz(path) as archive:
        if "latents" not in archive:
            found = ", ".join(archive) or "nothing"
            raise DataError(f"{path}: needs an array latents (N, latent size), but holds {found}")
        latents = _array(archive, "latents", path)
        files = _array(archive, "files", path) if "files" in archive else np.empty(0, str)
    names = tuple(str(n) for n in files.ravel())
    if names and len(names) != len(latents):
        raise DataError(f"{path}: {len(names)} files, but {len(latents)} latents")
    return latents, names


def write_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Writes an npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its own keywords come last


def check_output(path: Path, *, npz_only: bool = False) -> None:
    """Makes sure, before any work is done, that something can be written there.

    Raises:
        DataError: It is of another kind, or a folder that holds something.
    """
    if path.suffix == _NPZ:
        if path.is_dir():
            raise DataError(f"{path}: is a folder")
    elif npz_only:
        raise DataError(f"{path}: latents go into an .npz file, such as {path.name}.npz")
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: holds something already; give a new folder, or an .npz file")


def write_images(path: Path, batches: Iterator[Images], names: Sequence[str]) -> None:
    """Writes images as ``images`` of an npz (N, H, W, C), or as PNG files of a folder.

    Args:
        path: ``.npz``, or a new folder.
        batches: uint8 (B, C, H, W).
        names: The files that they came from; numbers are used where there are none.
    """
    last = (part.transpose(0, 2, 3, 1) for part in batches)
    if path.suffix == _NPZ:
        extra = {"files": np.array(names)} if names else {}
        write_arrays(path, images=np.concatenate(list(last)), **extra)
        return
    path.mkdir(parents=True, exist_ok=True)
    targets = _targets(names)
    for i, pixels in enumerate(image for part in last for image in part):
        target = path / (targets[i] if targets else f"{i:06d}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(target)


def as_uint8(images: npt.NDArray[np.float32]) -> Images:
    """Float images in [0, 1], any shape, rounded to 256 levels."""
    levels: Images = np.rint(images * 255).astype(np.uint8)
    return levels


def _targets(names: Sequence[str]) -> list[str]:
    """File names to write: never outside the folder, never twice the same."""
    paths = [PurePosixPath(name) for name in names]
    if any(p.is_absolute() or ".." in p.parts or "\0" in str(p) or not p.name for p in paths):
        raise DataError(
            "the latents' files lead out of the folder; leave files out, and images are numbered"
        )
    targets = [str(p) if p.suffix.lower() == ".png" else f"{p}.png" for p in paths]
    if len(set(targets)) < len(targets):
        raise DataError("two of the latents' files have one name; leave files out")
    return targets


def _npz(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except _NPZ_FAULTS as e:
        raise DataError(f"{path}: is damaged, or not an npz ({e})") from e
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: holds one bare array; save it with numpy.savez under a name")
    return loaded


def _array(archive: Any, name: str, path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = archive[name]
    except _NPZ_FAULTS as e:
        raise DataError(f"{path}: {name} cannot be read ({e})") from e
    return found


def _from_npz(path: Path, array: str) -> Images:
    with _npz(path) as archive:
        found = [n for n in _NAMED if n in archive]
        if not array:
            if "images" in found or len(found) == 1:
                array = found[0]
            elif found:
                raise DataError(f"{path}: holds {' and '.join(found)}: say which with --array")
        if array not in archive:
            raise DataError(
                f"{path}: has no array {array or 'images'}; it holds "
                f"{', '.join(archive) or 'nothing'}: name one with --array"
            )
        return as_images(_array(archive, array, path), where=f"{path}: {array}")


def _files(folder: Path) -> list[Path]:
    found = [
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in _SUFFIXES
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder}: there is no PNG or JPEG image in it, nor below it")
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def _read_files(files: Sequence[Path], config: BundleConfig) -> Iterator[Images]:
    for start in range(0, len(files), BATCH):
        yield np.stack([_read_file(f, config) for f in files[start : start + BATCH]])


def _read_file(path: Path, config: BundleConfig) -> Images:
    """One file, uint8 (C, H, W); colours as the training read them, the size as it is."""
    channels = config.image_shape[0]
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except _IMAGE_FAULTS as e:
        raise DataError(f"{path}: cannot be read as an image: {e}; mend it or remove it") from e
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling
        levels = np.rint(np.asarray(image, np.float64) / 257).clip(0, 255)
        image = Image.fromarray(levels.astype(np.uint8))
    colour = image.mode not in ("1", "L", "LA") and not config.data.grayscale
    refused = colour and channels == 1
    if refused and (image.height, image.width) != config.image_shape[1:]:
        channels = 3  # for the message
    _check_size((channels, image.height, image.width), config, where=str(path))
    if refused:
        raise BundleError(
            f"{path}: is in colour ({image.mode}), but this bundle's net takes grey images: "
            "convert it to grey first"
        )
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _check_size(shape: Sequence[int], config: BundleConfig, *, where: str) -> None:
    if tuple(shape) == config.image_shape:
        return
    channels, height, width = config.image_shape
    raise BundleError(
        f"{where}: {_size(shape)}, but this bundle's net takes {_size(config.image_shape)}: resize "
        f"and convert the images first; Pillow's ImageOps.fit(image, ({width}, {height})) and "
        f"image.convert({'RGB' if channels == 3 else 'L'!r}) do it as the training's folder source"
    )


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels with {format_count(channels, 'channel')}"


def _parts(images: Images) -> list[Images]:
    return [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
