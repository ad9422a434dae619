"""Copies a study into another database, with the lists of its trainings and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from searchae.errors import ArtifactsError, StorageError, UserError
from searchae.files import ArtifactPath
from searchae.storage import (
    ResilientStorage,
    copy_study_rows,
    count_rows,
    database_error_text,
    masked_url,
    reading_snapshot,
    study_attributes,
    upsert,
)
from searchae.study.artifact_folder import claimed_folder, copy_files, remove_files
from searchae.study.attributes import FOLDER, SHARES_FOLDER
from searchae.study.found_study import FoundStudy, find_with_lists, require_idle
from searchae.study.leases import leases
from searchae.study.stored_study import load_study
from searchae.study.transaction import create_tables
from searchae.study.uploads import copy_uploads, upload_names

Progress = Callable[[int, int], object]
"""Called with the number of rows copied so far, and that of all."""


@dataclass(frozen=True)
class StudyCopy:
    """Copies one study; nothing of it is in the target until all of it is.

    Args:
        source: The database that it is in.
        target: The database that it is copied to.
        name: Its name in both.
        artifacts: The folder below which its files lie.
        artifacts_to: The folder below which they are copied; None to leave them where they are,
            for both studies.
        progress: Called from time to time.
    """

    source: ResilientStorage
    target: ResilientStorage
    name: str
    artifacts: ArtifactPath
    artifacts_to: ArtifactPath | None = None
    progress: Progress = lambda _done, _all: None
    _made: list[ArtifactPath] = field(default_factory=list, init=False, repr=False)

    def run(self) -> list[FoundStudy]:
        """Copies the study.

        Returns:
            The study and the lists of its trainings, as they are in the source.

        Raises:
            NoStudyError: There is no such study.
            UserError: The target has a study of its name, a worker is at work on it, or it is a
                list.
            StorageError: A database failed; the target is as it was.
            ArtifactsError: A file cannot be copied; the target is as it was.
        """
        found = self._checked()
        self.target.retried(lambda: create_tables(self.target.engine))
        with ExitStack() as stack:
            stack.callback(self._remove_files)  # unless all went well
            folders = {study.id: self._copy_files(study) for study in found}
            try:
                self._copy_rows(found, folders)
            except IntegrityError:
                raise self._exists(self.name) from None
            except DBAPIError as e:
                raise StorageError(
                    f"{masked_url(self.target.engine.url)}: nothing was copied: "
                    f"{database_error_text(e)}"
                ) from e
            stack.pop_all()
        if self.artifacts_to is None:
            for study in found:
                self._mark_source(study)
        return found

    def _checked(self) -> list[FoundStudy]:
        found = find_with_lists(self.source, self.name)
        if found[0].trainings_of:
            raise UserError(
                f"study {self.name!r} lists trainings of study {found[0].trainings_of!r}: it is "
                "copied with that one"
            )
        for study in found:
            load_study(self.source, study.name)  # raises if it is damaged, or being made
        if taken := {study.name for study in found} & set(self.target.study_names()):
            raise self._exists(min(taken))
        require_idle(found)
        return found

    def _exists(self, name: str) -> UserError:
        return UserError(
            f"study {name!r} exists in {masked_url(self.target.engine.url)}: rename that one "
            "(searchae mv) or delete it (searchae rm) first"
        )

    def _copy_rows(self, found: Sequence[FoundStudy], folders: dict[int, str]) -> None:
        with reading_snapshot(self.source.engine) as source, self.target.engine.begin() as target:
            rows = sum(count_rows(source, study.id) for study in found)
            done = 0

            def progress(written: int) -> None:
                nonlocal done
                done += written
                self.progress(done, rows)

            further = [leases] if sa.inspect(source).has_table(leases.name) else []
            for study in found:
                new_id = copy_study_rows(
                    source, target, study.id, name=study.name, further=further, progress=progress
                )
                self._set_folder(target, new_id, folders[study.id])

    def _set_folder(self, target: sa.Connection, study_id: int, folder: str) -> None:
        """Stores where the copy's files are, and whether they are another study's too."""
        shared = study_attributes.c.key == SHARES_FOLDER
        of_study = study_attributes.c.study_id == study_id
        target.execute(sa.delete(study_attributes).where(of_study, shared))
        key, value = FOLDER, folder
        if self.artifacts_to is None:
            key, value = SHARES_FOLDER, masked_url(self.source.engine.url)
        row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        target.execute(upsert(target.dialect.name, study_attributes, ["study_id", "key"], row))

    def _mark_source(self, study: FoundStudy) -> None:
        url = masked_url(self.target.engine.url)
        self.source.set_study_user_attr(study.id, SHARES_FOLDER, url)

    # -- files

    def _copy_files(self, study: FoundStudy) -> str:
        """Copies the study's files if that was asked for; returns its folder's name."""
        if self.artifacts_to is None:
            return study.folder
        with claimed_folder(self.artifacts_to, study.folder) as name:
            folder = self.artifacts_to / name
            self._made.append(folder)
        try:
            copy_files(self.artifacts / study.folder, folder)
            uploads = upload_names(self.source, study.id)
            copy_uploads(self.artifacts, self.artifacts_to, uploads)
        except OSError as e:
            raise ArtifactsError(
                f"--artifacts-to {self.artifacts_to}: {e.filename}: {e.strerror or e}"
            ) from e
        return name

    def _remove_files(self) -> None:
        for folder in self._made:
            with suppress(OSError):
                remove_files(folder)
