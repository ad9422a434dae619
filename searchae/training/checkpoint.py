"""Checkpoint files: written atomically, and verified by a checksum when they are read."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from searchae.errors import SearchaeError
from searchae.files import atomic_file

_ZIP = b"PK\x03\x04"


class CheckpointError(SearchaeError):
    """A checkpoint cannot be written, or is missing, damaged or of another training."""


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, stem: str) -> Path:
    """Writes a state to ``folder/STEM-SHA256.pt``, atomically and durably.

    Args:
        folder: An existing folder.
        state: Tensors and plain values (numbers, texts, lists, dicts).
        stem: The first part of the file's name.

    Returns:
        The file. ``load_checkpoint`` needs the SHA-256 in its name (64 hexadecimal digits).

    Raises:
        CheckpointError: The file cannot be written; nothing is left of it.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.pt"
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as e:
        raise CheckpointError(
            f"{path}: cannot be written: {e}; check the folder, its free space and its rights"
        ) from e
    return path


def load_checkpoint(path: Path, sha256: str) -> dict[str, Any]:
    """Reads a state, with its tensors on the CPU.

    Args:
        path: The file.
        sha256: The expected SHA-256 of its content, in hexadecimal.

    Returns:
        The state that was given to ``save_checkpoint``.

    Raises:
        CheckpointError: The file is missing, truncated, altered, or no checkpoint. Pickled code
            in it is never run.
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
    # torch.load reads anything but a zip archive with its reader for old formats.
    if not content.startswith(_ZIP):
        raise CheckpointError(f"{path}: is not a checkpoint of searchae: {content[:8]!r}...")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as e:
        raise CheckpointError(f"{path}: is not a checkpoint of searchae: {e}") from e
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint")
    return state
