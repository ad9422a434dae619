"""A picture of images and their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from searchae.data import as_rgb, gather
from searchae.models import Autoencoder
from searchae.training.generators import named_generator
from searchae.training.images import gaussian, noisy, to_unit_float
from searchae.training.memory_format import preferred_memory_format
from searchae.training.metrics import psnr_per_image

SHOWN, COLUMNS = 8, 8
TILE_PX, GUTTER_PX, LABEL_PX, MARGIN_PX, NAMES_PX = 96, 6, 18, 12, 110
INK = (120, 127, 135)
"""Colour of text, legible on white and on black: the page around a picture shows through."""

Tile = npt.NDArray[np.uint8]


def draw_reconstructions(
    model: Autoencoder,
    images: Tensor,
    *,
    noise_std: float,
    seed: int,
    title: str,
    shown: int = SHOWN,
) -> Image.Image:
    """Draws images above their reconstructions, each with its PSNR.

    With noise, the noisy inputs are drawn between the two.

    Args:
        model: On any device; it is left in evaluation mode.
        images: uint8 or uint16 (N, C, H, W); evenly spaced ones are chosen.
        noise_std: Standard deviation of the Gaussian noise on the input, for values in [0, 1].
        seed: The seed of the noise.
        title: A line of text above the picture.
        shown: How many images to draw, at most.
    """
    places = torch.linspace(0, len(images) - 1, min(shown, len(images))).long()
    chosen = gather(images, places.to(images.device)).cpu()
    clean = to_unit_float(chosen)
    rows = {"original": clean}
    inputs = clean
    if noise_std:
        noise = gaussian(tuple(clean.shape), noise_std, named_generator(seed, "picture noise"))
        inputs = noisy(clean, noise)
        rows["noisy"] = inputs.clamp(0, 1)
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        fed = inputs.to(device, memory_format=preferred_memory_format(model))
        out = model.decode(model.encode(fed)).cpu()
    rows["reconstruction"] = out
    return _canvas(rows, psnr_per_image(out, clean).tolist(), title=title)


def blank_picture(size: tuple[int, int]) -> Image.Image:
    """Returns a transparent RGBA picture for text in ``INK``.

    Args:
        size: Width and height in pixels.
    """
    return Image.new("RGBA", size, (*INK, 0))  # of that colour: letters have soft edges


def _canvas(rows: Mapping[str, Tensor], psnrs_db: Sequence[float], *, title: str) -> Image.Image:
    """Draws bands of up to ``COLUMNS`` images; each band has all rows of tiles.

    Args:
        rows: Name -> images in [0, 1], float (N, C, H, W), from top to bottom.
        psnrs_db: PSNR of each image, in dB.
        title: A line of text above the picture.
    """
    count = len(psnrs_db)
    columns = min(COLUMNS, count)
    scale = max(1, round(TILE_PX / max(next(iter(rows.values())).shape[-2:])))
    tiles = {name: [_tile(image, scale) for image in images] for name, images in rows.items()}
    height, width = next(iter(tiles.values()))[0].shape[:2]
    bands = -(-count // columns)
    band_px = len(rows) * (height + GUTTER_PX) + LABEL_PX + GUTTER_PX
    size = (
        max(560, 2 * MARGIN_PX + NAMES_PX + columns * (width + GUTTER_PX)),
        2 * MARGIN_PX + 2 * LABEL_PX + bands * band_px,
    )
    canvas = blank_picture(size)
    pen, font = ImageDraw.Draw(canvas), _font()
    pen.text((MARGIN_PX, MARGIN_PX), title, fill=INK, font=font)
    for i, psnr_db in enumerate(psnrs_db):
        band, column = divmod(i, columns)
        x = MARGIN_PX + NAMES_PX + column * (width + GUTTER_PX)
        y = MARGIN_PX + 2 * LABEL_PX + band * band_px
        for name, images in tiles.items():
            canvas.paste(Image.fromarray(images[i]), (x, y))
            if column == 0:
                at = (MARGIN_PX, y + height // 2)
                pen.text(at, name, fill=INK, font=font, anchor="lm")
            y += height + GUTTER_PX
        pen.text((x + width // 2, y), f"{psnr_db:.1f} dB", fill=INK, font=font, anchor="ma")
    return canvas


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _tile(image: Tensor, scale: int) -> Tile:
    """Converts one image (C, H, W) in [0, 1] to RGB (H, W, 3), each pixel enlarged to a square."""
    levels = (image * 255).round().to(torch.uint8).numpy()
    return as_rgb(levels).repeat(scale, axis=0).repeat(scale, axis=1)
