"""States of a training on disk: whole or not at all, and known by their checksum."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from searchae.errors import SearchaeError

_ZIP = b"PK\x03\x04"


class CheckpointError(SearchaeError):
    """A checkpoint is missing, damaged or another training's: start that trial over."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> str:
    """Writes a state so that a reader finds the old file or the new one, even after a crash.

    Args:
        path: The file; its folder exists.
        state: Tensors and plain values.

    Returns:
        The SHA-256 of the file, in hex: what ``load`` wants to see.

    Raises:
        CheckpointError: The file system refused; the old file, if any, is untouched.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            _write_through(temporary, content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as e:
        raise CheckpointError(
            f"{path}: cannot be written: {e}; check the folder, its free space and its rights"
        ) from e
    return hashlib.sha256(content).hexdigest()


def load_checkpoint(path: Path, sha256: str) -> dict[str, Any]:
    """Reads a state back, with its tensors on the CPU.

    Args:
        path: The file.
        sha256: What ``save`` returned.

    Raises:
        CheckpointError: The file is missing, cut short or altered. Nothing of it was unpickled.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e}") from e
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{path}: damaged or replaced: {len(content)} bytes with SHA-256 {found[:12]}..., "
            f"expected {sha256[:12]}...; delete it, and the trial starts over"
        )
    # Anything but a zip archive would go to torch's reader of old formats.
    if not content.startswith(_ZIP):
        raise CheckpointError(f"{path}: is not a checkpoint of searchae: {content[:8]!r}...")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as e:
        raise CheckpointError(f"{path}: is not a checkpoint of searchae: {e}") from e
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state


def _write_through(path: Path, content: memoryview) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """The rename itself is on disk only once the folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
