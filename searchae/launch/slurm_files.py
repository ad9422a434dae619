"""The files of a job array on the file system that the nodes share.

Others may be able to write the folder that holds theirs: no link is followed, and what is not the
user's own is not used.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from searchae.files import SharedFolder
from searchae.launch.logs import open_log

log = logging.getLogger(__name__)

LARGEST_MESSAGES = 2**20
"""Size in bytes from which Slurm's own messages of a task are not read."""

_LARGEST_CODE = 16
_ENVIRONMENT = ".env"


@dataclass(frozen=True)
class Files:
    """The files of a job array.

    Attributes:
        folder: On the file system that the nodes share.
        name: The array's name in the queue, unique in the folder.
    """

    folder: Path
    name: str

    @property
    def environment(self) -> Path:
        """The workers' variables, secrets among them."""
        return self.folder / f"{self.name}{_ENVIRONMENT}"

    def exit(self, index: int | str) -> Path:
        """Returns the file that holds a task's exit code once its worker has ended."""
        return self.folder / "exits" / f"{self.name}-{index}"

    def slurm_log(self, index: int | str) -> Path:
        """Returns the file with Slurm's own messages: cancelled, out of memory, time limit."""
        return self.folder / f"{self.name}-{index}.slurm"

    def create(self, environment: str) -> None:
        """Creates the folders and the environment file, all for the user alone.

        Raises:
            OSError: They cannot be created, or somebody else's folder or a link is in the way.
        """
        for folder in (self._outer, self._exits):
            folder.make_private()
        with self._outer.creating(self.environment.name, mode=0o600) as file:
            file.write(environment.encode())

    def exit_code(self, index: int) -> int:
        """Returns a worker's exit code; negative for a signal. Without a file it was SIGKILL.

        Call it only after the task has left the queue: a shared file system may cache for a minute
        that a file does not exist.
        """
        content = _read(self._exits, self.exit(index).name, limit=_LARGEST_CODE)
        try:
            code = int(content)
        except ValueError:
            return -signal.SIGKILL
        # 130 is the exit code of a worker that was asked to stop; Slurm sends no SIGINT.
        return 128 - code if 128 < code <= 128 + 64 and code != 130 else code

    def append_messages(self, index: int, target: Path) -> None:
        """Appends Slurm's own messages of a task to a log.

        Raises:
            OSError: The log cannot be written.
        """
        content = _read(self._outer, self.slurm_log(index).name, limit=LARGEST_MESSAGES)
        if content:
            with open_log(target) as out:
                out.write(content)

    def remove(self, indices: Iterable[int], *, shared: bool = True) -> None:
        """Removes the files of tasks.

        Args:
            indices: The tasks.
            shared: Also remove the environment of the array.
        """
        for index in indices:
            _remove(self._exits, self.exit(index).name)
            _remove(self._outer, self.slurm_log(index).name)
        if shared:
            _remove(self._outer, self.environment.name)

    @property
    def _outer(self) -> SharedFolder:
        return SharedFolder(self.folder, depth=1)

    @property
    def _exits(self) -> SharedFolder:
        return SharedFolder(self.exit("").parent)


def own_folder(folder: Path) -> Path:
    """Returns a folder, or one beside it where a link or another user's folder is in the way."""
    try:
        about = os.lstat(folder)
    except FileNotFoundError:
        return folder
    is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    return folder if is_own else folder.with_name(f"{folder.name}-user{os.geteuid()}")


def environments(folder: Path, *, older_s: float) -> list[str]:
    """Returns the names of the arrays whose environment file is in a folder.

    Args:
        folder: The folder.
        older_s: Only files that were written at least so many seconds ago.

    Raises:
        OSError: The folder cannot be read.
    """
    shared = SharedFolder(folder, depth=1)
    return [
        name.removesuffix(_ENVIRONMENT)
        for name in shared.names()
        if name.startswith("searchae-")
        and name.endswith(_ENVIRONMENT)
        and shared.age_s(name) >= older_s
    ]


def _read(folder: SharedFolder, name: str, *, limit: int) -> bytes:
    """Returns a file's content; nothing if there is none, or something else in its place."""
    try:
        with folder.reading(name, limit=limit) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as e:
        log.warning("%s", e)
        return b""


def _remove(folder: SharedFolder, name: str) -> None:
    try:
        folder.remove(name)
    except OSError as e:
        log.warning("%s", e)
