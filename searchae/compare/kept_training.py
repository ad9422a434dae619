"""One kept training: a ``.npz`` that is read without unpickling anything."""

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

SHOWN = 8
"""Test images whose reconstructions are kept."""
_FORMAT = 1
_TORN = (zipfile.BadZipFile, zlib.error)
_ARRAYS = ("psnr_db", "mse", "ssim", "pictures")
_PLAIN = ("trial", "seed", "epoch", "ended", "sparsity")


class RecordError(SearchaeError):
    """A kept training is damaged or another one: do it again."""


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """One training, measured on the test split.

    Attributes:
        trial: Its number.
        seed: Decided initialisation, shuffling and noise.
        epoch: The weights measured are those after it, the best one on the validation split; 0
            if it diverged before.
        ended: ``epochs``, ``plateau``, ``diverged`` or ``dead``.
        history: Its epochs.
        sparsity: Share of test latents below 1e-3 in magnitude.
        psnr_db: Of each test image, in dB: float64 (N,).
        mse: Of each test image, on the [0, 1] scale: float64 (N,).
        ssim: Of each test image: float64 (N,).
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
        """What the search would have recorded: the last epoch's validation PSNR, in dB."""
        return baseline_db if self.ended in FAILURE_VERBS else self.history[-1].psnr_db


def shown(count: int) -> list[int]:
    """Which of ``count`` images' reconstructions are kept: at equal distances, the ends too."""
    if count <= SHOWN:
        return list(range(count))
    return [i * (count - 1) // (SHOWN - 1) for i in range(SHOWN)]


def write_record(path: Path, record: TrainingRecord, identity: Mapping[str, Any]) -> None:
    """Writes a training, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    about = {
        "format": _FORMAT,
        "identity": identity,
        **{name: getattr(record, name) for name in _PLAIN},
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
        identity: Of the training that is wanted.

    Raises:
        RecordError: The file is damaged, or of another training.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(archive["about"].tobytes())
            arrays = {name: archive[name] for name in _ARRAYS}
        if about["format"] != _FORMAT or about["identity"] != json.loads(json.dumps(identity)):
            raise RecordError("it is of another training or another version of searchae")
        return TrainingRecord(
            **{name: about[name] for name in _PLAIN},
            history=tuple(EpochResult(**r) for r in about["history"]),
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, *_TORN) as e:
        raise RecordError(f"cannot be read: {e}") from e
