"""Checkpoint files: written atomically, and sealed for the study that they belong to."""

from __future__ import annotations

import hashlib
import hmac
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from searchae.errors import SearchaeError
from searchae.files import (
    PATIENT_S,
    AnyPath,
    ArtifactPath,
    RemotePath,
    artifact_folder,
    below,
)

LARGEST_CHECKPOINT = 2**31
"""Bytes of the largest file that is read: a net of some 90 million weights with Adam's moments."""
_ZIP = b"PK\x03\x04"


class CheckpointError(SearchaeError):
    """A checkpoint cannot be written, or is missing, damaged or of another training."""


@dataclass(frozen=True)
class Owner:
    """What a checkpoint belongs to: one study, and one set of images.

    Attributes:
        identity: The study's identity, which nothing in its folder tells. Empty for a study of an
            earlier version, whose checkpoints have a plain checksum.
        data_hash: SHA-256 of its images, in hexadecimal.
    """

    identity: str = ""
    data_hash: str = ""

    def seal(self, stem: str, content: bytes | memoryview) -> str:
        """Returns the seal of a checkpoint: 64 hexadecimal digits.

        Whoever does not know the study's identity can neither make one for another content, nor
        rename a file to another trial's.

        Args:
            stem: The first part of the file's name, which says its trial and epoch.
            content: The file's content.
        """
        if not self.identity:
            return hashlib.sha256(content).hexdigest()
        about = f"{self.data_hash}\0{stem}\0".encode()
        sealed = hmac.new(self.identity.encode(), about, hashlib.sha256)
        sealed.update(content)
        return sealed.hexdigest()


_NOBODY = Owner()


def save_checkpoint(
    folder: AnyPath, state: Mapping[str, Any], *, stem: str, owner: Owner = _NOBODY
) -> AnyPath:
    """Writes a state to ``folder/STEM-SEAL.pt``, atomically and durably.

    Args:
        folder: The folder; created if missing.
        state: Tensors and plain values (numbers, texts, lists, dicts).
        stem: The first part of the file's name.
        owner: What the state belongs to.

    Returns:
        The file.

    Raises:
        CheckpointError: The file cannot be written; nothing is left of it.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    path = below(folder, f"{stem}-{owner.seal(stem, content)}.pt")
    try:
        with artifact_folder(folder).writing(path.name) as file:
            file.write(content)
    except OSError as e:
        on_disk = "; check the folder, its free space and its rights"
        advice = "" if isinstance(path, RemotePath) else on_disk
        raise CheckpointError(f"{path}: cannot be written: {e.strerror or e}{advice}") from e
    return path


def load_checkpoint(path: ArtifactPath, *, owner: Owner = _NOBODY) -> dict[str, Any]:
    """Reads a state, with its tensors on the CPU.

    Args:
        path: The file, as ``save_checkpoint`` named it.
        owner: What it must belong to.

    Returns:
        The state that was given to ``save_checkpoint``.

    Raises:
        CheckpointError: The file is missing, truncated, altered, no checkpoint, or of another
            study or other images. Pickled code in it is never run.
    """
    try:
        folder = artifact_folder(path.parent, patience_s=PATIENT_S)
        with folder.reading(path.name, limit=LARGEST_CHECKPOINT) as file:
            content = file.read()
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e}") from e
    stem, _, seal = path.stem.rpartition("-")
    if not hmac.compare_digest(owner.seal(stem, content), seal):
        raise CheckpointError(
            f"{path}: is damaged, or of another study or other images ({len(content)} bytes); "
            "it is not used"
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
