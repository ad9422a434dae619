"""Checkpoints: whole or not at all."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from searchae.training import checkpoint
from searchae.training.checkpoint import CheckpointError

STATE: dict[str, Any] = {
    "epoch": 3,
    "optimizer": {0: {"step": torch.tensor(7.0), "momentum_buffer": None}},
    "history": [{"psnr_db": 21.5}],
    "model": {"w": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)},
}


def sha256_in(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def test_a_state_comes_back_with_values_types_and_strides(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, STATE, stem="a")
    loaded = checkpoint.load_checkpoint(path, sha256_in(path))
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
    assert checkpoint.load_checkpoint(path, sha256_in(path)) == {"epoch": 4}


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt: cannot be read"):
        checkpoint.load_checkpoint(tmp_path / "gone.pt", "00")


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
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        checkpoint.load_checkpoint(path, sha256_in(path))


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
        checkpoint.load_checkpoint(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not Path("went-off").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1})])
def test_what_torch_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load_checkpoint(path, hashlib.sha256(content).hexdigest())


def test_a_lone_tensor_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.ones(2), path)
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        checkpoint.load_checkpoint(path, hashlib.sha256(path.read_bytes()).hexdigest())


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
    assert checkpoint.load_checkpoint(path, sha256_in(path))["epoch"] == 3


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save_checkpoint(tmp_path / "none", STATE, stem="a")
