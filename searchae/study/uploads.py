"""Files that users of the dashboard have uploaded to a study or its trials."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from searchae.files import ArtifactPath, SharedFolder, files_here
from searchae.storage import (
    ResilientStorage,
    study_system_attributes,
    system_attributes,
    trials,
)

UPLOADS = "pictures"
"""The name of the folder that holds those of all studies."""
_KEY = re.compile(r"artifacts:([0-9a-fA-F-]+)")  # as Optuna writes it


def upload_names(storage: ResilientStorage, study_id: int) -> list[str]:
    """Returns the names of the files that were uploaded to a study, sorted.

    Args:
        storage: The database.
        study_id: The study's id in it.
    """
    of_study, of_trials = study_system_attributes, system_attributes
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    keys = sa.union(
        sa.select(of_study.c.key).where(of_study.c.study_id == study_id),
        sa.select(of_trials.c.key).where(
            of_trials.c.trial_id.in_(ids), of_trials.c.key.startswith("artifacts:")
        ),
    )

    def read() -> list[str]:
        with storage.engine.connect() as connection:
            found = map(_KEY.fullmatch, connection.scalars(keys))
            return sorted(match[1] for match in found if match)

    names: list[str] = storage.retried(read)
    return names


def remove_uploads(artifacts: ArtifactPath, names: Iterable[str]) -> None:
    """Removes uploaded files that are there.

    Args:
        artifacts: The artifact folder.
        names: See ``upload_names``.

    Raises:
        OSError: One cannot be removed.
    """
    folder = _folder(artifacts)
    for name in set(names) & set(folder.names()):
        folder.remove(name)


def copy_uploads(artifacts: ArtifactPath, artifacts_to: ArtifactPath, names: Iterable[str]) -> None:
    """Copies uploaded files that are there; no two have the same name.

    Args:
        artifacts: The artifact folder.
        artifacts_to: Another one.
        names: See ``upload_names``.

    Raises:
        OSError: One cannot be read or written.
    """
    folder, target = _folder(artifacts), _folder(artifacts_to)
    for name in set(names) & set(folder.names()):
        with folder.reading(name, limit=sys.maxsize) as read, target.writing(name) as written:
            shutil.copyfileobj(read, written)


def upload_folder(artifacts: ArtifactPath) -> Path:
    """Returns the folder of uploaded files, which are not put into an object store."""
    return files_here(artifacts) / UPLOADS


def _folder(artifacts: ArtifactPath) -> SharedFolder:
    return SharedFolder(upload_folder(artifacts), depth=1)
