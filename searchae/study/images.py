"""A study's images: read from their source, and kept decoded for the workers of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from searchae.config import ProgressCallback
from searchae.data import (
    Splits,
    decoded_folder,
    decoded_sums,
    keep_decoded,
    load_splits,
    require_same_data,
)
from searchae.study.attributes import DECODED
from searchae.study.stored_study import StoredStudy


def load_images(
    stored: StoredStudy, data_dir: Path, progress: ProgressCallback = lambda _: None
) -> Splits:
    """Loads the images that a study was made with.

    Args:
        stored: The study.
        data_dir: The data folder.
        progress: Called with progress messages.

    Raises:
        DataError: The data here differs from the study's.
    """
    spec = stored.spec
    # What is in doubt was so when the study was made, whose hash is checked here.
    splits = load_splits(
        spec.data, data_dir=data_dir, seed=spec.seed, progress=progress, accept_doubts=True
    )
    require_same_data(splits, stored.data_hash)
    return splits


def image_sums(stored: StoredStudy) -> Mapping[str, str] | None:
    """Returns the checksums of the decoded images; None in a study of an earlier version."""
    sums = stored.study.user_attrs.get(DECODED)
    return sums if isinstance(sums, dict) else None


def keep_images(stored: StoredStudy, splits: Splits, data_dir: Path) -> Path | None:
    """Writes the images to the cache in the data folder, and their checksums to the study.

    Args:
        stored: The study.
        splits: Its images.
        data_dir: The data folder.

    Returns:
        The folder that holds them; None if they could not be written.
    """
    sums = image_sums(stored)
    if sums is None:
        sums = decoded_sums(splits)
        stored.study.set_user_attr(DECODED, sums)
    return decoded_folder(splits.hash, data_dir) if keep_decoded(splits, data_dir, sums) else None
