"""The folder of one study below the artifact folder, which studies of many databases may share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from searchae.config import folder_name
from searchae.errors import ArtifactsError
from searchae.files import ArtifactPath, RemoteFolder, RemotePath, artifact_folder
from searchae.storage import ResilientStorage, study_attributes
from searchae.study.attributes import FOLDER

if TYPE_CHECKING:
    from searchae.study.stored_study import StoredStudy

OTHER_FOLDERS = frozenset({"pictures", "slurm"})
"""Folders below the artifact folder that belong to no study."""
KINDS = ("checkpoints", "compare", "logs", "pictures", "records")
"""Folders that searchae makes in a study's folder; whatever else is in it is somebody's own."""


@contextmanager
def claimed_folder(artifacts: ArtifactPath, study: str) -> Iterator[str]:
    """Creates the folder of a new study, which no other study has.

    Where there is a folder of the study's name already, it belongs to another study: one that was
    deleted, or one in another database. An object store has no folders that could be created, so
    that there each gets a name that no other one has.

    Args:
        artifacts: The folder that all workers share; created if missing.
        study: The study's name.

    Yields:
        The folder's name. If the block raises, the folder is removed if it is empty.

    Raises:
        ArtifactsError: It cannot be created.
    """
    own = folder_name(study)
    is_remote = isinstance(artifacts, RemotePath)
    name = f"{own}-{secrets.token_hex(4)}" if is_remote or own in OTHER_FOLDERS else own
    if isinstance(artifacts, RemotePath):
        yield name
        return
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
        release_folder(artifacts, name)
        raise


def release_folder(artifacts: ArtifactPath, name: str) -> None:
    """Removes a folder that was claimed in vain, if it is empty.

    Args:
        artifacts: The folder that all workers share.
        name: The folder's name.
    """
    if isinstance(artifacts, Path):
        with suppress(OSError):  # not empty
            (artifacts / name).rmdir()


def remove_folder(artifacts: ArtifactPath, stored: StoredStudy) -> list[str]:
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


def remove_files(folder: ArtifactPath) -> list[str]:
    """Removes what searchae has written into a study's folder, and the folder once it is empty.

    No link is followed.

    Args:
        folder: The study's folder.

    Returns:
        The names of what is left in it: files that are not searchae's.

    Raises:
        OSError: Something cannot be removed.
    """
    if isinstance(folder, RemotePath):
        for kind in KINDS:
            files = RemoteFolder(folder / kind)
            for name in files.names():
                files.remove(name)
        return []
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


def copy_files(source: ArtifactPath, target: ArtifactPath) -> None:
    """Copies what searchae has written into a study's folder to another one.

    No link is followed; what is no regular file is left out.

    Args:
        source: The study's folder, which need not exist.
        target: A folder below another artifact folder.

    Raises:
        OSError: A file cannot be read or written.
    """
    for kind in KINDS:
        inner = artifact_folder(source / kind)
        for name in inner.sizes():
            with (
                inner.reading(name, limit=sys.maxsize) as read,
                artifact_folder(target / kind).writing(name) as written,
            ):
                shutil.copyfileobj(read, written)


def size_of(folder: ArtifactPath) -> int:
    """Returns the bytes of the files in a study's folder; no link is followed.

    Raises:
        OSError: An object store cannot be read.
    """
    if isinstance(folder, RemotePath):
        return sum(sum(RemoteFolder(folder / kind).sizes().values()) for kind in KINDS)
    if folder.is_symlink():
        return 0
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                size += os.lstat(os.path.join(inner, name)).st_size
    return size
