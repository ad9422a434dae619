"""Keeps a study's decoded images for its workers on this machine."""

from __future__ import annotations

from pathlib import Path

from searchae.data import Splits, decoded_sums, keep_decoded
from searchae.study.attributes import DECODED
from searchae.study.stored_study import StoredStudy


def keep_images(stored: StoredStudy, splits: Splits, data_dir: Path) -> None:
    """Writes the images to the cache in the data folder, and their checksums to the study.

    Args:
        stored: The study.
        splits: Its images.
        data_dir: The data folder.
    """
    sums = stored.study.user_attrs.get(DECODED)
    if not isinstance(sums, dict):
        sums = decoded_sums(splits)
        stored.study.set_user_attr(DECODED, sums)
    keep_decoded(splits, data_dir, sums)
