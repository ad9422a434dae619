"""Deletes a study with the lists of its trainings and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchae.errors import ArtifactsError
from searchae.formatting import format_count
from searchae.storage import ResilientStorage
from searchae.study.artifact_folder import is_in_use, remove_files, size_of
from searchae.study.found_study import FoundStudy, find_with_lists, require_idle
from searchae.study.uploads import remove_uploads, upload_names


@dataclass(frozen=True)
class Removal:
    """A study that is to be deleted.

    Attributes:
        study: The study.
        folder: Its files; None if there are none here.
        size: Their bytes.
        kept: Why the files stay; empty if they are deleted too.
        artifacts: The folder that all workers share.
        uploads: The names of the files that users have uploaded to it.
    """

    study: FoundStudy
    folder: Path | None
    size: int
    kept: str
    artifacts: Path
    uploads: tuple[str, ...]

    def delete_rows(self) -> None:
        """Deletes the study from the database; nothing happens if it is gone.

        Raises:
            UserError: A worker is at work on it.
            StorageError: The database refuses it.
        """
        require_idle([self.study])
        try:
            self.study.storage.delete_study(self.study.id)
        except KeyError:
            return

    def delete_files(self) -> list[str]:
        """Deletes the files of a study that is no longer in the database.

        Returns:
            The names of what is left in its folder, which is not searchae's.

        Raises:
            ArtifactsError: Something cannot be removed.
        """
        if self.kept:
            return []
        try:
            remove_uploads(self.artifacts, self.uploads)
            if self.folder is None or is_in_use(self.study.storage, self.study.folder):
                return []
            return remove_files(self.folder)
        except OSError as e:
            raise ArtifactsError(
                f"{self.artifacts}: the study is deleted, and files of it are left: "
                f"{e.filename}: {e.strerror or e}"
            ) from e


def plan_removal(storage: ResilientStorage, name: str, artifacts: Path) -> list[Removal]:
    """Finds what goes with a study: the lists of its trainings, then itself.

    Args:
        storage: The database.
        name: The study's name.
        artifacts: The folder that all workers share.

    Raises:
        NoStudyError: There is no study of that name.
        StorageError: Another program has made it.
        UserError: A worker is at work on it.
    """
    found = find_with_lists(storage, name)
    require_idle(found)
    return [_removal(study, artifacts) for study in (*found[1:], found[0])]


def _removal(study: FoundStudy, artifacts: Path) -> Removal:
    uploads = tuple(upload_names(study.storage, study.id))
    found = artifacts / study.folder
    folder = found if found.is_dir() and not found.is_symlink() else None
    kept = ""
    if study.folder_shared_with:
        kept = f"a copy of the study in {study.folder_shared_with} has the same ones"
    elif folder is not None and not study.owned_folder:
        kept = "the study is of an earlier version, so they may be another one's"
    return Removal(study, folder, size_of(found), kept, artifacts, uploads)


def removal_text(removal: Removal) -> str:
    """Returns what is deleted, as a line."""
    study = removal.study
    text = f"{study.name}: {format_count(study.trials, 'trial')}"
    if removal.folder is None:
        return f"{text}, no files here"
    if removal.kept:
        return f"{text}; the files in {removal.folder} stay: {removal.kept}"
    return f"{text}, {removal.size / 1e6:.1f} MB of files in {removal.folder}"
