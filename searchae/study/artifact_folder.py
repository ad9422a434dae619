"""The folder of one study below the artifact folder, which studies of many databases may share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from searchae.config import folder_name
from searchae.errors import ArtifactsError
from searchae.files import SharedFolder
from searchae.storage import ResilientStorage, study_attributes
from searchae.study.attributes import FOLDER

if TYPE_CHECKING:
    from searchae.study.stored_study import StoredStudy

OTHER_FOLDERS = frozenset({"pictures", "slurm"})
"""Folders below the artifact folder that belong to no study."""
KINDS = ("checkpoints", "compare", "logs", "pictures", "records")
"""Folders that searchae makes in a study's folder; whatever else is in it is somebody's own."""


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


def remove_folder(artifacts: Path, stored: StoredStudy) -> list[str]:
    """Removes the files of a study that has been deleted; see ``remove_files``.

    A folder that may be another study's stays: one of an earlier version, which goes by the name
    alone, one that another study in the same database has, and that of a copy in another database.

    Args:
        artifacts: The folder that all workers share.
        stored: The study.

    Returns:
        The names of what is left in the folder.

    Raises:
        OSError: Something in it cannot be removed.
    """
    if not stored.stored_folder or stored.folder_shared_with:
        return []
    if is_in_use(stored.storage, stored.folder):
        return []
    return remove_files(artifacts / stored.folder)


def is_in_use(storage: ResilientStorage, folder: str) -> bool:
    """Returns whether a study in a database has a folder.

    Args:
        storage: The database.
        folder: The folder's name below the artifact folder.
    """
    of_folder = (study_attributes.c.key == FOLDER) & (
        study_attributes.c.value_json == json.dumps(folder)
    )

    def read() -> bool:
        with storage.engine.connect() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(of_folder))))

    found: bool = storage.retried(read)
    return found


def remove_files(folder: Path) -> list[str]:
    """Removes what searchae has written into a study's folder, and the folder once it is empty.

    No link is followed.

    Args:
        folder: The study's folder.

    Returns:
        The names of what is left in it: files that are not searchae's.

    Raises:
        OSError: Something cannot be removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return []
    for kind in KINDS:
        inner = folder / kind
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner)
    left = sorted(os.listdir(folder))
    if not left:
        folder.rmdir()
    return left


def copy_files(source: Path, target: Path) -> None:
    """Copies what searchae has written into a study's folder to another one.

    No link is followed; what is no regular file is left out.

    Args:
        source: The study's folder, which need not exist.
        target: A folder below another artifact folder.

    Raises:
        OSError: A file cannot be read or written.
    """
    for kind in KINDS:
        inner = SharedFolder(source / kind)
        for name in inner.names():
            mode = (source / kind / name).lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            with (
                inner.reading(name, limit=sys.maxsize) as read,
                SharedFolder(target / kind).writing(name) as written,
            ):
                shutil.copyfileobj(read, written)


def size_of(folder: Path) -> int:
    """Returns the bytes of the files in a study's folder; no link is followed."""
    if folder.is_symlink():
        return 0
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                size += os.lstat(os.path.join(inner, name)).st_size
    return size
