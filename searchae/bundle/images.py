"""Reading and writing users' images: npz files and folders of PNG and JPEG files.

Images are never resized.
"""

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
from searchae.data import as_images
from searchae.errors import BundleError, DataError
from searchae.files import output_file
from searchae.formatting import format_count
from searchae.training import EVALUATION_BATCH

ImageArray = npt.NDArray[np.uint8]
_NPZ = ".npz"
_DEFAULT_ARRAYS = ("images", "x_test", "x_train")
_SUFFIXES = {".png", ".jpg", ".jpeg"}
_NPZ_ERRORS = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError)
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images of the size that a bundle's net takes.

    Attributes:
        count: How many there are.
        names: File paths relative to the folder, with ``/``; empty for an npz.
        batches: uint8 (B, C, H, W), in order; files are read one batch at a time.
    """

    count: int
    names: tuple[str, ...]
    batches: Iterator[ImageArray]


def open_images(path: Path, config: BundleConfig, *, array: str = "") -> ImageSource:
    """Opens an npz or a folder of PNG and JPEG files.

    Args:
        path: An ``.npz`` file or a folder.
        config: Configuration of the bundle that the images are for.
        array: Name of the array in an npz; empty for ``images``, or for ``x_train`` or ``x_test``
            if the file has only one of them.

    Raises:
        DataError: The file or folder is missing, damaged, or has no images.
        BundleError: The images have another size than the bundle's net takes.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if array:
            raise DataError(f"--array {array}: {path} is a folder; only an npz has arrays")
        files = _image_files(path)
        names = tuple(f.relative_to(path).as_posix() for f in files)
        return ImageSource(len(files), names, _read_files(files, config))
    if path.suffix != _NPZ:
        raise DataError(f"{path}: give an .npz file, or a folder of PNG or JPEG images")
    images = _images_of_npz(path, array)
    _check_size(images.shape[1:], config, where=str(path))
    return ImageSource(len(images), (), iter(_batches(images)))


def read_latents(path: Path) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Reads latents that ``searchae encode`` wrote.

    Returns:
        The latents (N, latent_size), and the images' file names; empty if there are none.

    Raises:
        DataError: The file is missing or damaged, or has no ``latents``.
    """
    with _open_npz(path) as archive:
        if "latents" not in archive:
            found = ", ".join(archive) or "nothing"
            raise DataError(f"{path}: needs an array latents (N, latent size), but holds {found}")
        latents = _read_array(archive, "latents", path)
        files = _read_array(archive, "files", path) if "files" in archive else np.empty(0, str)
    names = tuple(str(n) for n in files.ravel())
    if names and len(names) != len(latents):
        raise DataError(f"{path}: {len(names)} files, but {len(latents)} latents")
    return latents, names


def write_npz(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Writes arrays to a compressed npz file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with output_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs take other keywords


def check_output_path(path: Path, *, npz_only: bool = False) -> None:
    """Checks that images or latents can be written to a path.

    Args:
        path: An ``.npz`` file, or a new folder for images.
        npz_only: Whether only an ``.npz`` file is accepted, as for latents.

    Raises:
        DataError: The path has another type, or is a folder that is not empty.
    """
    if path.suffix == _NPZ:
        if path.is_dir():
            raise DataError(f"{path}: is a folder")
    elif npz_only:
        raise DataError(f"{path}: latents go into an .npz file, such as {path.name}.npz")
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: holds something already; give a new folder, or an .npz file")


def write_images(path: Path, batches: Iterator[ImageArray], names: Sequence[str]) -> None:
    """Writes images to an npz, as the array ``images`` (N, H, W, C), or as PNG files in a folder.

    Args:
        path: An ``.npz`` file, or a new folder.
        batches: uint8 (B, C, H, W).
        names: File names of the images; empty to number them.

    Raises:
        DataError: A file name leads out of the folder, or two are the same.
    """
    channels_last = (part.transpose(0, 2, 3, 1) for part in batches)
    if path.suffix == _NPZ:
        extra = {"files": np.array(names)} if names else {}
        write_npz(path, images=np.concatenate(list(channels_last)), **extra)
        return
    path.mkdir(parents=True, exist_ok=True)
    targets = _output_names(names)
    for i, pixels in enumerate(image for part in channels_last for image in part):
        target = path / (targets[i] if targets else f"{i:06d}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(target)


def as_uint8(images: npt.NDArray[np.float32]) -> ImageArray:
    """Rounds float images in [0, 1] to 256 levels; any shape."""
    levels: ImageArray = np.rint(images * 255).astype(np.uint8)
    return levels


def _output_names(names: Sequence[str]) -> list[str]:
    """Returns safe PNG file names: none leads out of the folder, and all differ."""
    paths = [PurePosixPath(name) for name in names]
    if any(p.is_absolute() or ".." in p.parts or "\0" in str(p) or not p.name for p in paths):
        raise DataError(
            "the latents' files lead out of the folder; leave files out, and images are numbered"
        )
    targets = [str(p) if p.suffix.lower() == ".png" else f"{p}.png" for p in paths]
    if len(set(targets)) < len(targets):
        raise DataError("two of the latents' files have one name; leave files out")
    return targets


def _open_npz(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except _NPZ_ERRORS as e:
        raise DataError(f"{path}: is damaged, or not an npz ({e})") from e
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: holds one bare array; save it with numpy.savez under a name")
    return loaded


def _read_array(archive: Any, name: str, path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = archive[name]
    except _NPZ_ERRORS as e:
        raise DataError(f"{path}: {name} cannot be read ({e})") from e
    return found


def _images_of_npz(path: Path, array: str) -> ImageArray:
    with _open_npz(path) as archive:
        found = [n for n in _DEFAULT_ARRAYS if n in archive]
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
        return as_images(_read_array(archive, array, path), where=f"{path}: {array}")


def _image_files(folder: Path) -> list[Path]:
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


def _read_files(files: Sequence[Path], config: BundleConfig) -> Iterator[ImageArray]:
    for start in range(0, len(files), EVALUATION_BATCH):
        yield np.stack([_read_file(f, config) for f in files[start : start + EVALUATION_BATCH]])


def _read_file(path: Path, config: BundleConfig) -> ImageArray:
    """Reads one file as uint8 (C, H, W), with colours converted as for training."""
    channels = config.image_shape[0]
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except _IMAGE_ERRORS as e:
        raise DataError(f"{path}: cannot be read as an image: {e}; mend it or remove it") from e
    if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow would clip instead of scale
        levels = np.rint(np.asarray(image, np.float64) / 257).clip(0, 255)
        image = Image.fromarray(levels.astype(np.uint8))
    colour = image.mode not in ("1", "L", "LA") and not config.data.grayscale
    refused = colour and channels == 1
    if refused and (image.height, image.width) != config.image_shape[1:]:
        channels = 3  # so that the size error below reports the file's channels
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
    mode = "RGB" if channels == 3 else "L"
    raise BundleError(
        f"{where}: {_size_text(shape)}, but this bundle's net takes "
        f"{_size_text(config.image_shape)}: resize and convert the images first; Pillow's "
        f"ImageOps.fit(image, ({width}, {height})) and image.convert({mode!r}) do it as the "
        "training's folder source"
    )


def _size_text(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels with {format_count(channels, 'channel')}"


def _batches(images: ImageArray) -> list[ImageArray]:
    return [images[i : i + EVALUATION_BATCH] for i in range(0, len(images), EVALUATION_BATCH)]
