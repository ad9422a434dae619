"""Splits: disjoint, complete, fixed by the seed, and clear about too few images."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchae.config.data_spec import DataSpec, Source
from searchae.data.raw_images import RawImages
from searchae.data.sources import SOURCES
from searchae.data.splits import (
    Splits,
    describe_splits,
    load_splits,
    require_same_data,
    split,
    split_warnings,
)
from searchae.errors import DataError


def numbered(count: int, *, first: int = 0) -> np.ndarray:
    """Images of 1 x 1 x 2 whose two pixels are their number."""
    numbers = np.arange(first, first + count, dtype=">u2")
    return numbers.view(np.uint8).reshape(count, 1, 1, 2).copy()


def numbers(images: torch.Tensor) -> list[int]:
    return images.reshape(-1, 2).numpy().copy().view(">u2").ravel().tolist()


def spec(**values: object) -> DataSpec:
    return DataSpec.model_validate({"name": "npz", "path": "x.npz", **values})


@settings(deadline=None)
@given(count=st.integers(20, 400), share=st.floats(0.05, 0.9), seed=st.integers(0, 2**31 - 1))
def test_splits_are_disjoint_and_complete(count: int, share: float, seed: int) -> None:
    splits = split(RawImages(numbered(count)), spec(validation=share), seed=seed)
    parts = [numbers(p) for p in (splits.train, splits.validation, splits.test)]
    assert sorted(n for part in parts for n in part) == list(range(count))
    assert len(splits.test) == int(count * 0.1 + 0.5)


@settings(deadline=None)
@given(count=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_the_validation_split_is_the_rounded_share_and_neither_side_is_empty(
    count: int, share: float, seed: int
) -> None:
    raw = RawImages(numbered(count), numbered(3, first=1000))
    splits = split(raw, spec(validation=share), seed=seed)
    assert len(splits.validation) == min(max(int(count * share + 0.5), 1), count - 1)
    assert len(splits.train) == count - len(splits.validation)
    assert numbers(splits.test) == [1000, 1001, 1002]


def test_three_images_are_one_in_each_split_and_fewer_are_refused() -> None:
    splits = split(RawImages(numbered(3)), spec(), seed=0)
    assert [len(images) for images in splits.parts.values()] == [1, 1, 1]
    for count, key in ((2, r"data\.validation"), (1, "the test split")):
        with pytest.raises(DataError, match=f"{key}: 1 image cannot be split: .*take more images"):
            split(RawImages(numbered(count)), spec(), seed=0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1), total=st.integers(30, 200), data=st.data())
def test_subsets_are_drawn_without_repetition_from_the_right_part(
    seed: int, total: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(10, total))
    chosen = spec(train_images=count, test_images=5)
    splits = split(RawImages(numbered(total), numbered(20, first=1000)), chosen, seed=seed)
    train = numbers(splits.train) + numbers(splits.validation)
    assert len(set(train)) == len(train) == count
    assert max(train) < total
    assert len(set(numbers(splits.test))) == 5
    assert min(numbers(splits.test)) >= 1000


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_seed_decides_everything(seed: int) -> None:
    raw, chosen = RawImages(numbered(200)), spec(train_images=100)
    torch.manual_seed(seed + 1)
    first = split(raw, chosen, seed=seed)
    torch.manual_seed(5)
    second, other = split(raw, chosen, seed=seed), split(raw, chosen, seed=(seed + 1) % 2**31)
    assert first.hash == second.hash
    assert torch.equal(first.train, second.train)
    assert set(numbers(first.validation)) != set(numbers(other.validation))
    assert first.hash != other.hash


def test_splitting_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    split(RawImages(numbered(30)), spec(), seed=0)
    assert torch.equal(torch.rand(2), expected)


def test_a_split_is_the_same_on_every_machine() -> None:
    """Recorded: a change here makes all existing studies' data differ."""
    splits = split(RawImages(numbered(20)), spec(validation=0.25), seed=7)
    assert numbers(splits.validation) == [5, 11, 4, 12, 8]
    assert splits.hash.startswith("fa362c21ba6e")


def test_a_subset_is_not_the_first_images() -> None:
    splits = split(RawImages(numbered(500), numbered(5)), spec(train_images=100), seed=0)
    assert max(numbers(splits.train)) > 200


@pytest.mark.parametrize("part", ["train", "test"])
def test_asking_for_more_images_than_there_are_names_both_numbers(part: str) -> None:
    raw = RawImages(numbered(30), numbered(20))
    message = f"data.{part}_images = 31: npz has only {30 if part == 'train' else 20} {part}"
    with pytest.raises(DataError, match=message):
        split(raw, spec(**{f"{part}_images": 31}), seed=0)


def test_asking_for_all_images_keeps_them() -> None:
    raw = RawImages(numbered(30), numbered(20))
    asked = split(raw, spec(train_images=30, test_images=20), seed=0)
    assert asked.hash == split(raw, spec(), seed=0).hash


def test_splits_are_contiguous_uint8() -> None:
    strided = numbered(40)[::2]
    splits = split(RawImages(strided, strided), spec(), seed=0)
    for part in (splits.train, splits.validation, splits.test):
        assert part.dtype == torch.uint8
        assert part.is_contiguous()
    assert splits.image_shape == (1, 1, 2)


def test_the_hash_tells_a_changed_pixel_and_a_changed_shape() -> None:
    images = numbered(40)
    before = split(RawImages(images, images), spec(), seed=0).hash
    changed = images.copy()
    changed[17, 0, 0, 0] ^= 1
    assert split(RawImages(changed, images), spec(), seed=0).hash != before
    turned = images.transpose(0, 1, 3, 2)
    assert split(RawImages(turned, turned), spec(), seed=0).hash != before


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            np.zeros((4, 3, 8, 8), np.uint8),
            np.zeros((4, 1, 8, 8), np.uint8),
            "3 x 8 x 8.*1 x 8 x 8",
        ),
        (np.zeros((4, 5, 8, 8), np.uint8), None, r"train images are uint8 of shape \(4, 5, 8, 8\)"),
        (np.zeros((4, 3, 8, 8), np.int16), None, "train images are int16"),
        (np.zeros((0, 3, 8, 8), np.uint8), None, "no train image"),
    ],
)
def test_raw_images_that_do_not_fit_are_refused(
    train: np.ndarray, test: np.ndarray | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        RawImages(train, test)


def test_describe_is_json_with_counts_and_hash() -> None:
    splits = split(RawImages(numbered(30), numbered(20)), spec(), seed=0)
    assert json.loads(json.dumps(describe_splits(splits))) == {
        "train": 27,
        "validation": 3,
        "test": 20,
        "image_shape": [1, 1, 2],
        "bytes": 100,
        "hash": splits.hash,
        "white": 255,
        "levels": {
            "train": {"min": 0, "mean": 7.407, "max": 29},
            "validation": {"min": 0, "mean": 5.833, "max": 20},
            "test": {"min": 0, "mean": 4.75, "max": 19},
        },
        "also_in_train": {"validation": 0, "test": 18},
    }


def test_require_accepts_the_same_data_and_names_both_hashes_otherwise() -> None:
    image = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    splits = Splits(image, image, image, hash="a" * 64)
    require_same_data(splits, "a" * 64)
    with pytest.raises(DataError, match=r"hash aaaaaaaaaaaa\).*hash bbbbbbbbbbbb\).*--data-dir"):
        require_same_data(splits, "b" * 64)


def test_every_source_of_a_study_file_can_be_read() -> None:
    assert set(SOURCES) == set(get_args(Source))


def test_load_works_without_anyone_to_tell(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.full((30, 8, 8), 199, np.uint8))
    assert load_splits(spec(), data_dir=tmp_path, seed=0).image_shape == (1, 8, 8)


def test_files_that_can_be_read_in_two_ways_are_refused_except_for_a_study_made_with_them(
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "x.npz", images=np.eye(8, dtype=np.uint8)[None].repeat(30, 0))
    with pytest.raises(
        DataError, match=r"no value exceeds 1, .* white = 1 under .data., or white = 255"
    ):
        load_splits(spec(), data_dir=tmp_path, seed=0)
    said: list[str] = []
    known = load_splits(spec(), data_dir=tmp_path, seed=0, progress=said.append, accept_doubts=True)
    assert known.train.max() == 1
    assert any(line.startswith("warning: ") and "white = 1 under [data]" in line for line in said)
    # The two answers that the message gives.
    assert load_splits(spec(white=255), data_dir=tmp_path, seed=0).hash == known.hash
    assert load_splits(spec(white=1), data_dir=tmp_path, seed=0).train.max() == 255


def test_images_that_are_trained_on_and_tested_on_are_counted() -> None:
    splits = split(RawImages(numbered(30), numbered(20, first=25)), spec(), seed=0)
    trained = numbers(splits.train)
    both = sum(n in trained for n in range(25, 45))
    assert 0 < both < 20
    assert splits.also_in_train == {"validation": 0, "test": both}
    (warning,) = [w for w in split_warnings(splits) if "training split too" in w]
    assert warning.startswith(f"{both} of 20 test images are in the training split too")


def test_images_of_one_colour_are_counted() -> None:
    drawings = np.full((40, 1, 4, 4), 255, np.uint8)
    drawings[:30, 0, 0] = np.arange(120).reshape(30, 4)
    blank = [w for w in split_warnings(split(RawImages(drawings), spec(), seed=0)) if "colour" in w]
    assert sum(int(w.split()[0]) for w in blank) == 10
    assert split_warnings(split(RawImages(numbered(30, first=1)), spec(), seed=0)) == []


def test_single_images_on_another_scale_are_counted() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    images[:20] //= 128
    splits = split(RawImages(images, images), spec(), seed=0)
    warnings = [w for w in split_warnings(splits) if "almost black" in w]
    assert any(w.startswith("20 of 60 test images are almost black (no level") for w in warnings)
    dark = split(RawImages(images[:20], images[:20]), spec(), seed=0)
    assert not any("almost black" in w for w in split_warnings(dark)), "all are: white is given"


def test_a_key_that_changes_nothing_is_spoken_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.full((30, 8, 8), 199, np.uint8))
    said: list[str] = []
    load_splits(spec(image_size=16), data_dir=tmp_path, seed=0, progress=said.append)
    assert "npz: data.image_size changes nothing here; it is for folder" in said
    load_splits(spec(), data_dir=tmp_path, seed=0, progress=said.append)
    assert sum("changes nothing" in line for line in said) == 1


@pytest.mark.parametrize("name", ["npz", "csv"])
def test_a_folder_in_the_place_of_a_file_says_which_source_reads_it(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match='photos is a folder; write name = "folder"'):
        load_splits(spec(name=name, path="photos"), data_dir=tmp_path, seed=0)
