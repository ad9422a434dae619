"""Reading and writing users' images: npz files and folders of pictures.

They are prepared as the images of the training were: resized, cut and converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from searchae.bundle.config import BundleConfig
from searchae.config import ProgressCallback
from searchae.data import (
    Preparation,
    as_images,
    find_pictures,
    level_type,
    open_npz,
    prepare,
    read_pictures,
    require_readable,
)
from searchae.errors import BundleError, DataError
from searchae.files import output_file
from searchae.formatting import format_count
from searchae.training import EVALUATION_BATCH

ImageArray = npt.NDArray[Any]
"""uint8, or uint16 of a net whose images keep 16 bits."""

_NPZ = ".npz"
_DEFAULT_ARRAYS = ("images", "x_test", "x_train")


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images of the size that a bundle's net takes.

    Attributes:
        count: How many there are.
        names: File paths relative to the folder, with ``/``; empty for an npz.
        batches: (B, C, H, W), in order.
    """

    count: int
    names: tuple[str, ...]
    batches: Iterator[ImageArray]


def open_images(
    path: Path, config: BundleConfig, *, array: str = "", progress: ProgressCallback
) -> ImageSource:
    """Reads an npz or a folder of pictures, and prepares them as the bundle's net needs them.

    Args:
        path: An ``.npz`` file or a folder.
        config: Configuration of the bundle that the images are for.
        array: Name of the array in an npz; empty for ``images``, or for ``x_train`` or ``x_test``
            if the file has only one of them.
        progress: Called with what was done to the images.

    Raises:
        DataError: The file or folder is missing or damaged, has no images, or takes too much
            memory.
        BundleError: The images of an npz have another size than the net takes, and the training
            says nothing of how to prepare them.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if array:
            raise DataError(f"--array {array}: {path} is a folder; only an npz has arrays")
        images, names = _images_of_folder(path, config, progress)
        return ImageSource(len(images), names, iter(_batches(images)))
    if path.suffix != _NPZ:
        raise DataError(f"{path}: give an .npz file, or a folder of images")
    images = _images_of_npz(path, array, config, progress)
    if images.shape[1:] != config.image_shape:
        images = _prepared(images, config, where=str(path), progress=progress)
    return ImageSource(len(images), (), iter(_batches(images)))


def read_latents(path: Path) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Reads latents that ``searchae encode`` wrote.

    Returns:
        The latents (N, latent_size), and the images' file names; empty if there are none.

    Raises:
        DataError: The file is missing or damaged, or has no ``latents``.
    """
    with open_npz(path) as archive:
        if "latents" not in archive.names:
            found = ", ".join(archive.names) or "nothing"
            raise DataError(f"{path}: needs an array latents (N, latent size), but holds {found}")
        latents = archive.read("latents")
        files = archive.read("files") if "files" in archive.names else np.empty(0, str)
    names = tuple(str(n) for n in files.ravel())
    if names and len(names) != len(latents):
        raise DataError(f"{path}: {len(names)} files, but {len(latents)} latents")
    return latents, names


def write_npz(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Writes arrays to a compressed npz file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with output_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs take other keywords


def check_output_path(
    path: Path, *, given: Path, npz_only: bool = False, overwrite: bool = False
) -> None:
    """Checks that images or latents can be written to a path.

    Args:
        path: An ``.npz`` file, or a new folder for images.
        given: The input.
        npz_only: Whether only an ``.npz`` file is accepted, as for latents.
        overwrite: Whether a file that exists is replaced.

    Raises:
        DataError: The path has another type, is a folder that is not empty, is the input, or
            exists and is not to be replaced.
    """
    if path.suffix == _NPZ:
        if path.is_dir():
            raise DataError(f"{path}: is a folder")
        if path.exists() and given.exists() and path.samefile(given):
            raise DataError(f"{path}: is the input; give another file for the output")
        check_not_there(path, overwrite=overwrite)
    elif npz_only:
        raise DataError(f"{path}: latents go into an .npz file, such as {path.name}.npz")
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: holds something already; give a new folder, or an .npz file")


def check_not_there(path: Path, *, overwrite: bool) -> None:
    """Checks that no file with content is lost by writing to a path.

    Raises:
        DataError: There is one, and it is not to be replaced.
    """
    if path.is_file() and path.stat().st_size and not overwrite:
        raise DataError(f"{path}: exists already; --overwrite replaces it")


def write_images(path: Path, batches: Iterator[ImageArray], names: Sequence[str]) -> None:
    """Writes images to an npz, as the array ``images`` (N, H, W, C), or as PNG files in a folder.

    Args:
        path: An ``.npz`` file, or a new folder.
        batches: (B, C, H, W). Values of 16 bits become 8 bits in PNG files of more channels than
            one, which cannot hold them.
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
    for i, image in enumerate(image for part in channels_last for image in part):
        target = path / (targets[i] if targets else f"{i:06d}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_png_pixels(image)).save(target)


def _png_pixels(image: ImageArray) -> ImageArray:
    """Returns an image (H, W, C) as Pillow writes it."""
    if image.shape[-1] == 1:
        return image[..., 0]
    return image if image.dtype == np.uint8 else np.rint(image / 257).astype(np.uint8)


def as_levels(images: npt.NDArray[np.float32], config: BundleConfig) -> ImageArray:
    """Rounds float images in [0, 1] of any shape to the levels of a bundle's images."""
    dtype = level_type(config.data.value_bits)
    levels: ImageArray = np.rint(images * np.iinfo(dtype).max).astype(dtype)
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


def _preparation(config: BundleConfig) -> Preparation:
    """Returns how pictures become images of the net: as the training's, where it had pictures."""
    channels, height, width = config.image_shape
    if config.data.name == "folder":
        return Preparation.of(config.data)
    return Preparation(
        (height, width),
        grayscale=channels <= 2,
        alpha=channels in (2, 4),
        bits=config.data.value_bits,
    )


def _images_of_folder(
    folder: Path, config: BundleConfig, progress: ProgressCallback
) -> tuple[ImageArray, tuple[str, ...]]:
    found = find_pictures(folder)
    how = _preparation(config)
    pictures = read_pictures(found.paths, how, where=str(folder), progress=progress)
    require_readable(pictures)
    if found.left_out:
        progress(f"{folder}: left out: {found.left_out_text}")
    for note in pictures.notes(how):
        progress(f"{folder}: {note}")
    for doubt in pictures.doubts(how, where=str(folder), in_study=False):
        progress(f"warning: {doubt}")
    changed = pictures.done["resized"] or pictures.done["grey"]
    if changed:
        _say_prepared(len(pictures.images), how, config, where=str(folder), progress=progress)
    names = tuple(p.relative_to(folder).as_posix() for p in found.paths)
    return pictures.images, names


def _images_of_npz(
    path: Path, array: str, config: BundleConfig, progress: ProgressCallback
) -> ImageArray:
    with open_npz(path) as archive:
        found = [n for n in _DEFAULT_ARRAYS if n in archive.names]
        if not array:
            if "images" in found or len(found) == 1:
                array = found[0]
            elif found:
                raise DataError(f"{path}: holds {' and '.join(found)}: say which with --array")
        if array not in archive.names:
            raise DataError(
                f"{path}: has no array {array or 'images'}; it holds "
                f"{', '.join(archive.names) or 'nothing'}: name one with --array"
            )
        white = config.data.white if config.data.name == "npz" else None
        return as_images(
            archive.read(array),
            where=f"{path}: {array}",
            white=white,
            size=config.image_shape[1:],
            bits=config.data.value_bits,
            warn=progress,
        )


def _prepared(
    images: ImageArray, config: BundleConfig, *, where: str, progress: ProgressCallback
) -> ImageArray:
    """Prepares images of another size or other colours as the pictures of the training."""
    if config.data.name != "folder":
        raise BundleError(
            f"{where}: {_size_text(images.shape[1:])}, but this bundle's net takes "
            f"{_size_text(config.image_shape)}, and its training says nothing of how to prepare "
            "them: resize and convert them first, or give a folder of images"
        )
    how = _preparation(config)
    _say_prepared(len(images), how, config, where=where, progress=progress)
    ready = np.empty((len(images), *config.image_shape), images.dtype)
    for i, image in enumerate(images):
        ready[i] = prepare(_as_picture(image), how)
    return ready


def _as_picture(image: ImageArray) -> Image.Image:
    """Returns an image (C, H, W) as ``prepare`` takes it; of 16 bits in colour the upper 8."""
    if len(image) == 1 and image.dtype != np.uint8:
        return Image.fromarray(image[0].astype(np.float32))
    return Image.fromarray(np.ascontiguousarray(_png_pixels(image.transpose(1, 2, 0))))


def _say_prepared(
    count: int, how: Preparation, config: BundleConfig, *, where: str, progress: ProgressCallback
) -> None:
    trained = (
        "as the training's images were"
        if config.data.name == "folder"
        else f"the training's images ({config.data.name}) were taken as they are"
    )
    progress(f"{where}: {format_count(count, 'image')}, each {how.text}; {trained}")


def _size_text(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels with {format_count(channels, 'channel')}"


def _batches(images: ImageArray) -> list[ImageArray]:
    return [images[i : i + EVALUATION_BATCH] for i in range(0, len(images), EVALUATION_BATCH)]
