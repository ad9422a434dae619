"""The folder of one study below the artifact folder, which studies of many databases may share."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from searchae.config import folder_name
from searchae.errors import ArtifactsError
from searchae.study.attributes import FOLDER

if TYPE_CHECKING:
    from searchae.study.stored_study import StoredStudy

OTHER_FOLDERS = frozenset({"pictures", "slurm"})
"""Folders below the artifact folder that belong to no study."""


@contextmanager
def claimed_folder(artifacts: Path, study: str) -> Iterator[str]:
    """Creates the folder of a new study, which no other study has.

    Where there is a folder of the study's name already, it belongs to another study: one that was
    deleted, or one in another database.

    Args:
        artifacts: The folder that all workers share; created if missing.
        study: The study's name.

    Yields:
        The folder's name. If the block raises, the folder is removed if it is empty.

    Raises:
        ArtifactsError: It cannot be created.
    """
    own = folder_name(study)
    name = f"{own}-{secrets.token_hex(4)}" if own in OTHER_FOLDERS else own
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        try:
            (artifacts / name).mkdir()
        except FileExistsError:
            name = f"{own}-{secrets.token_hex(4)}"
            (artifacts / name).mkdir()
    except OSError as e:
        raise ArtifactsError(
            f"--artifacts {artifacts}: cannot be written: {e.strerror or e}; choose another folder"
        ) from e
    try:
        yield name
    except BaseException:
        with suppress(OSError):  # not empty
            (artifacts / name).rmdir()
        raise


def remove_folder(artifacts: Path, stored: StoredStudy) -> None:
    """Removes the folder of a study that has been deleted.

    A folder that may be another study's stays: one of an earlier version, which goes by the name
    alone, and one that another study in the same database has. No link is followed.

    Args:
        artifacts: The folder that all workers share.
        stored: The study.

    Raises:
        OSError: Something in it cannot be removed.
    """
    folder = artifacts / stored.folder
    if not stored.stored_folder or folder.is_symlink() or not folder.is_dir():
        return
    others = stored.storage.get_all_studies()
    if not any(study.user_attrs.get(FOLDER) == stored.folder for study in others):
        shutil.rmtree(folder)
