"""Files with the measurements of one listed training: ``.npz``, read without unpickling."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from searchae.errors import SearchaeError
from searchae.files import PATIENT_S, AnyPath, ArtifactPath, artifact_folder, below
from searchae.training import EpochResult

SHOWN_IMAGES = 8
"""Number of test images whose reconstructions are stored."""
FAILURE_VERBS = {
    "diverged": "diverged (its loss or weights became infinite)",
    "dead": "died (its net gave the same picture for every image and could no longer learn)",
}
"""The values of ``TrainingRecord.ended`` for failed trainings, with verbs for messages."""

WRITING_S = 600.0
"""Seconds that a training's end waits for an object store: without its measurements, it is lost."""
LARGEST_RECORD = 2**31
"""Bytes of the largest file that is read; it may hold the weights of a net."""

_FORMAT = 2
_KEY = re.compile(r"[0-9a-f]{16}")
_CORRUPT_FILE_ERRORS = (zipfile.BadZipFile, zlib.error)
_ARRAYS = ("psnr_db", "mse", "ssim", "pictures")
_SCALARS = ("seed", "epoch", "ended", "sparsity", "hoyer")
_WEIGHT = "weight:"


class RecordError(SearchaeError):
    """A stored training cannot be read or belongs to another training."""


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """One training, measured on the test split.

    Attributes:
        seed: Seed of initialization, shuffling and noise.
        epoch: The epoch with the best validation PSNR, from 1, whose weights were measured; the
            first of equal ones; 0 if the training diverged before the end of the first.
        ended: ``epochs``, ``plateau``, ``diverged`` or ``dead``.
        history: The results of all epochs.
        sparsity: Share of test latents below 1e-3 in magnitude.
        hoyer: Hoyer's sparsity of the test latents, averaged over the images, in [0, 1].
        psnr_db: PSNR of each test image in dB: float64 (N,).
        mse: MSE of each test image on the [0, 1] scale: float64 (N,).
        ssim: SSIM of each test image: float64 (N,).
        pictures: Reconstructions of a few test images: uint8 (n, C, H, W).
        runtime: Device, precision, threads and versions of the training, as the trial has them.
        weights: The weights after ``epoch``, on the CPU; empty if they were not to be kept.
    """

    seed: int
    epoch: int
    ended: str
    history: tuple[EpochResult, ...]
    sparsity: float
    hoyer: float
    psnr_db: npt.NDArray[np.float64]
    mse: npt.NDArray[np.float64]
    ssim: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.uint8]
    runtime: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def has_failed(self) -> bool:
        """Whether the training diverged or died."""
        return self.ended in FAILURE_VERBS

    def searched_psnr_db(self, baseline_db: float) -> float:
        """Returns the result as the search defines it: the last epoch's validation PSNR in dB.

        Args:
            baseline_db: The result of a failed training.
        """
        return baseline_db if self.has_failed else self.history[-1].psnr_db

    def summary(self) -> dict[str, Any]:
        """Returns the means over the test images, as JSON values."""
        names = ("psnr_db", "mse", "ssim")
        values = {name: torch.from_numpy(getattr(self, name)) for name in names}
        means = {name: float(value.mean()) for name, value in values.items()}  # as in a bundle
        return {**{name: getattr(self, name) for name in _SCALARS}, **means}


def shown_indices(count: int) -> list[int]:
    """Returns evenly spaced indices of the images to show, the first and the last included.

    Args:
        count: Number of images.
    """
    if count <= SHOWN_IMAGES:
        return list(range(count))
    return [i * (count - 1) // (SHOWN_IMAGES - 1) for i in range(SHOWN_IMAGES)]


def record_path(artifacts: AnyPath, study: str, key: str) -> AnyPath:
    """Returns the file of a training.

    Args:
        artifacts: The folder that all workers share.
        study: The name of the folder of the study that lists the training.
        key: The training's key, which may come from a database.

    Raises:
        RecordError: It is none.
    """
    if not _KEY.fullmatch(key):
        raise RecordError(f"{key!a} is not the key of a training")
    return below(artifacts, study, "records", f"{key}.npz")


def write_record(path: ArtifactPath, record: TrainingRecord, key: str) -> str:
    """Writes a training atomically.

    Args:
        path: The file; its folder is created.
        record: The training.
        key: What identifies the training.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        OSError: The file cannot be written.
    """
    about = {
        "format": _FORMAT,
        "key": key,
        **{name: getattr(record, name) for name in _SCALARS},
        "runtime": dict(record.runtime),
        "history": [asdict(r) for r in record.history],
    }
    text = np.frombuffer(json.dumps(about, allow_nan=False).encode(), dtype=np.uint8)
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    weights = {_WEIGHT + name: w.numpy() for name, w in record.weights.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{"about": text, **arrays, **weights})
    with artifact_folder(path.parent, patience_s=WRITING_S).writing(path.name) as file:
        file.write(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_content(path: ArtifactPath, sha256: str | None) -> bytes:
    """Reads the file of a training.

    Args:
        path: The file.
        sha256: Its SHA-256 as the study has it, in hexadecimal; None for a study of an earlier
            version, which has none.

    Raises:
        RecordError: The file is missing, damaged, or belongs to another study or training.
    """
    try:
        folder = artifact_folder(path.parent, patience_s=PATIENT_S)
        with folder.reading(path.name, limit=LARGEST_RECORD) as file:
            content = file.read()
    except OSError as e:
        raise RecordError(f"{path}: cannot be read: {e}") from e
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise RecordError(f"{path}: is damaged, or of another study")
    return content


def read_record(path: ArtifactPath, key: str, sha256: str | None = None) -> TrainingRecord:
    """Reads a training back.

    Args:
        path: The file.
        key: The key of the expected training.
        sha256: See ``read_content``.

    Raises:
        RecordError: The file is missing, damaged, or belongs to another study or training.
    """
    content = read_content(path, sha256)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            about = json.loads(archive["about"].tobytes())
            arrays = {name: archive[name] for name in _ARRAYS}
            weights = {
                name.removeprefix(_WEIGHT): torch.from_numpy(archive[name])
                for name in archive.files
                if name.startswith(_WEIGHT)
            }
        if about["format"] != _FORMAT or about["key"] != key:
            raise RecordError(f"{path}: is of another training or another version of searchae")
        return TrainingRecord(
            **{name: about[name] for name in _SCALARS},
            history=tuple(EpochResult(**r) for r in about["history"]),
            runtime=about["runtime"],
            weights=weights,
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, *_CORRUPT_FILE_ERRORS) as e:
        raise RecordError(f"{path}: cannot be read: {e}") from e
