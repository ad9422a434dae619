"""A search that has ended, made by one worker in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from searchae import data
from searchae.config.loader import load_study_file
from searchae.storage.connection import connect
from searchae.study.stored_study import StoredStudy, open_study
from searchae.training.metrics import mean_image_psnr_db
from searchae.worker.loop import Worker
from searchae.worker.options import WorkerOptions
from tests.conftest import make_folder


def search(at: Path, **changes: object) -> StoredStudy:
    """Searches the tiny study in a new user's folder; its database is ``searchae.db`` there."""
    folder = make_folder(at)
    stored = open_tiny(folder, changes)
    before = torch.get_num_threads()
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    try:
        Worker(stored, options).run()
    finally:
        torch.set_num_threads(before)
    return stored


def open_tiny(folder: Path, changes: Mapping[str, object]) -> StoredStudy:
    """Opens or creates the tiny study in ``searchae.db`` of a user's folder; trains nothing.

    Args:
        folder: The folder.
        changes: Key -> value of the study file's keys that differ.
    """
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    stored, _ = open_study(
        connect(f"sqlite:///{folder / 'searchae.db'}"),
        "tiny",
        spec=spec,
        data_hash=splits.hash,
        baseline_db=mean_image_psnr_db(splits.train, splits.validation),
    )
    return stored


def other_images(folder: Path) -> None:
    """Puts other images in the place of those that the study was made with."""
    path = folder / "data" / "tiny.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["x_test"][0] = 255 - arrays["x_test"][0]
    np.savez(path, **arrays)
