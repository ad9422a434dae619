"""A study of tiny images that workers of this process search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from searchae import data
from searchae.config.loader import load_study_file
from searchae.storage.connection import connect
from searchae.study.stored_study import StoredStudy, open_study
from searchae.worker.loop import Worker
from searchae.worker.options import WorkerOptions


def make_study(folder: Path, name: str, **keys: Any) -> StoredStudy:
    """Makes a study in a database of its own.

    Args:
        folder: A user's folder, as the fixture of that name has it.
        name: The name of study and database.
        keys: Overrides of its study file, with ``__`` for the point.
    """
    changes = {key.replace("__", "."): value for key, value in keys.items()}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    storage = connect(f"sqlite:///{folder / name}.db")
    return open_study(storage, name, spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]


def worker(stored: StoredStudy, folder: Path, **more: Any) -> Worker:
    """Returns a worker of a study, with an artifact folder of the study's own."""
    artifacts = folder / f"artifacts-{stored.name}"
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=artifacts)
    return Worker(stored, options, **more)


def trials(stored: StoredStudy) -> list[FrozenTrial]:
    """Returns the trials of a study."""
    return stored.study.get_trials(deepcopy=False)
