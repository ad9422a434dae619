"""The contact sheet shows images of each split, as they were read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchae.config.data_spec import DataSpec
from searchae.data.contact_sheet import write_contact_sheet
from searchae.data.raw_images import RawImages
from searchae.data.splits import Splits, split
from searchae.errors import DataError


def coloured(count: int, channels: int = 3) -> Splits:
    """Images of 16 x 8 pixels, each of one colour that no other has."""
    levels = np.arange(count * channels, dtype=np.uint8).reshape(count, channels)
    images = levels[:, :, None, None] * np.ones((1, 1, 16, 8), np.uint8)
    return split(RawImages(images), DataSpec(name="npz", path="x"), seed=0)


def colours(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(v) for v, n in zip(values.tolist(), counts.tolist(), strict=True) if n >= 128}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_of_a_small_set_is_shown_as_it_was_read(tmp_path: Path, channels: int) -> None:
    splits = coloured(30, channels)
    write_contact_sheet(tmp_path / "new" / "sheet.png", splits)
    shown = colours(tmp_path / "new" / "sheet.png")
    for images in splits.parts.values():
        for image in images[:, :, 0, 0].tolist():
            assert tuple(image * (3 // channels)) in shown


@pytest.mark.parametrize("channels", [2, 4])
def test_a_channel_that_is_no_colour_stands_beside_each_image(
    tmp_path: Path, channels: int
) -> None:
    splits = coloured(30, channels)
    write_contact_sheet(tmp_path / "sheet.png", splits)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).tolist()
    pairs = {(tuple(row[x]), tuple(row[x + 1])) for row in pixels for x in range(len(row) - 1)}
    for images in splits.parts.values():
        for *seen, last in images[:, :, 0, 0].tolist():
            colour = tuple(seen * (3 // len(seen)))
            assert (colour, (last, last, last)) in pairs


def test_a_large_set_gives_a_sheet_of_the_same_size(tmp_path: Path) -> None:
    sizes = set()
    for count in (2000, 3000):
        images = np.zeros((count, 1, 8, 8), np.uint8)
        splits = split(RawImages(images), DataSpec(name="npz", path="x"), seed=0)
        write_contact_sheet(tmp_path / "sheet.png", splits)
        sizes.add(Image.open(tmp_path / "sheet.png").size)
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [("a.jpg", DataError, "ends in .png"), ("f/a.png", OSError, "File exists")],
)
def test_a_file_that_cannot_be_a_contact_sheet(
    tmp_path: Path, name: str, error: type[Exception], said: str
) -> None:
    (tmp_path / "f").write_text("a file")
    with pytest.raises(error, match=said):
        write_contact_sheet(tmp_path / name, coloured(30))


def test_the_sheet_is_written_as_every_output(tmp_path: Path) -> None:
    splits = coloured(30)
    real, link, pipe = tmp_path / "real.png", tmp_path / "link.png", tmp_path / "pipe"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real.png")
    write_contact_sheet(link, splits)
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"\x89PNG")
    assert real.stat().st_mode & 0o777 == 0o640
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        found = pool.submit(pipe.read_bytes)
        write_contact_sheet(pipe, splits)
        assert found.result() == real.read_bytes()
    assert pipe.is_fifo()
    real.write_bytes(b"kept")
    real.chmod(0o400)
    for path in (real, link):
        with pytest.raises(PermissionError, match="read-only"):
            write_contact_sheet(path, splits)
    assert real.read_bytes() == b"kept"
