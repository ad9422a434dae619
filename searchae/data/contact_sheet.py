"""A contact sheet: some images of each split, as they were read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from searchae.data.raw_images import as_rgb
from searchae.data.splits import Splits
from searchae.errors import DataError
from searchae.files import is_standard_output, output_file

if TYPE_CHECKING:
    import torch

COLUMNS = 12
_ROWS = {"train": 4, "validation": 2, "test": 2}
_TILE_PX, _GUTTER_PX, _MARGIN_PX, _TITLE_PX, _TEXT_PX = 64, 4, 12, 24, 14
_INK, _PAPER = (40, 40, 40), (236, 236, 236)
_SUFFIX = ".png"
_BESIDE = {2: "; right: channel 2", 4: "; right: channel 4"}
"""Channels of images -> what is said of the picture beside each."""


def write_contact_sheet(path: Path, splits: Splits) -> None:
    """Writes a PNG with images of each split, evenly spaced, under their number and levels.

    The last of two or four channels stands beside each image as a grey picture of its own.

    Args:
        path: The file, whose name ends in ``.png``, or a pipe or device.
        splits: The images.

    Raises:
        DataError: The file has another suffix.
        OSError: It cannot be written.
    """
    is_device = path.exists() and not path.is_file()
    if path.suffix.lower() != _SUFFIX and not is_device and not is_standard_output(path):
        raise DataError(f"{path}: the contact sheet is a PNG: give a name that ends in {_SUFFIX}")
    sheet = draw_contact_sheet(splits)
    path.parent.mkdir(parents=True, exist_ok=True)
    with output_file(path) as file:
        sheet.save(file, format="PNG")


def draw_contact_sheet(splits: Splits) -> Image.Image:
    """Draws the contact sheet; see ``write_contact_sheet``."""
    channels, height, width = splits.image_shape
    scale = max(1, round(_TILE_PX / max(height, width)))
    pictures = 2 if channels in _BESIDE else 1  # of each image
    columns = COLUMNS // pictures
    step = (pictures * width * scale + _GUTTER_PX, height * scale + _GUTTER_PX)
    parts = {name: _chosen(getattr(splits, name), rows * columns) for name, rows in _ROWS.items()}
    rows = sum(-(-len(images) // columns) for images in parts.values())
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN_PX + max(columns * step[0], 480),
            2 * _MARGIN_PX + len(parts) * _TITLE_PX + rows * step[1],
        ),
        _PAPER,
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PX)
    y = _MARGIN_PX
    for name, images in parts.items():
        low, mean, high = splits.levels[name]
        total = len(getattr(splits, name))
        title = f"{name}: {total:,} images, levels {low} to {high}, mean {mean:.1f}"
        title += _BESIDE.get(channels, "")
        pen.text((_MARGIN_PX, y), title, fill=_INK, font=font)
        y += _TITLE_PX
        for i, image in enumerate(images):
            row, column = divmod(i, columns)
            at = (_MARGIN_PX + column * step[0], y + row * step[1])
            sheet.paste(_tile(image, scale), at)
        y += -(-len(images) // columns) * step[1]
    return sheet


def _chosen(images: torch.Tensor, most: int) -> torch.Tensor:
    import torch

    count = min(most, len(images))
    return images[torch.linspace(0, len(images) - 1, count).long()]


def _tile(image: torch.Tensor, scale: int) -> Image.Image:
    """Returns one image (C, H, W), each pixel enlarged to a square, and its last channel beside."""
    shown = as_rgb(image.numpy())
    if len(image) in _BESIDE:
        shown = np.concatenate((shown, as_rgb(image[-1:].numpy())), axis=1)
    return Image.fromarray(shown.repeat(scale, 0).repeat(scale, 1))
