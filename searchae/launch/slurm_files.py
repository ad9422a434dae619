"""The files of a job array on the file system that the nodes share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from searchae.launch.logs import open_log


@dataclass(frozen=True)
class Files:
    """The paths of a job array's files.

    Attributes:
        folder: On the file system that the nodes share.
        name: The array's name in the queue, unique in the folder.
    """

    folder: Path
    name: str

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.folder / f"{self.name}.sh"

    @property
    def environment(self) -> Path:
        """The workers' variables, secrets among them."""
        return self.folder / f"{self.name}.env"

    def exit(self, index: int | str) -> Path:
        """Returns the file that holds a task's exit code once its worker has ended."""
        return self.folder / "exits" / f"{self.name}-{index}"

    def slurm_log(self, index: int | str) -> Path:
        """Returns the file with Slurm's own messages: cancelled, out of memory, time limit."""
        return self.folder / f"{self.name}-{index}.slurm"

    def remove(self, indices: Iterable[int], *, shared: bool = True) -> None:
        """Removes the files of tasks.

        Args:
            indices: The tasks.
            shared: Also remove the script and the environment of the array.
        """
        paths = [path for i in indices for path in (self.exit(i), self.slurm_log(i))]
        if shared:
            paths += [self.script, self.environment]
        for path in paths:
            path.unlink(missing_ok=True)


def read_exit_code(path: Path) -> int:
    """Returns a worker's exit code; negative for a signal. Without a file it was SIGKILL.

    Call it only after the task has left the queue: a shared file system may cache for a minute
    that a file does not exist.
    """
    try:
        code = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return -signal.SIGKILL
    # 130 is the exit code of a worker that was asked to stop; Slurm sends no SIGINT.
    return 128 - code if 128 < code <= 128 + 64 and code != 130 else code


def append_file(source: Path, target: Path) -> None:
    """Appends one file to another; does nothing if the source does not exist."""
    try:
        content = source.read_bytes()
    except FileNotFoundError:
        return
    with open_log(target) as out:
        out.write(content)


def create_file(path: Path, text: str, mode: int) -> None:
    """Creates a file with these permissions from the start.

    Raises:
        FileExistsError: The file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
