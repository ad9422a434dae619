"""Files with the result of one training: ``.npz``, read without unpickling."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.errors import SearchaeError
from searchae.files import atomic_file
from searchae.retrain import FAILURE_VERBS
from searchae.training import EpochResult

SHOWN_IMAGES = 8
"""Number of test images whose reconstructions are stored."""
_FORMAT = 1
_CORRUPT_FILE_ERRORS = (zipfile.BadZipFile, zlib.error)
_ARRAYS = ("psnr_db", "mse", "ssim", "pictures")
_SCALARS = ("trial", "seed", "epoch", "ended", "sparsity")


class RecordError(SearchaeError):
    """A stored training cannot be read or belongs to another training."""


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """One training, measured on the test split.

    Attributes:
        trial: The trial's number.
        seed: Seed of initialization, shuffling and noise.
        epoch: The epoch with the best validation PSNR, whose weights were measured; 0 if the
            training diverged before the end of the first.
        ended: ``epochs``, ``plateau``, ``diverged`` or ``dead``.
        history: The results of all epochs.
        sparsity: Share of test latents below 1e-3 in magnitude.
        psnr_db: PSNR of each test image in dB: float64 (N,).
        mse: MSE of each test image on the [0, 1] scale: float64 (N,).
        ssim: SSIM of each test image: float64 (N,).
        pictures: Reconstructions of a few test images: uint8 (n, C, H, W).
    """

    trial: int
    seed: int
    epoch: int
    ended: str
    history: tuple[EpochResult, ...]
    sparsity: float
    psnr_db: npt.NDArray[np.float64]
    mse: npt.NDArray[np.float64]
    ssim: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.uint8]

    def searched_psnr_db(self, baseline_db: float) -> float:
        """Returns the result as the search defines it: the last epoch's validation PSNR in dB.

        Args:
            baseline_db: The result of a failed training.
        """
        return baseline_db if self.ended in FAILURE_VERBS else self.history[-1].psnr_db


def shown_indices(count: int) -> list[int]:
    """Returns evenly spaced indices of the images to show, the first and the last included.

    Args:
        count: Number of images.
    """
    if count <= SHOWN_IMAGES:
        return list(range(count))
    return [i * (count - 1) // (SHOWN_IMAGES - 1) for i in range(SHOWN_IMAGES)]


def write_record(path: Path, record: TrainingRecord, identity: Mapping[str, Any]) -> None:
    """Writes a training atomically.

    Args:
        path: The file.
        record: The training.
        identity: What identifies the training; JSON values.

    Raises:
        OSError: The file cannot be written.
    """
    about = {
        "format": _FORMAT,
        "identity": identity,
        **{name: getattr(record, name) for name in _SCALARS},
        "history": [asdict(r) for r in record.history],
    }
    text = np.frombuffer(json.dumps(about, allow_nan=False).encode(), dtype=np.uint8)
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    with atomic_file(path) as file:
        np.savez_compressed(file, about=text, **arrays)


def read_record(path: Path, identity: Mapping[str, Any]) -> TrainingRecord:
    """Reads a training back.

    Args:
        path: The file.
        identity: The identity of the expected training.

    Raises:
        RecordError: The file is damaged, or belongs to another training.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(archive["about"].tobytes())
            arrays = {name: archive[name] for name in _ARRAYS}
        if about["format"] != _FORMAT or about["identity"] != json.loads(json.dumps(identity)):
            raise RecordError("it is of another training or another version of searchae")
        return TrainingRecord(
            **{name: about[name] for name in _SCALARS},
            history=tuple(EpochResult(**r) for r in about["history"]),
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, *_CORRUPT_FILE_ERRORS) as e:
        raise RecordError(f"cannot be read: {e}") from e
