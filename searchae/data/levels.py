"""Pixel values of any type as the 256 levels of the data sets, and doubts about their range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.data.raw_images import Images
from searchae.errors import DataError

DARK = 1 / 4
"""Images whose brightest value is no more than this share of white may be meant otherwise: as
values of 12 or 14 bits in a file of 16, from 0 to 16, or divided by 255 twice."""

_USUAL_WHITES = (1 / 255, 1, 15, 16, 31, 63, 100, 255, 1023, 4095, 16383, 65535)
_CHUNK = 4096


def to_levels(values: npt.NDArray[Any], white: float, *, where: str) -> Images:
    """Converts pixel values to levels, rounded: 0 stays 0, ``white`` becomes 255.

    Args:
        values: Integers, floats or bools of any shape but ().
        white: The value of white, above 0.
        where: Where they come from; the message begins with it.

    Returns:
        uint8 of the same shape.

    Raises:
        DataError: A value is below 0, above white, or NaN.
    """
    if values.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):
        raise DataError(
            f"{where}: is {values.dtype} of shape {values.shape} with values from {low:g} to "
            f"{high:g}, not from 0 to {white:g}: {_advice(low, high)}"
        )
    if values.dtype == np.uint8 and white == 255:
        return values
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK].astype(np.float64)
        levels[start : start + _CHUNK] = np.rint(part * 255 / white)
    return levels


def _advice(low: float, high: float) -> str:
    if low >= 0:
        return (
            "scale them to 0 (black) to 1 (white), or, in a study, say which value is white: "
            f"white = {likely_white(high):g} under [data]"
        )
    return "scale them to 0 (black) to 1 (white), and save them again"


def likely_white(brightest: float) -> float:
    """Returns the usual value of white of images with this brightest value, to suggest it."""
    usual = (white for white in _USUAL_WHITES if brightest <= white * (1 + 1e-6))
    return next(usual, brightest)


def doubt_of_dark(brightest: float, white: float, *, where: str) -> str | None:
    """Returns the doubt that white is another value than assumed; None if there is none.

    Args:
        brightest: The brightest value of the images of one kind in a data set.
        white: The value that is taken for white.
        where: Where they come from; the text begins with it.
    """
    if brightest > DARK * white:
        return None
    text = f"{where}: no value exceeds {brightest:g}, where white is {white:g}: almost black images"
    if brightest <= 0:
        return f"{text}; if they are meant so, write white = {white:g} under [data]"
    likely = likely_white(brightest)
    return (
        f"{text}. Say in the study file which value is white: for example white = {likely:.6g} "
        f"under [data], or white = {white:g} if they are that dark"
    )
