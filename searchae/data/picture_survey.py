"""What pictures a folder holds, from a look at some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from searchae.config import ProgressCallback
from searchae.data.disk import find_data_file
from searchae.data.picture_files import find_pictures, train_and_test_folders
from searchae.data.pictures import Preparation, picture_size, read_pictures, require_readable
from searchae.errors import DataError
from searchae.formatting import format_count

MOST_LOOKED_AT = 200
"""Pictures of a folder that are looked at, evenly spaced in the order of their paths."""
LARGEST_SIDE = 64
"""Pixels: what is larger is made smaller. A net's step takes four times as long with twice the
side, and a search is many trainings."""
SMALLEST_SIDE = 4
_LIKE_SHARE, _LIKE = 0.9, 1.05
"""Pictures have one shape if this share of them has the usual one, up to this factor."""
_MOST_CUT = 0.3
"""The share of a usual picture that may be cut off to make it square; beyond, it is padded."""
_LITTLE = 0.02
_FEW = 0.25
"""The share of pictures that may have to be enlarged."""

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class PictureSurvey:
    """What a folder of pictures holds.

    Attributes:
        keys: Keys of ``[data]`` -> values that suit the pictures.
        reasons: The same keys -> why.
        train: Number of training pictures.
        test: Number of test pictures; None if they have no folder.
        text: What they are, in words.
    """

    keys: Mapping[str, Any]
    reasons: Mapping[str, str]
    train: int
    test: int | None
    text: str


def survey_pictures(
    path: str,
    place: Path,
    given: Mapping[str, Any],
    *,
    data_dir: Path,
    progress: ProgressCallback,
) -> PictureSurvey:
    """Looks at the pictures of a folder.

    Args:
        path: The folder as the user names it.
        place: The folder.
        given: Keys of ``[data]`` that are decided already -> values.
        data_dir: The data folder.
        progress: Called with a line of text for the user before the pictures are read.

    Raises:
        DataError: There is no picture, one of those that are looked at cannot be read, or they can
            be read in two ways and ``given`` does not say in which.
    """
    keys: dict[str, Any] = {"name": "folder", "path": path}
    reasons: dict[str, str] = {}
    test_path = given.get("test_path")
    if test_path is None and (parts := train_and_test_folders(place)):
        keys |= {"path": str(Path(path) / parts[0]), "test_path": str(Path(path) / parts[1])}
        reasons["test_path"] = "the folder beside it, which no search reads"
        place, test_place = (place / name for name in parts)
    elif test_path is not None:
        test_place = find_data_file(str(test_path), data_dir=data_dir, key="data.test_path")
    else:
        test_place = None
    train = find_pictures(place, without=test_place)
    test = find_pictures(test_place) if test_place else None
    files = [_evenly(part.paths) for part in (train, test) if part]
    looked_at, total = sum(map(len, files)), len(train.paths) + (len(test.paths) if test else 0)
    progress(f"looking at {_of(looked_at, total)} of {place if test is None else place.parent} ...")
    how = Preparation((32, 32), grayscale=False, white=given.get("white"))
    read = [
        read_pictures(part, how, where=str(where), progress=progress)
        for part, where in zip(files, (place, test_place), strict=False)
    ]
    require_readable(*read)
    if doubts := [
        d
        for p, where in zip(read, (place, test_place), strict=False)
        for d in p.doubts(how, where=str(where))
    ]:
        raise DataError(*doubts)
    counts = sum((p.done for p in read[1:]), read[0].done)
    sizes, *others = [[picture_size(p) for p in part] for part in files]
    size, why = choose_size(sizes)
    keys["image_size"] = given.get("image_size", _size(*size))
    sides = keys["image_size"] if isinstance(keys["image_size"], list) else [keys["image_size"]] * 2
    keys["fit"], reasons["fit"] = choose_fit(sizes, (sides[0], sides[1]))
    reasons["image_size"] = why if isinstance(keys["image_size"], int) else f"height, width; {why}"
    is_grey = counts["is grey"] == looked_at
    keys["grayscale"] = is_grey
    reasons["grayscale"] = "all are grey: one channel" if is_grey else "in colour: three channels"
    if counts["transparent"]:
        keys |= {"background": how.background, "alpha": False}
        reasons["background"] = f"{_of(counts['transparent'], looked_at)} are transparent: shown on"
        reasons["alpha"] = "true keeps the transparency, as a further channel"
    if counts["rounded"]:
        keys["bits"] = 16
        reasons["bits"] = f"{_of(counts['rounded'], looked_at)} have more than 8 bits"
    colour = "grey" if is_grey else "in colour"
    return PictureSurvey(
        keys=keys,
        reasons=reasons,
        train=len(train.paths),
        test=None if test is None else len(test.paths),
        text=f"{format_count(total, 'picture')} of {_sizes_text(sum(others, sizes))}, {colour}"
        + (f"; {looked_at} of them were looked at" if looked_at < total else ""),
    )


def choose_size(sizes: Sequence[Size]) -> tuple[Size, str]:
    """Chooses the size that pictures get: theirs, if they have one, but no more than 64 pixels.

    Args:
        sizes: The pictures' heights and widths; at least one.

    Returns:
        Height and width, and why.
    """
    first = sizes[0]
    if set(sizes) == {first} and min(first) >= SMALLEST_SIDE and max(first) <= LARGEST_SIDE:
        return first, "all pictures have this size"
    longer = sorted(max(size) for size in sizes)[int(_FEW * len(sizes))]
    side = _round_down(min(longer, LARGEST_SIDE))
    aspect = median(map(_aspect, sizes))
    near = [1 / _LIKE <= _aspect(size) / aspect <= _LIKE for size in sizes]
    size = (side, side)
    if sum(near) >= _LIKE_SHARE * len(sizes) and not 1 / _LIKE <= aspect <= _LIKE:
        shorter = _round_down(round(side * min(aspect, 1 / aspect)) + SMALLEST_SIDE)
        size = (shorter, side) if aspect > 1 else (side, shorter)
    return size, (
        "larger ones cost more: twice the side, four times as long"
        if longer > LARGEST_SIDE
        else "few pictures have to be enlarged to that"
    )


def choose_fit(sizes: Sequence[Size], wanted: Size) -> tuple[Literal["crop", "pad"], str]:
    """Chooses how pictures get a size.

    Args:
        sizes: The pictures' heights and widths; at least one.
        wanted: The height and width that they get.

    Returns:
        ``crop``, or ``pad`` where that would cut off much of a usual picture; and why.
    """
    ratios = (_aspect(size) / _aspect(wanted) for size in sizes)
    cut = median(1 - min(ratio, 1 / ratio) for ratio in ratios)
    if cut > _MOST_CUT:
        return "pad", f"crop would cut off {cut:.0%} of a usual one; or stretch"
    if cut < _LITTLE:
        return "crop", "cuts off little or nothing; or pad, stretch"
    return "crop", f"cuts off {cut:.0%} of a usual one; or pad, stretch"


def _aspect(size: Size) -> float:
    return size[1] / size[0]


def _size(height: int, width: int) -> int | list[int]:
    return height if height == width else [height, width]


def _round_down(side: int) -> int:
    """Returns a multiple of 8 pixels, or of 4 if it is small, which nets can halve."""
    step = 8 if side >= 16 else SMALLEST_SIDE
    return max(side // step * step, SMALLEST_SIDE)


def _sizes_text(sizes: Sequence[Size]) -> str:
    """Returns the sizes as ``48x32 pixels``, or ``24x24 to 640x480 pixels``, the width first.

    Where no picture is the smallest and none the largest both ways, as with some that are upright,
    it is ``480 to 640 pixels wide and 480 to 600 high``.
    """
    different = list(dict.fromkeys(sizes))
    if len(different) <= 2:
        return f"{' and '.join(f'{width}x{height}' for height, width in different)} pixels"
    heights, widths = ((min(sides), max(sides)) for sides in zip(*different, strict=True))
    ends = list(zip(heights, widths, strict=True))
    if all(end in different for end in ends):
        return f"{' to '.join(f'{width}x{height}' for height, width in ends)} pixels"
    return f"{widths[0]} to {widths[1]} pixels wide and {heights[0]} to {heights[1]} high"


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """Returns up to ``MOST_LOOKED_AT`` of some paths, evenly spaced."""
    count = min(len(paths), MOST_LOOKED_AT)
    return [paths[i * len(paths) // count] for i in range(count)]


def _of(count: int, total: int) -> str:
    pictures = format_count(total, "picture")
    return pictures if count == total else f"{count:,} of {pictures}"
