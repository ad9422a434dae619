"""Checkpoints: whole or not at all."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from searchae.training import checkpoint
from searchae.training.checkpoint import CheckpointError, Owner

STATE: dict[str, Any] = {
    "epoch": 3,
    "optimizer": {0: {"step": torch.tensor(7.0), "momentum_buffer": None}},
    "history": [{"psnr_db": 21.5}],
    "model": {"w": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)},
}


OWNER = Owner("a" * 32, "b" * 64)


def renamed(path: Path, content: bytes) -> Path:
    """Gives a file some content, and the name that fits it in a study of an earlier version."""
    made = path.with_name(f"a-{hashlib.sha256(content).hexdigest()}.pt")
    made.write_bytes(content)
    return made


def test_a_state_comes_back_with_values_types_and_strides(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="a")
    loaded = checkpoint.load_checkpoint(path)
    assert loaded.keys() == STATE.keys()
    assert loaded["history"] == STATE["history"]
    assert loaded["optimizer"] == STATE["optimizer"]
    assert torch.equal(loaded["model"]["w"], STATE["model"]["w"])
    assert loaded["model"]["w"].stride() == STATE["model"]["w"].stride()


def test_the_checksum_is_the_file_s_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, {"epoch": 4}, stem="a")
    assert path.name == f"a-{hashlib.sha256(path.read_bytes()).hexdigest()}.pt"
    assert checkpoint.save_checkpoint(tmp_path, {"epoch": 4}, stem="a") == path
    assert list(tmp_path.iterdir()) == [path]
    assert checkpoint.load_checkpoint(path) == {"epoch": 4}


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt: cannot be read"):
        checkpoint.load_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"\0",
    ],
    ids=["halved", "emptied", "one bit", "longer"],
)
def test_damage_is_found(tmp_path: Path, damage: Any) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="a")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load_checkpoint(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("went-off"),)


def test_a_file_with_code_in_it_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch.save({"x": Bomb()}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load_checkpoint(renamed(path, path.read_bytes()))
    assert not Path("went-off").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1})])
def test_what_torch_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load_checkpoint(renamed(path, content))


def test_a_lone_tensor_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.ones(2), path)
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        checkpoint.load_checkpoint(renamed(path, path.read_bytes()))


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="a")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save_checkpoint(tmp_path, {"epoch": 4}, stem="a")
    assert list(tmp_path.iterdir()) == [path]
    assert checkpoint.load_checkpoint(path)["epoch"] == 3


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save_checkpoint(tmp_path / "file", STATE, stem="a")


@pytest.mark.parametrize(
    "other", [Owner(), Owner("c" * 32, "b" * 64), Owner("a" * 32, "d" * 64)],
    ids=["no study", "another study", "other images"],
)  # fmt: skip
def test_it_belongs_to_one_study_and_its_images(tmp_path: Path, other: Owner) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="a", owner=OWNER)
    assert checkpoint.load_checkpoint(path, owner=OWNER)["epoch"] == 3
    with pytest.raises(CheckpointError, match="of another study or other images"):
        checkpoint.load_checkpoint(path, owner=other)
    left = checkpoint.save_checkpoint(tmp_path, STATE, stem="b", owner=other)
    with pytest.raises(CheckpointError, match="of another study or other images"):
        checkpoint.load_checkpoint(left, owner=OWNER)


def test_another_trial_s_is_not_taken_under_a_new_name(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="000003-000001", owner=OWNER)
    moved = path.rename(path.with_name(path.name.replace("000003", "000004")))
    with pytest.raises(CheckpointError, match="of another study or other images"):
        checkpoint.load_checkpoint(moved, owner=OWNER)
