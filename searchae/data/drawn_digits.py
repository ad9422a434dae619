"""Draws digits that resemble photographs of house numbers, for the source ``house-numbers``.

From glyph to pixel, only additions, multiplications, divisions, rounding and uniform random numbers
are used, whose results IEEE 754 defines to the bit. Sines, exponentials, sums and matrix products
differ between processors. The images are therefore the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Floats = npt.NDArray[Any]
"""float32; numpy's type stubs cannot express that for all operations used here."""

SIDE_PX = 32
_CANVAS_PX = 64
_GLYPH_PX = 40
_ADVANCE_PX = 30.0
_STROKES = (0, 1, 2, 3)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def draw_digits(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    """Draws images, each with a digit in the middle and often a cropped one beside it.

    Args:
        rng: The random generator; the same state gives the same images.
        count: The number of images.

    Returns:
        uint8 (count, 3, 32, 32), RGB.
    """
    coverage = _coverage(rng, count)
    image = _background(rng, count)
    image, colour = _add_shadow(rng, image, coverage), _digit_colour(rng, image)
    image += coverage[:, None] * (colour - image)
    image = _blur(_add_lighting(rng, image), levels=rng.integers(0, 7, count))
    image = _add_sensor_noise(rng, image)
    pixels: npt.NDArray[np.uint8] = np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)
    return pixels


@lru_cache(maxsize=1)
def _glyphs() -> Floats:
    """Returns all digits in all strokes, float32 (strokes * 10, 64, 64) in [0, 1]."""
    font = ImageFont.load_default(size=_GLYPH_PX * 1.4)
    masks = []
    for stroke in _STROKES:
        for digit in "0123456789":
            canvas = Image.new("L", (_CANVAS_PX, _CANVAS_PX))
            pen = ImageDraw.Draw(canvas)
            left, top, right, bottom = pen.textbbox((0, 0), digit, font=font)
            corner = ((_CANVAS_PX - left - right) / 2, (_CANVAS_PX - top - bottom) / 2)
            pen.text(corner, digit, fill=255, font=font, stroke_width=stroke)
            masks.append(np.asarray(canvas, np.float32) / np.float32(255))
    return np.stack(masks)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return np.float32(low) + rng.random(shape, np.float32) * np.float32(high - low)


def _bernoulli(rng: np.random.Generator, probability: float, count: int) -> Floats:
    """Returns 1 with a probability and 0 otherwise, float32 (count, 1, 1)."""
    return (rng.random((count, 1, 1)) < probability).astype(np.float32)


def _pixel_grid() -> tuple[Floats, Floats]:
    """Returns x (1, 1, 32) and y (1, 32, 1) in pixels from the image's centre."""
    line = np.arange(SIDE_PX, dtype=np.float32) - np.float32((SIDE_PX - 1) / 2)
    return line[None, None, :], line[None, :, None]


def _random_rotation(rng: np.random.Generator, count: int, largest: float) -> tuple[Floats, Floats]:
    """Returns cosines and sines of random angles, from t = tan(angle / 2) up to ``largest``."""
    t = _uniform(rng, -largest, largest, count, 1, 1)
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _coverage(rng: np.random.Generator, count: int) -> Floats:
    """Draws the share of each pixel that digits cover, float32 (count, 32, 32) in [0, 1]."""
    x, y = _pixel_grid()
    cos, sin = _random_rotation(rng, count, 0.14)
    x = x - _uniform(rng, -2.5, 2.5, count, 1, 1)
    y = y - _uniform(rng, -2.5, 2.5, count, 1, 1)
    height = _uniform(rng, 17, 33, count, 1, 1)
    width = height * _uniform(rng, 0.75, 1.35, count, 1, 1)
    v = (cos * y - sin * x) * (_GLYPH_PX / height)
    u = (cos * x + sin * y) * (_GLYPH_PX / width)
    u = u + v * _uniform(rng, -0.12, 0.22, count, 1, 1)
    stroke = rng.integers(0, len(_STROKES), count)
    gap = _uniform(rng, 0.85, 1.25, count, 1, 1) * np.float32(_ADVANCE_PX)
    coverage = _sample_glyphs(stroke * 10 + rng.integers(0, 10, count), u=u, v=v)
    for side in (-1, 1):
        glyph = stroke * 10 + rng.integers(0, 10, count)
        present = _bernoulli(rng, 0.6, count)
        coverage = np.maximum(coverage, present * _sample_glyphs(glyph, u=u - side * gap, v=v))
    return coverage


def _sample_glyphs(glyph: npt.NDArray[np.int64], *, u: Floats, v: Floats) -> Floats:
    """Samples glyphs bilinearly at the points (u, v), in glyph pixels from the centre."""
    limit = np.float32(_CANVAS_PX - 1.01)
    u = np.clip(u + np.float32(_CANVAS_PX / 2), 0, limit)
    v = np.clip(v + np.float32(_CANVAS_PX / 2), 0, limit)
    column, row = u.astype(np.int64), v.astype(np.int64)
    u, v = u - column.astype(np.float32), v - row.astype(np.float32)
    flat = _glyphs().ravel()
    at = (glyph[:, None, None] * _CANVAS_PX + row) * _CANVAS_PX + column
    upper = flat[at] * (1 - u) + flat[at + 1] * u
    at += _CANVAS_PX
    lower = flat[at] * (1 - u) + flat[at + 1] * u
    coverage: Floats = upper * (1 - v) + lower * v
    return coverage


def _colour(rng: np.random.Generator, count: int, *, low: float, high: float) -> Floats:
    """Draws one colour for each image, from grey to vivid, float32 (count, 3, 1, 1).

    In photographs of house numbers (SVHN) the variance of colour is a twentieth of that of
    brightness, and nets that train for seconds leave it out: what they make is grey. Here it is a
    fifth.
    """
    luma = _uniform(rng, low, high, count, 1, 1, 1)
    vivid = _uniform(rng, 0, 1, count, 1, 1, 1)
    colour: Floats = luma + _uniform(rng, -105, 105, count, 3, 1, 1) * vivid
    return colour


def _background(rng: np.random.Generator, count: int) -> Floats:
    """Draws backgrounds with edges and blotches, float32 (count, 3, 32, 32), about 0 to 255."""
    x, y = _pixel_grid()
    image = np.broadcast_to(
        _colour(rng, count, low=35, high=215), (count, 3, SIDE_PX, SIDE_PX)
    ).copy()
    for probability, farthest in ((0.35, 16.0), (0.2, 12.0)):
        cos, sin = _random_rotation(rng, count, 1.0)
        edge = cos * x + sin * y - _uniform(rng, 3, farthest, count, 1, 1)
        beyond = np.clip(edge + np.float32(0.5), 0, 1) * _bernoulli(rng, probability, count)
        step = _colour(rng, count, low=-55, high=55)
        image += beyond[:, None] * step
    return image + _blotches(rng, count)


def _blotches(rng: np.random.Generator, count: int) -> Floats:
    """Draws smooth blotches: a coarse random grid, stretched bilinearly over the image."""
    cells = 6
    strength = _uniform(rng, 0, 22, count, 1, 1, 1)
    grey = _uniform(rng, -1, 1, count, 1, cells, cells)
    tint = _uniform(rng, -0.25, 0.25, count, 3, cells, cells)
    return _stretch(_stretch(strength * (grey + tint)).swapaxes(2, 3)).swapaxes(2, 3)


def _stretch(grid: Floats) -> Floats:
    """Stretches the last axis to 32 samples, linearly."""
    place = np.arange(SIDE_PX, dtype=np.float32) * np.float32((grid.shape[-1] - 1) / SIDE_PX)
    left = place.astype(np.int64)
    part = place - left.astype(np.float32)
    stretched: Floats = grid[..., left] * (1 - part) + grid[..., left + 1] * part
    return stretched


def _digit_colour(rng: np.random.Generator, image: Floats) -> Floats:
    """Draws colours that differ from the centre of the background, float32 (count, 3, 1, 1)."""
    count = len(image)
    middle = image[:, :, SIDE_PX // 2, SIDE_PX // 2][:, :, None, None]
    luma = sum(middle[:, c : c + 1] * _LUMA[c] for c in range(3))
    brighter = rng.random((count, 1, 1, 1), np.float32) * 255 > luma * np.float32(0.9) + 12
    room = np.where(brighter, 250 - luma, luma - 5)
    draw = _uniform(rng, 0, 1, count, 1, 1, 1)
    contrast = np.minimum(20 + draw * 170, np.maximum(room, 25))
    shift = np.where(brighter, contrast, -contrast).astype(np.float32)
    colour: Floats = middle + shift + _colour(rng, count, low=0, high=0)
    return colour


def _add_shadow(rng: np.random.Generator, image: Floats, coverage: Floats) -> Floats:
    """Adds to some images the digits' shadow, one or two pixels down and to one side."""
    count = len(image)
    shadow = np.zeros_like(coverage)
    way = rng.integers(0, 4, count)
    for i, (down, right) in enumerate(((1, 1), (1, -1), (2, 1), (1, 2))):
        chosen = way == i
        beyond = np.pad(coverage[chosen], ((0, 0), (down, 0), (2, 2)))
        shadow[chosen] = beyond[:, :SIDE_PX, 2 - right : 2 - right + SIDE_PX]
    depth = _bernoulli(rng, 0.35, count) * _uniform(rng, 0.15, 0.6, count, 1, 1)
    shaded: Floats = image * (1 - depth * shadow)[:, None]
    return shaded


def _add_lighting(rng: np.random.Generator, image: Floats) -> Floats:
    """Multiplies by a random exposure and a random linear gradient of light."""
    count = len(image)
    x, y = _pixel_grid()
    slope_x = _uniform(rng, -0.014, 0.014, count, 1, 1)
    slope_y = _uniform(rng, -0.014, 0.014, count, 1, 1)
    light = _uniform(rng, 0.7, 1.1, count, 1, 1) + slope_x * x + slope_y * y
    lit: Floats = image * light[:, None]
    return lit


def _blur(image: Floats, *, levels: npt.NDArray[np.int64]) -> Floats:
    """Blurs image i ``levels[i]`` times with (1, 2, 1) / 4 along both axes."""
    for level in range(1, int(levels.max(initial=0)) + 1):
        chosen = levels >= level
        part = np.pad(image[chosen], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        part = (part[:, :, :-2] + 2 * part[:, :, 1:-1] + part[:, :, 2:]) * np.float32(0.25)
        part = (part[..., :-2] + 2 * part[..., 1:-1] + part[..., 2:]) * np.float32(0.25)
        image[chosen] = part
    return image


def _add_sensor_noise(rng: np.random.Generator, image: Floats) -> Floats:
    """Adds sensor noise with a triangular distribution, mostly common to the three channels."""
    count = len(image)
    strength = _uniform(rng, 0, 1, count, 1, 1, 1)
    strength = 1 + 11 * strength * strength
    for channels, share in ((1, 1.0), (3, 0.5)):
        shape = (count, channels, SIDE_PX, SIDE_PX)
        image += (
            strength
            * np.float32(share)
            * (rng.random(shape, np.float32) - rng.random(shape, np.float32))
        )
    return image
