"""House numbers: the same bytes for the same seed, whatever is asked for; a cache that heals."""

import hashlib
from pathlib import Path

import numpy as np
import PIL
import pytest

from searchae.config.data_spec import DataSpec
from searchae.data import house_numbers
from searchae.data.house_numbers import generate
from searchae.data.splits import load_splits
from searchae.errors import DataError


def spec(train: int, test: int) -> DataSpec:
    return DataSpec(name="house-numbers", train_images=train, test_images=test)


def read(folder: Path, *, seed: int = 0, train: int = 20) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    raw = house_numbers.load_house_numbers(spec(train, 10), folder, seed, said.append)
    return raw.train, said


def files(folder: Path) -> list[Path]:
    return sorted((folder / "house-numbers").iterdir())


def test_the_same_seed_gives_the_same_bytes() -> None:
    first = generate("train", 300, seed=3)
    assert first.shape == (300, 3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, generate("train", 300, seed=3))


def test_seeds_splits_and_batches_are_independent() -> None:
    sets = [generate("train", 500, seed=s) for s in (0, 1)]
    images = np.concatenate([*sets, generate("test", 250, seed=0)])
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("count", [1, 249, 250, 251, 499])
def test_a_smaller_set_is_a_prefix_of_a_larger_one(count: int) -> None:
    assert np.array_equal(generate("test", count, seed=5), generate("test", 500, seed=5)[:count])


@pytest.mark.skipif(
    not PIL.__version__.startswith("13."), reason="the bytes were recorded with Pillow 13"
)
def test_the_bytes_are_those_recorded_for_this_version_of_the_generator() -> None:
    """A change here makes all existing studies' data differ: raise VERSION, then record again."""
    images = generate("train", 250, seed=0)
    recorded = {1: "149eae75e2916318", 2: "f9470426677b9aac"}
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest.startswith(recorded[house_numbers.VERSION])


def test_images_vary_in_light_contrast_and_colour() -> None:
    images = generate("train", 500, seed=0).astype(np.float64)
    brightness = images.mean(axis=(1, 2, 3))
    contrast = images.mean(axis=1).std(axis=(1, 2))
    chroma = np.ptp(images.mean(axis=(2, 3)), axis=1)
    assert np.ptp(np.percentile(brightness, [5, 95])) > 90
    assert np.percentile(contrast, 5) < 15
    assert np.percentile(contrast, 95) > 40
    assert np.percentile(chroma, 95) > 80


def test_colour_is_enough_of_the_images_for_a_short_training() -> None:
    """Of a twentieth, as in photographs, the quickstart's nets learned nothing: all was grey."""
    images = generate("train", 500, seed=0) / 255
    grey = images.mean(axis=1, keepdims=True)
    share = np.mean((images - grey) ** 2) / np.mean((grey - grey.mean(axis=0)) ** 2)
    assert 0.15 < share < 0.3


def test_pixels_are_seldom_clipped() -> None:
    images = generate("train", 500, seed=0)
    assert np.mean((images == 0) | (images == 255)) < 0.1


def test_the_second_run_reads_the_cache(tmp_path: Path) -> None:
    drawn, said = read(tmp_path)
    assert any("drawing 20 train images" in line for line in said)
    kept, said = read(tmp_path)
    assert said == []
    assert np.array_equal(kept, drawn)
    assert [p.name for p in files(tmp_path)] == [
        f"v{house_numbers.VERSION}-seed0-test10.npy",
        f"v{house_numbers.VERSION}-seed0-train20.npy",
    ]


def test_another_seed_or_size_has_a_cache_of_its_own(tmp_path: Path) -> None:
    first, _ = read(tmp_path)
    assert not np.array_equal(read(tmp_path, seed=1)[0], first)
    assert np.array_equal(read(tmp_path, train=30)[0][:20], first)
    assert len(files(tmp_path)) == 5


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "other shape"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str) -> None:
    drawn, _ = read(tmp_path)
    path = files(tmp_path)[1]
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[5000] ^= 1
    if damage == "other shape":
        np.save(path, np.zeros((3, 3), np.uint8))
    else:
        contents = {"empty": b"", "truncated": whole[:-1], "flipped": flipped, "text": b"hello"}
        path.write_bytes(bytes(contents[damage]))
    mended, said = read(tmp_path)
    assert len(said) == 1
    assert np.array_equal(mended, drawn)
    assert path.read_bytes() == whole


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    read(tmp_path)
    path = files(tmp_path)[1]
    path.replace(path.with_name(f".{path.name}.x1y2.part"))
    read(tmp_path)
    assert path in files(tmp_path)
    assert len(files(tmp_path)) == 2


def test_numpy_reads_a_cache_file(tmp_path: Path) -> None:
    drawn, _ = read(tmp_path)
    assert np.array_equal(np.load(files(tmp_path)[1]), drawn)


def test_sizes_default_to_20000_and_4000() -> None:
    assert (house_numbers.TRAIN_IMAGES, house_numbers.TEST_IMAGES) == (20_000, 4_000)


def test_unset_sizes_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "TRAIN_IMAGES", 21)
    monkeypatch.setattr(house_numbers, "TEST_IMAGES", 11)
    raw = house_numbers.load_house_numbers(DataSpec(name="house-numbers"), tmp_path, 0, print)
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (21, 11)


def test_the_whole_way_to_splits(tmp_path: Path) -> None:
    splits = load_splits(spec(40, 10), data_dir=tmp_path / "new" / "folder", seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [36, 4, 10]


def test_an_unusable_data_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"data folder .*file.*not a folder.*--data-dir"):
            read(folder)
