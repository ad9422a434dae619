"""Images from Python become a file that workers read like any npz."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from searchae.config import DataSpec
from searchae.data import memory
from searchae.data.array_file import write_array_file
from searchae.data.npz import load_npz
from searchae.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 9, 3), np.uint8)
FIRST = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


class Pairs(torch.utils.data.Dataset[Any]):
    """Images with labels, as torchvision's data sets are."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._items[index], index


def read_back(name: str, folder: Path) -> np.ndarray:
    found = load_npz(DataSpec(name="npz", path=name), folder, 0, lambda _: None)
    return np.asarray(found.train)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        np.asfortranarray(IMAGES),
        IMAGES.astype(np.float64) / 255,
        FIRST,
        FIRST.float() / 255,
        Pairs(list(FIRST)),
        Pairs([Image.fromarray(image) for image in IMAGES]),
        Pairs([Image.fromarray(image).convert("RGBA").convert("RGB") for image in IMAGES]),
        list(IMAGES),
    ],
    ids=[
        "array",
        "other order",
        "float",
        "tensor",
        "float tensor",
        "pairs",
        "pictures",
        "rgb",
        "list",
    ],
)
def test_what_people_have_is_read_back_as_the_same_levels(images: Any, tmp_path: Path) -> None:
    name = write_array_file(images, tmp_path / "data")
    assert re.fullmatch(r"arrays/[0-9a-f]{16}\.npz", name)
    assert np.array_equal(read_back(name, tmp_path / "data"), IMAGES.transpose(0, 3, 1, 2))


def test_the_same_images_are_written_once_and_others_beside_them(tmp_path: Path) -> None:
    name = write_array_file(IMAGES, tmp_path)
    written_at = (tmp_path / name).stat().st_mtime_ns
    assert write_array_file(IMAGES.copy(), tmp_path) == name
    assert (tmp_path / name).stat().st_mtime_ns == written_at
    other = IMAGES.copy()
    other[-1, -1, -1, -1] ^= 1
    assert write_array_file(other, tmp_path) != name
    assert len(list((tmp_path / "arrays").glob("*.npz"))) == 2


def test_a_palette_s_numbers_are_not_taken_for_levels(tmp_path: Path) -> None:
    pictures = [Image.fromarray(image).convert("P") for image in IMAGES]
    found = read_back(write_array_file(Pairs(pictures), tmp_path), tmp_path)
    assert np.array_equal(found[0], np.asarray(pictures[0].convert("RGB")).transpose(2, 0, 1))


def test_white_and_bits_are_those_of_the_study(tmp_path: Path) -> None:
    deep = IMAGES.astype(np.uint16) * 16
    with pytest.raises(DataError, match="which value is white: for example"):
        write_array_file(deep, tmp_path)
    assert write_array_file(deep, tmp_path, white=4095, bits=16)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.reshape(12, -1), "images: is uint8 of shape (12, 216), not (N, H, W)"),
        (IMAGES.astype(np.float32), "images: is float32 of shape"),
        (IMAGES[:0], "images: there is no image in it"),
        (IMAGES[:1, :, :, :1].transpose(1, 2, 0, 3)[:, :, 0], "the order of the axes"),
        (np.array([None, 1]), "images: holds Python objects"),
        ([], "images: there is no image in it"),
        ([IMAGES[0], IMAGES[1, 1:]], "images: number 1 is uint8 of shape (7, 9, 3), number 0 is"),
        ([IMAGES[0], IMAGES[1].astype(float)], "images: number 1 is float64 of shape"),
        ([()], "images: number 0 is an empty tuple"),
        ({"a": IMAGES}, "images: number 0 cannot be read: KeyError: 0"),
        (iter(IMAGES), "images: iterator has no length and no items"),
        ("photos", "images: 'photos' is a text"),
        (3, "images: int has no length and no items"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    images: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refused:
        write_array_file(images, tmp_path)
    assert message in str(refused.value)
    assert not list(tmp_path.rglob("*.npz"))


def test_more_than_the_memory_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1000)
    with pytest.raises(DataError, match="12 of them: takes"):
        write_array_file(Pairs(list(IMAGES)), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="cannot write to the data folder"):
        write_array_file(IMAGES, tmp_path / "data")
