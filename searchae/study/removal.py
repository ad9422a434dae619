"""Deletes a study with the lists of its trainings and its files."""

from __future__ import annotations

from dataclasses import dataclass

from searchae.errors import ArtifactsError
from searchae.files import ArtifactPath, RemotePath, files_here
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
    folder: ArtifactPath | None
    size: int
    kept: str
    artifacts: ArtifactPath
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
            if isinstance(self.folder, RemotePath):  # the logs of workers that ran here
                remove_files(files_here(self.artifacts) / self.study.folder)
            return remove_files(self.folder)
        except OSError as e:
            raise ArtifactsError(
                f"{self.artifacts}: the study is deleted, and files of it are left: "
                f"{e.filename}: {e.strerror or e}"
            ) from e


def plan_removal(storage: ResilientStorage, name: str, artifacts: ArtifactPath) -> list[Removal]:
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


def _removal(study: FoundStudy, artifacts: ArtifactPath) -> Removal:
    uploads = tuple(upload_names(study.storage, study.id))
    folder, size = _files_of(artifacts / study.folder)
    kept = ""
    if study.folder_shared_with:
        kept = f"a copy of the study in {study.folder_shared_with} has the same ones"
    elif folder is not None and not study.owned_folder:
        kept = "the study is of an earlier version, so they may be another one's"
    return Removal(study, folder, size, kept, artifacts, uploads)


def _files_of(folder: ArtifactPath) -> tuple[ArtifactPath | None, int]:
    """Returns a study's folder, None if there is none here, and the bytes in it.

    Raises:
        ArtifactsError: An object store cannot be read.
    """
    if isinstance(folder, RemotePath):
        try:
            size = size_of(folder)
        except OSError as e:
            raise ArtifactsError(f"{folder}: cannot be read: {e.strerror or e}") from e
        return (folder if size else None), size
    is_there = folder.is_dir() and not folder.is_symlink()
    return (folder if is_there else None), size_of(folder)


def removal_text(removal: Removal) -> str:
    """Returns what is deleted, as a line."""
    study = removal.study
    text = f"{study.name}: {format_count(study.trials, 'trial')}"
    if removal.folder is None:
        return f"{text}, no files here"
    if removal.kept:
        return f"{text}; the files in {removal.folder} stay: {removal.kept}"
    return f"{text}, {removal.size / 1e6:.1f} MB of files in {removal.folder}"
