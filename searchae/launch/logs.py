"""The logs of workers, in the study's folder."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO

from searchae.errors import ArtifactsError
from searchae.files import SharedFolder, UnsafeFileError
from searchae.launch.base import Job

_LONGEST_LINE = 1000  # bytes, on average


def open_log(path: Path) -> IO[bytes]:
    """Opens a log to append to; no link is followed, which others may have put in its place.

    Raises:
        OSError: It cannot be written.
    """
    return SharedFolder(path.parent).appending(path.name)


def last_lines(path: Path, count: int) -> list[str]:
    """Returns a log's last lines; none if it is gone, or something else is in its place."""
    try:
        with SharedFolder(path.parent).reading(path.name, limit=sys.maxsize) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - count * _LONGEST_LINE))
            return log.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def opened_log(job: Job) -> tuple[Job, IO[bytes]]:
    """Opens a job's log.

    Args:
        job: A job, whose log is to be appended to.

    Returns:
        The job, and its log. If there is something else in its place, such as the log of another
        user who has the same artifact folder, the job gets a log with the user's number in its
        name.

    Raises:
        ArtifactsError: No log can be written.
    """
    own = job.log.with_name(f"{job.log.stem}-user{os.geteuid()}{job.log.suffix}")
    try:
        try:
            return job, open_log(job.log)
        except (PermissionError, UnsafeFileError):
            return replace(job, log=own), open_log(own)
    except OSError as e:
        raise ArtifactsError(f"{e.filename or own}: cannot be written: {e.strerror or e}") from e


def created_log(job: Job) -> Job:
    """Creates a job's log for a worker elsewhere; returns the job, see ``opened_log``.

    Raises:
        ArtifactsError: No log can be written.
    """
    made, log = opened_log(job)
    log.close()
    return made
