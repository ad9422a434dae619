"""Decoded images, kept for the workers of a machine: the same images, or none."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from searchae.data import decoded_cache
from searchae.data.splits import Splits
from searchae.training.images import ResidentImages


def splits(hash_: str = "abc", channels: int = 3) -> Splits:
    draws = torch.Generator().manual_seed(0)
    train, validation, test = (
        torch.randint(0, 256, (n, channels, 6, 5), dtype=torch.uint8, generator=draws)
        for n in (7, 3, 2)
    )
    return Splits(train, validation, test, hash_)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_kept_is_found_again(tmp_path: Path, channels: int) -> None:
    made = splits(channels=channels)
    assert decoded_cache.find_decoded("abc", tmp_path) is None
    assert decoded_cache.keep_decoded(made, tmp_path)
    found = decoded_cache.find_decoded("abc", tmp_path)
    assert found is not None
    assert torch.equal(found[0], made.train)
    assert torch.equal(found[1], made.validation)
    assert decoded_cache.find_decoded("other", tmp_path) is None
    assert decoded_cache.keep_decoded(made, tmp_path), "once more changes nothing"
    assert sorted(p.name for p in (tmp_path / "decoded").iterdir()) == ["abc"], "no draft is left"


def test_no_trial_copies_what_is_mapped(tmp_path: Path) -> None:
    decoded_cache.keep_decoded(splits(), tmp_path)
    found = decoded_cache.find_decoded("abc", tmp_path)
    assert found is not None
    resident = ResidentImages.on(torch.device("cpu"), found[0], channels_last=True)
    assert resident.rows.data_ptr() == found[0].data_ptr()


def test_the_test_split_is_found_too(tmp_path: Path) -> None:
    assert decoded_cache.find_decoded_test("abc", tmp_path) is None
    decoded_cache.keep_decoded(splits(), tmp_path)
    found = decoded_cache.find_decoded_test("abc", tmp_path)
    assert found is not None
    assert torch.equal(found, splits().test)


def test_what_an_earlier_version_kept_is_used_and_then_replaced(tmp_path: Path) -> None:
    """It kept no test split."""
    decoded_cache.keep_decoded(splits(), tmp_path)
    home = tmp_path / "decoded" / "abc"
    (home / "test.npy").unlink()
    sums = json.loads((home / "sha256.json").read_text())
    del sums["test"]
    (home / "sha256.json").write_text(json.dumps(sums))
    assert decoded_cache.find_decoded("abc", tmp_path) is not None
    assert decoded_cache.find_decoded_test("abc", tmp_path) is None
    assert decoded_cache.keep_decoded(splits(), tmp_path)
    assert decoded_cache.find_decoded_test("abc", tmp_path) is not None
    assert [p.name for p in (tmp_path / "decoded").iterdir()] == ["abc"], "nothing is left over"


def test_writing_to_them_changes_no_file(tmp_path: Path) -> None:
    decoded_cache.keep_decoded(splits(), tmp_path)
    first = decoded_cache.find_decoded("abc", tmp_path)
    assert first is not None
    first[0].zero_()
    again = decoded_cache.find_decoded("abc", tmp_path)
    assert again is not None
    assert torch.equal(again[0], splits().train)


@pytest.mark.parametrize("harm", ["changed", "cut", "missing sum", "no json"])
def test_damaged_ones_are_not_used(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    decoded_cache.keep_decoded(splits(), tmp_path)
    home = tmp_path / "decoded" / "abc"
    content = bytearray((home / "train.npy").read_bytes())
    if harm == "changed":
        content[-1] ^= 1
        (home / "train.npy").write_bytes(content)
    elif harm == "cut":
        (home / "train.npy").write_bytes(content[:-9])
    elif harm == "missing sum":
        (home / "sha256.json").write_text("{}")
    else:
        (home / "sha256.json").write_text("half a f")
    with caplog.at_level(logging.WARNING):
        assert decoded_cache.find_decoded("abc", tmp_path) is None
    assert "of no use" in caplog.text


def test_those_of_old_studies_are_removed(tmp_path: Path) -> None:
    for age in range(6):
        assert decoded_cache.keep_decoded(replace(splits(), hash=f"study-{age}"), tmp_path)
        os.utime(tmp_path / "decoded" / f"study-{age}", (1000 + age, 1000 + age))
    decoded_cache.keep_decoded(replace(splits(), hash="now"), tmp_path)
    left = sorted(p.name for p in (tmp_path / "decoded").iterdir())
    assert left == ["now", "study-3", "study-4", "study-5"]


def test_where_they_cannot_be_written_the_search_goes_on(tmp_path: Path) -> None:
    (tmp_path / "decoded").write_text("a file")
    assert not decoded_cache.keep_decoded(splits(), tmp_path)
    assert decoded_cache.find_decoded("abc", tmp_path) is None


def test_two_at_once_leave_one_whole(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from searchae.data import decoded_cache; "
        "from tests.unit.test_data_decoded_cache import splits; "
        "assert decoded_cache.keep_decoded(splits(), Path(sys.argv[1]))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert decoded_cache.find_decoded("abc", tmp_path) is not None
    assert [p.name for p in (tmp_path / "decoded").iterdir()] == ["abc"]
