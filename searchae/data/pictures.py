"""Reading picture files as images of one size, with what was done to them."""

from __future__ import annotations

import struct
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from searchae.config import DataSpec, ProgressCallback
from searchae.data.large_images import new_images, release
from searchae.data.levels import DARK, doubt_of_range, to_levels
from searchae.data.other_formats import START_BYTES, other_format
from searchae.data.picture_files import NAMED_FORMATS, SUFFIX_FORMATS
from searchae.data.raw_images import Images, level_type, levels_of
from searchae.errors import DataError
from searchae.files import open_input
from searchae.formatting import format_count

MOST_PIXELS = 100_000_000
"""A picture with more pixels is refused before it is decoded."""

_ONE_BY_ONE_PIXELS = 16_000_000
"""Larger pictures are decoded one by one, so that they do not take the memory of many at once."""

_one_by_one = threading.Lock()
_CHUNK = 512
_MOST_FAULTS = 20
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)
_DEEP = "F"  # Pillow's mode of floats, which it can resize without loss
_WHITES = {"8-bit": 255.0, "16-bit": 65535.0, "float": 1.0}
Kind = Literal["8-bit", "16-bit", "16-bit colour", "float"]


@dataclass(frozen=True)
class Preparation:
    """How pictures become images.

    Attributes:
        size: Height and width in pixels.
        grayscale: Whether they become grey.
        fit: See ``DataSpec.fit``.
        alpha: Whether their transparency becomes a channel.
        background: The colour under what is transparent, and around what is padded.
        white: See ``DataSpec.white``.
        bits: See ``DataSpec.bits``.
    """

    size: tuple[int, int]
    grayscale: bool
    fit: Literal["crop", "pad", "stretch"] = "crop"
    alpha: bool = False
    background: Literal["white", "black"] = "white"
    white: float | None = None
    bits: Literal[8, 16] = 8

    @classmethod
    def of(cls, spec: DataSpec) -> Preparation:
        """Returns how the pictures of a ``folder`` source become images."""
        return cls(
            spec.height_and_width,
            grayscale=spec.grayscale,
            fit=spec.fit,
            alpha=spec.alpha,
            background=spec.background,
            white=spec.white,
            bits=spec.bits,
        )

    @property
    def mode(self) -> Literal["L", "LA", "RGB", "RGBA"]:
        """The images' mode in Pillow's words."""
        if self.grayscale:
            return "LA" if self.alpha else "L"
        return "RGBA" if self.alpha else "RGB"

    @property
    def colours(self) -> int:
        """The images' channels without that of transparency: 1 or 3."""
        return 1 if self.grayscale else 3

    @property
    def channels(self) -> int:
        """The images' channels, 1 to 4."""
        return len(self.mode)

    @property
    def text(self) -> str:
        """What is done to each picture, in words."""
        height, width = self.size
        shape = "the square" if height == width else "this shape"
        how = {
            "crop": f"resized and cut to {shape} in the middle",
            "pad": f"resized and padded with {'nothing' if self.alpha else self.background} to "
            f"{shape}",
            "stretch": f"stretched to {shape}",
        }[self.fit]
        grey, alpha = ", in grey" * self.grayscale, ", with transparency" * self.alpha
        return f"{how} ({width}x{height} pixels{grey}{alpha})"


@dataclass(frozen=True, eq=False)
class _Picture:
    """One picture: (C, H, W), what was done to it, and its brightest value."""

    pixels: Images
    done: frozenset[str]
    kind: Kind
    brightest: float


@dataclass(eq=False)
class Pictures:
    """Pictures that were read.

    Attributes:
        images: See ``raw_images.Images``.
        done: What was done -> to how many: ``resized``, ``enlarged`` among them, ``grey`` (their
            colour was removed), ``transparent``, ``frames``.
        brightest: The brightest value of each kind of files.
        faults: Files that cannot be read, with the reason.
    """

    images: Images
    done: Counter[str] = field(default_factory=Counter)
    brightest: dict[Kind, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def notes(self, how: Preparation) -> list[str]:
        """Returns what a user should know of the reading, a sentence each."""
        texts = {
            "transparent": f"transparent, shown on {how.background} (data.background)",
            "frames": "of several frames or pages, of which the first was taken",
            "enlarged": "smaller than that and enlarged",
        }
        return [
            f"{format_count(self.done[what], 'image')} {'is' if self.done[what] == 1 else 'are'} "
            f"{text}"
            for what, text in texts.items()
            if self.done[what]
        ]

    def advice(self, how: Preparation) -> list[str]:
        """Returns which keys of a study file would suit the pictures better, a sentence each."""
        found = []
        if self.done["is grey"] == len(self.images) and not how.grayscale:
            found.append("all images are grey: grayscale = true under [data] takes one channel")
        if how.alpha and not self.done["has alpha"]:
            found.append(
                "no image is transparent: alpha = true only adds a channel without content"
            )
        if count := self.done["rounded"]:
            images = format_count(count, "image")
            found.append(f"{images} of more than 8 bits rounded to 8: bits = 16 keeps them")
        return found

    def doubts(self, how: Preparation, *, where: str, in_study: bool = True) -> list[str]:
        """Returns doubts about which value is white; see ``RawImages`` and ``doubt_of_range``."""
        if how.white is not None:
            return []
        found = [
            doubt_of_range(value, white, where=f"{where}: its {kind} files", in_study=in_study)
            for kind, value in self.brightest.items()
            if (white := _WHITES.get(kind))
        ]
        upper_bits = self.brightest.get("16-bit colour", 255.0)
        if upper_bits <= DARK * 255:
            found.append(
                f"{where}: its 16-bit colour files, whose upper 8 bits are read: no value exceeds "
                f"{upper_bits:g} of 255: dark images. If they hold fewer bits than 16, convert "
                "them to 8 bits; if they are that dark, write white = 65535 under [data]"
            )
        return [doubt for doubt in found if doubt]


def read_pictures(
    files: Sequence[Path],
    how: Preparation,
    *,
    where: str,
    progress: ProgressCallback,
    scratch: Path | None = None,
) -> Pictures:
    """Reads pictures; those that cannot be read are listed in ``faults``.

    Each is rotated according to its EXIF orientation, put on the background unless its
    transparency is kept, converted to RGB or grey, and brought to the size: see ``prepare``.

    Args:
        files: The files.
        how: How to prepare them.
        where: Where they come from; messages begin with it.
        progress: Called from time to time.
        scratch: A folder for images that are too large for memory; see ``new_images``.

    Raises:
        DataError: They would take too much memory.
    """
    shape = (len(files), how.channels, *how.size)
    what = f"{where}: {len(files):,} images"
    found = Pictures(new_images(shape, level_type(how.bits), folder=scratch, what=what))
    one = partial(_read_or_fault, how=how)
    with _quiet(), ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _CHUNK):
            chunk: Iterable[_Picture | str] = pool.map(one, files[start : start + _CHUNK])
            for i, picture in enumerate(chunk, start):
                if isinstance(picture, str):
                    found.faults.append(picture)
                    continue
                found.images[i] = picture.pixels
                found.done.update(picture.done)
                brightest = found.brightest.get(picture.kind, 0.0)
                found.brightest[picture.kind] = max(brightest, picture.brightest)
            release(found.images)
            if start and start % (20 * _CHUNK) == 0:
                progress(f"{where}: {start:,} of {len(files):,} images read")
    return found


def require_readable(*found: Pictures) -> None:
    """Refuses pictures of which some could not be read.

    Raises:
        DataError: The message lists them all, or the first 20.
    """
    faults = [fault for pictures in found for fault in pictures.faults]
    if not faults:
        return
    if len(faults) == 1:
        raise DataError(faults[0])
    total = sum(len(pictures.images) for pictures in found)
    lines = [f"  {fault}" for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        lines.append(f"  and {len(faults) - _MOST_FAULTS:,} more")
    raise DataError(f"{len(faults):,} of {total:,} files cannot be read:", *lines)


def prepare(image: Image.Image, how: Preparation) -> Images:
    """Brings an image to the size, colours and bits that are wanted, on the background.

    ``crop`` resizes it so that it just covers the size and cuts it to the middle; ``pad`` resizes
    it so that it just fits in; ``stretch`` changes its proportions. All interpolate bicubically.

    Args:
        image: With 8 bits; or grey of mode F, from 0 to 65535.
        how: What is wanted.

    Returns:
        (C, H, W), uint8 or uint16.
    """
    is_deep = image.mode == _DEEP
    if not how.alpha and _is_transparent(image):
        image = _on_background(image, how.background)
    if not is_deep and image.mode != how.mode:
        image = image.convert(how.mode)
    if is_deep:
        channels = [_sixteen_bits(image, how)] * how.colours
        if how.alpha:
            channels.append(_sixteen_bits(Image.new(_DEEP, image.size, _WHITES["16-bit"]), how))
        return np.stack(channels)
    pixels = np.asarray(_fitted(image, how), np.uint8)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return pixels if how.bits == 8 else pixels * np.uint16(257)


def _fitted(image: Image.Image, how: Preparation) -> Image.Image:
    height, width = how.size
    size, method = (width, height), Image.Resampling.BICUBIC
    match how.fit:
        case "crop":
            return ImageOps.fit(image, size, method=method)
        case "pad":
            return _padded(image, size, None if how.alpha else how.background)
        case "stretch":
            return image.resize(size, method)


def _sixteen_bits(image: Image.Image, how: Preparation) -> Images:
    """Returns an image of mode F, from 0 to 65535, in its size as uint16 (H, W)."""
    values: npt.NDArray[np.float32] = np.asarray(_fitted(image, how), np.float32)
    levels: Images = np.rint(values.clip(0, _WHITES["16-bit"])).astype(np.uint16)
    return levels


def _padded(image: Image.Image, size: tuple[int, int], colour: str | None) -> Image.Image:
    """Returns an image resized to fit in, on a ground of one colour or, for None, transparent."""
    fitted = ImageOps.contain(image, size, method=Image.Resampling.BICUBIC)
    if image.mode == _DEEP:
        ground = Image.new(image.mode, size, _WHITES["16-bit"] if colour == "white" else 0)
    else:
        ground = Image.new(image.mode, size, 0 if colour is None else colour)
    ground.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
    return ground


def picture_size(path: Path) -> tuple[int, int]:
    """Returns a picture's height and width in pixels, as it is shown; its pixels are not decoded.

    Args:
        path: A picture that can be read.
    """
    with _quiet(), Image.open(path, formats=_formats(path)) as opened:
        width, height = opened.size
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            # Newer versions of Pillow have turned the size of these files already.
            tags = opened.tag_v2
            width, height = tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
        is_turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (width, height) if is_turned else (height, width)


def _what_else(path: Path) -> str:
    try:
        with open_input(path) as file:
            return other_format(file.read(START_BYTES))
    except OSError:
        return ""


def _read_or_fault(path: Path, *, how: Preparation) -> _Picture | str:
    try:
        return _read(path, how)
    except DataError as e:
        return str(e)
    except Image.DecompressionBombError:
        return _too_large(path, "far")
    except UnidentifiedImageError:
        if what := _what_else(path):
            return f"{path}: is {what}"
        reason = f"it is damaged, or not {NAMED_FORMATS}"
    except MemoryError:
        reason = "there is not enough memory to decode it"
    except _FAULTS as e:
        reason = getattr(e, "strerror", None) or str(e) or type(e).__name__
    size = f" ({format_count(path.stat().st_size, 'byte')})" if path.exists() else ""
    return f"{path}: cannot be read as an image{size}: {reason}; mend it or remove it"


def _read(path: Path, how: Preparation) -> _Picture:
    height, width = how.size
    with Image.open(path, formats=_formats(path)) as opened:
        shape = opened.size
        done = {"frames"} if _has_frames(opened) else set()
        is_deep = _is_deep_colour(opened)
        # Lets the JPEG decoder reduce the image, which is faster than resizing it.
        opened.draft(None, (2 * width, 2 * height))
        count = opened.width * opened.height
        if count > MOST_PIXELS:
            raise DataError(_too_large(path, f"{opened.width}x{opened.height} pixels,"))
        with _one_by_one if count > _ONE_BY_ONE_PIXELS else nullcontext():
            before = opened.size
            ImageOps.exif_transpose(opened, in_place=True)
            if opened.size != before:
                shape = shape[::-1]
            image, kind, brightest = _rescaled(opened, how, is_deep=is_deep, where=str(path))
            if _is_transparent(image):
                done.add("has alpha" if how.alpha else "transparent")
            is_grey = image.mode in ("1", "L", "LA", _DEEP)
            if is_grey:
                done.add("is grey")
            if kind in ("16-bit", "float") and how.bits == 8:
                done.add("rounded")
            if how.grayscale and not is_grey:
                done.add("grey")
            pixels = prepare(image, how)
    if shape != (width, height):
        done.add("resized")
        smaller = (shape[0] < width, shape[1] < height)
        if any(smaller) if how.fit == "crop" else all(smaller):
            done.add("enlarged")
    if kind in ("8-bit", "16-bit colour"):
        brightest = float(pixels[: how.colours].max()) * 255 / levels_of(pixels)
    return _Picture(pixels, frozenset(done), kind, brightest)


def _formats(path: Path) -> tuple[str, ...]:
    """Returns the formats to try: TGA, which has no mark of its own, under its suffixes only."""
    Image.init()
    named = SUFFIX_FORMATS.get(path.suffix.lower())
    if named == "TGA":
        return ("TGA",)
    known = {*SUFFIX_FORMATS.values(), "DIB"} - {"TGA"}
    return tuple(sorted(known & set(Image.OPEN)))  # AVIF and QOI need a newer Pillow


def _has_frames(opened: Image.Image) -> bool:
    # The second picture of a camera's MPO file is a preview.
    return opened.format not in ("JPEG", "MPO") and bool(getattr(opened, "is_animated", False))


def _is_deep_colour(opened: Image.Image) -> bool:
    """Whether Pillow will read only the upper 8 of the 16 bits of each value."""
    deep = any(";16" in str(tile.args) for tile in getattr(opened, "tile", ()))
    return deep and opened.mode[0] not in "IF"


def _rescaled(
    image: Image.Image, how: Preparation, *, is_deep: bool, where: str
) -> tuple[Image.Image, Kind, float]:
    """Scales values to levels; Pillow's own conversion of 16 bits and floats would clip them.

    Returns:
        The image as ``prepare`` takes it, the kind that it was, and for kinds that are not read as
        8 bits the brightest value.
    """
    if image.mode.startswith("I") or image.mode == "F":
        kind: Kind = "float" if image.mode == "F" else "16-bit"
        values = np.asarray(image)
        brightest = float(values.max())
        if how.white is None and np.isfinite(brightest):
            values = values.clip(max=_WHITES[kind])  # what is above is a doubt, for all together
        levels = to_levels(values, how.white or _WHITES[kind], where=where, bits=how.bits)
        if how.bits == 16:
            return Image.fromarray(levels.astype(np.float32)), kind, brightest
        return Image.fromarray(levels), kind, brightest
    if is_deep:
        if how.white is not None and how.white < _WHITES["16-bit"]:
            raise DataError(
                f"{where}: has 16 bits in colour, of which only the upper 8 can be read: white = "
                f"{how.white:g} cannot be applied to it; convert it to 8 bits"
            )
        return image, "16-bit colour", 0.0
    if how.white is None or how.white >= _WHITES["8-bit"] or image.mode == "1":
        return image, "8-bit", 0.0
    values = np.asarray(image.convert("L" if image.mode in ("L", "LA") else "RGB"))
    scaled = Image.fromarray(to_levels(values, how.white, where=where))
    if image.has_transparency_data:
        scaled.putalpha(image.convert("RGBA").getchannel("A"))
    return scaled, "8-bit", 0.0


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    low = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(low, int | float) and low < 255


def _on_background(image: Image.Image, background: str) -> Image.Image:
    image = image.convert("RGBA")
    under = Image.new("RGB", image.size, background)
    under.paste(image, mask=image.getchannel("A"))
    return under


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path}: has {size} more than the {MOST_PIXELS // 1_000_000} megapixels that are read: "
        "make it smaller"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses Pillow's warnings: they name no file, but a line of Pillow's.

    What is too large is refused here, and of a damaged file the pixels decide.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
