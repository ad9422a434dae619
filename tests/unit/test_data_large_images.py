"""Images that are too many for memory: kept in files, the same to the bit, within a bound."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from searchae.config.data_spec import DataSpec
from searchae.data import large_images
from searchae.data.decoded_cache import decoded_sums, find_decoded, keep_decoded
from searchae.data.splits import Splits, load_splits, split_warnings
from searchae.errors import DataError
from searchae.training.images import ResidentImages, mean_image
from tests.unit import tiny_training


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes everything above a kilobyte for large."""
    monkeypatch.setattr(large_images, "LARGE_BYTES", 1000)
    monkeypatch.setattr(large_images, "PART_BYTES", 500)


def photos(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    draws = np.random.default_rng(0)
    for i in range(count):
        pixels = draws.integers(0, 256, (12, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


def load(folder: Path, data_dir: Path) -> Splits:
    spec = DataSpec(name="folder", path=str(folder), image_size=(12, 8))
    return load_splits(spec, data_dir=data_dir, seed=3)


def test_large_images_are_split_as_small_ones_are(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = photos(tmp_path / "photos")
    small = load(folder, tmp_path / "a")
    request.getfixturevalue("small_bounds")
    large = load(folder, tmp_path / "b")
    assert large.hash == small.hash
    for name, images in small.parts.items():
        assert torch.equal(large.parts[name], images)
    assert large_images.is_large(large.train)
    assert large.levels == small.levels
    assert split_warnings(large) == split_warnings(small)
    assert large.also_in_train == small.also_in_train
    assert decoded_sums(large) == decoded_sums(small)
    assert list((tmp_path / "b").iterdir()) == [], "the files have no names"


@pytest.mark.usefixtures("small_bounds")
def test_what_is_released_is_read_again(tmp_path: Path) -> None:
    array = large_images.new_images((50, 3, 8, 8), np.uint8, folder=tmp_path, what="x")
    array[:] = np.random.default_rng(0).integers(0, 256, array.shape, np.uint8)
    before, images = array.copy(), torch.from_numpy(array)
    large_images.release(images)
    np.testing.assert_array_equal(array, before)
    assert torch.equal(torch.cat(list(large_images.parts(images))), torch.from_numpy(before))
    large_images.release(torch.from_numpy(before))
    assert np.any(before), "memory that is not mapped is left alone"


@pytest.mark.usefixtures("small_bounds")
def test_an_address_that_is_used_again_is_not_taken_for_a_file(tmp_path: Path) -> None:
    array = large_images.new_images((50, 3, 8, 8), np.uint8, folder=tmp_path, what="x")
    assert len(large_images._mappings) == 1
    del array
    gc.collect()
    assert len(large_images._mappings) == 0


@pytest.mark.usefixtures("small_bounds")
def test_a_disk_that_is_full_or_read_only_leaves_the_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    array = large_images.new_images((50, 3, 8, 8), np.uint8, folder=tmp_path, what="x")
    assert array.shape == (50, 3, 8, 8)
    assert len(large_images._mappings) == 0
    with pytest.raises(DataError, match=r"x \(.*No space left.*\): takes .* of memory"):
        large_images.new_images((2**44,), np.uint8, folder=tmp_path, what="x")


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_a_training_on_mapped_images_is_the_same_to_the_bit(tmp_path: Path, kind: str) -> None:
    colour = (
        tiny_training.smooth_images(90, channels=3),
        tiny_training.smooth_images(20, channels=3, seed=1),
    )
    splits = Splits(*colour, colour[1], hash="abc")
    assert keep_decoded(splits, tmp_path)
    mapped = find_decoded("abc", tmp_path)
    assert mapped is not None
    params = tiny_training.params({"kind": kind}, epochs=2)
    found = [
        list(tiny_training.trainer(params, train=train, validation=validation).epochs())
        for train, validation in (colour, mapped)
    ]
    assert [r.psnr_db for r in found[0]] == [r.psnr_db for r in found[1]]
    assert torch.equal(mean_image(mapped[0]), mean_image(colour[0]))


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("channels_last", [True, False])
def test_large_images_are_gathered_where_they_are(tmp_path: Path, channels_last: bool) -> None:
    images = tiny_training.smooth_images(90, channels=3)
    assert keep_decoded(Splits(images, images, images, hash="abc"), tmp_path)
    mapped = find_decoded("abc", tmp_path)
    assert mapped is not None
    resident = ResidentImages.on(torch.device("cpu"), mapped[0], channels_last=channels_last)
    assert resident.rows.data_ptr() == mapped[0].data_ptr(), "no copy"
    batch = resident.batch(torch.tensor([8, 0, 3]))
    assert torch.equal(batch, images[[8, 0, 3]] / 255)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.is_contiguous(memory_format=wanted)


@pytest.mark.usefixtures("small_bounds")
def test_a_file_that_is_cut_short_meanwhile_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(bytes(50 * 64))
    with path.open("rb+") as file:
        array = large_images.map_images(file, (50, 64), np.dtype(np.uint8), offset=0)
        rows = torch.from_numpy(array)
        assert large_images.gather(rows, torch.tensor([49])).shape == (1, 64)
        file.truncate(100)
    with pytest.raises(DataError, match="their file was cut short"):
        large_images.gather(rows, torch.tensor([49]))


@pytest.mark.usefixtures("small_bounds")
def test_rows_of_a_part_are_those_of_the_part(tmp_path: Path) -> None:
    array = large_images.new_images((60, 3, 8, 8), np.uint16, folder=tmp_path, what="x")
    array[:] = np.random.default_rng(0).integers(0, 65536, array.shape, np.uint16)
    rows = torch.from_numpy(array)[10:]
    indices = torch.tensor([0, 7, 49])
    np.testing.assert_array_equal(large_images.gather(rows, indices).numpy(), array[[10, 17, 59]])
    assert large_images.gather(rows, indices[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shape", [(-1, 100), (2**40, 2**40), (51, 64)])
def test_a_shape_that_a_file_does_not_hold_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(bytes(50 * 64))
    with path.open("rb") as file, pytest.raises(ValueError, match="no array of shape"):
        large_images.map_images(file, shape, np.dtype(np.uint8), offset=0)


_SEARCH = """
import sys, threading, time
from pathlib import Path
import torch
from searchae.launch import malloc
from searchae.data import large_images
from searchae.data.decoded_cache import find_decoded
from tests.unit import tiny_training

malloc.configure_malloc()  # as a worker does: what is freed between small blocks stays
large_images.LARGE_BYTES = 2**24
large_images.PART_BYTES = 2**20
kind, folder = sys.argv[1], Path(sys.argv[2])
small = tiny_training.smooth_images(500, channels=3, side=64)
model = {"kind": kind, "hidden": (4,)}
params = tiny_training.params(model, epochs=1, batch_size=64, patience=1)

def train(images, validation):
    list(tiny_training.trainer(params, train=images, validation=validation).epochs())

def mib(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

train(small, small)
before = mib("VmHWM")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
images, validation = find_decoded("abc", folder)
assert images.nbytes > 150 * 2**20
train(images, validation)
print(mib("VmHWM") - before)
"""


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_a_worker_s_memory_does_not_grow_with_the_images(tmp_path: Path, kind: str) -> None:
    many = torch.randint(0, 256, (13_000, 3, 64, 64), dtype=torch.uint8)
    few = many[:5000]
    assert keep_decoded(Splits(many, few, few, hash="abc"), tmp_path)
    arguments = [sys.executable, "-c", _SEARCH, kind, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150, "MiB more than with few images; these take 213"
