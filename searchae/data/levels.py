"""Pixel values of any type as the levels of the data sets, and doubts about their range."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchae.data.raw_images import Images, level_type
from searchae.errors import DataError

DARK = 1 / 2
"""Images whose brightest value is no more than this share of white may be meant otherwise: as 12 to
15 bits in a file of 16, as percent or 7 bits in bytes, or as values divided by 255 twice."""

_USUAL_WHITES = (1 / 255, 1, 3, 7, 15, 16, 31, 63, 100, 127, 255, 1023, 4095, 16383, 32767, 65535)
_NEAR = 1.1
ROUNDING = 1e-5
"""Share of white by which floats may be outside the range, as after resizing; they are clipped."""

_CHUNK = 4096


def to_levels(
    values: npt.NDArray[Any], white: float, *, where: str, bits: Literal[8, 16] = 8
) -> Images:
    """Converts pixel values to levels, rounded: 0 stays 0, ``white`` becomes the highest level.

    Args:
        values: Integers, floats or bools of any shape but ().
        white: The value of white, above 0.
        where: Where they come from; the message begins with it.
        bits: Bits of a level.

    Returns:
        uint8, or uint16 for 16 bits, of the same shape.

    Raises:
        DataError: A value is below 0, above white, NaN or infinite.
    """
    dtype = level_type(bits)
    highest = np.iinfo(dtype).max
    if values.size == 0:
        return np.zeros(values.shape, dtype)
    low, high = float(values.min()), float(values.max())
    margin = ROUNDING * white
    if not (low >= -margin and high <= white + margin):
        raise DataError(
            f"{where}: is {values.dtype} of shape {values.shape} with {_fault(low, high, white)}"
        )
    if values.dtype == dtype and white == highest:
        return values
    levels = np.empty(values.shape, dtype)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK].astype(np.float64)
        levels[start : start + _CHUNK] = np.rint(part.clip(0, white) * highest / white)
    return levels


def _fault(low: float, high: float, white: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "values that are NaN or infinite: leave these images out, or mend them"
    text = f"values from {low:g} to {high:g}, not from 0 to {white:g}: "
    if low < 0:
        return f"{text}scale them to 0 (black) to 1 (white), and save them again"
    if high <= _NEAR * white:  # as after resizing with a bicubic filter
        return f"{text}clip them to {white:g} and save them again"
    return (
        f"{text}scale them to 0 (black) to 1 (white), or, in a study, say which value is white: "
        f"{likely_white(high)} under [data]"
    )


def likely_white(brightest: float) -> str:
    """Returns what to write for images with this brightest value: ``white = 15 or white = 16``.

    Fractions somewhat above a usual white, such as 1.00002 or 1.05, come from resizing.
    """
    if not float(brightest).is_integer():
        above = [w for w in _USUAL_WHITES if 1 <= w < brightest <= _NEAR * w]
        if above:
            return f"white = {_shown(above[-1])}"
    near = [w for w in _USUAL_WHITES if brightest <= w * (1 + ROUNDING) and w <= _NEAR * brightest]
    usual = next((w for w in _USUAL_WHITES if brightest <= w), None)
    return " or ".join(f"white = {_shown(w)}" for w in near or [usual or brightest])


def _shown(value: float) -> str:
    """Returns a number in at most 6 digits, if that does not make it smaller."""
    short = f"{value:.6g}"
    return short if float(short) >= value else repr(value)


def doubt_of_range(
    brightest: float, white: float, *, where: str, in_study: bool = True
) -> str | None:
    """Returns the doubt that white is another value than assumed; None if there is none.

    Args:
        brightest: The brightest value of the images of one kind in a data set.
        white: The value that is taken for white.
        where: Where they come from; the text begins with it.
        in_study: Whether a study file can say which value is white; else they have to be scaled.
    """
    if DARK * white < brightest <= white * (1 + ROUNDING):
        return None
    text = f"{where}: values go up to {brightest:g}, where white is {white:g}"
    if brightest <= white:
        text = f"{where}: no value exceeds {brightest:g}, where white is {white:g}: dark images"
    if not in_study:
        return f"{text}; if another value is white in them, scale them to 0 (black) to 1 (white)"
    if brightest <= 0:
        return f"{text}; if they are meant so, write white = {white:g} under [data]"
    if white < brightest <= _NEAR * white:
        return (
            f"{text}: clip them to {white:g} and save them again, or write white = "
            f"{_shown(brightest)} under [data]"
        )
    likely = likely_white(brightest)
    if likely == f"white = {white:g}":
        likely = f"white = {_shown(brightest)}"
    text = f"{text}. Say in the study file which value is white: for example {likely} under [data]"
    return text if brightest > white else f"{text}, or white = {white:g} if they are that dark"
