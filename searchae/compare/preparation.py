"""Prepares the trainings of a comparison: the images, and the list that holds them."""

from __future__ import annotations

from searchae.config import ProgressCallback
from searchae.data import Splits
from searchae.launch import FleetRequest, Launcher, provide_images
from searchae.study import StoredStudy, TrainingList, load_images, open_training_list


def open_list(
    stored: StoredStudy, request: FleetRequest, launcher: Launcher, note: ProgressCallback
) -> tuple[TrainingList, Splits]:
    """Loads a study's images and opens its list of trainings, which is created if it is not there.

    Args:
        stored: The study.
        request: The workers.
        launcher: Where they run.
        note: Called with progress messages.

    Raises:
        DataError: The data here differs from the study's.
    """
    splits = load_images(stored, request.data_dir, note)
    listed = open_training_list(
        stored, data=stored.spec.data, data_hash=stored.data_hash, baseline_db=stored.baseline_db
    )
    provide_images(launcher, listed.stored, splits, request.data_dir, note)
    return listed, splits
