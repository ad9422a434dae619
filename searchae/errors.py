"""Every error that searchae raises on purpose, by what the caller can do about it.

A class's docstring says whose turn it is. ``exit_code`` is what the command line returns.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SearchaeError(Exception):
    """The root: catch this to catch everything that searchae raises on purpose."""

    exit_code = 1


class UserError(SearchaeError):
    """Something that the user typed or wrote is wrong: mend it and run again."""

    exit_code = 2


class SpecError(UserError):
    """A study file or an override is wrong. The message lists every fault, a line each."""


class DataError(UserError):
    """A data set is missing, cannot be read, or is not what the study was made with."""


class ModelError(UserError):
    """The model does not fit the images, or cannot be built as described."""


class StorageError(UserError):
    """The database cannot be reached, refuses the login, or is not one of searchae's."""


class NoStudyError(StorageError):
    """There is no study of that name, or not yet."""


class StudyMismatchError(UserError):
    """A study of that name exists and was made with another spec or other data."""


class DeviceError(UserError):
    """The requested device is not on this machine, or has stopped working."""


class BundleError(UserError):
    """A bundle is missing, damaged, or of another kind than what it was given."""


class ArtifactsError(UserError):
    """Checkpoints or logs cannot be written: the disk is full, or the folder is not ours."""


class TrainingError(SearchaeError):
    """A training ended without a usable result; the search goes on without it."""


class DivergedError(TrainingError):
    """The loss or a weight became NaN or infinite."""


class DeadError(DivergedError):
    """A layer is flat, and the same for every image, and what lies before it stands still."""


class OutOfMemoryError(TrainingError):
    """The trial did not fit into the memory of its device."""


class LeaseLostError(SearchaeError):
    """Another worker has taken this trial over; drop it quietly."""


class StudyStoppedError(SearchaeError):
    """The study was stopped early because a trial met a bug; the message has its traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Lists the valid names and, where one is close to ``name``, proposes it.

    Returns:
        For example ``"did you mean 'adam'? Valid: adam, rmsprop, sgd"``.
    """
    names = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid: {', '.join(names)}"
