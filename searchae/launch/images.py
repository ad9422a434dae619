"""Puts a study's decoded images where its workers can map them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from searchae.data import Splits
from searchae.errors import DataError
from searchae.launch.base import CarriesFiles, Launcher
from searchae.study import StoredStudy, keep_images


def provide_images(
    launcher: Launcher,
    stored: StoredStudy,
    splits: Splits,
    data_dir: Path,
    note: Callable[[str], None],
) -> None:
    """Keeps decoded images for workers on this machine, or sends them to where the workers run.

    On Ray and Slurm workers read them from their source.

    Args:
        launcher: Where the workers run.
        stored: The study.
        splits: Its images.
        data_dir: The data folder.
        note: Told what is sent.

    Raises:
        DataError: They are to be sent, but the data folder cannot be written.
        UserError: A host has no room for them.
    """
    carries = isinstance(launcher, CarriesFiles)
    if not (launcher.is_local or carries):
        return
    kept = keep_images(stored, splits, data_dir)
    if isinstance(launcher, CarriesFiles):
        if kept is None:
            raise DataError(
                f"--data-dir {data_dir}: cannot be written, and the hosts get their images from it"
            )
        launcher.send_images(kept, note)
