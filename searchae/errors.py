"""The errors that searchae raises on purpose.

>>> issubclass(searchae.errors.NoStudyError, searchae.UserError)
True

``UserError`` and its subclasses can be fixed by the user; ``TrainingError`` and its subclasses end
one trial only. The class attribute ``exit_code`` is the exit status of the command line.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable

from searchae.formatting import one_line

_PYTHON = os.path.dirname(os.__file__) + os.sep


class SearchaeError(Exception):
    """Base class of all errors that searchae raises on purpose.

    Args:
        lines: The message, line by line. A name in it that holds a newline does not end a line.

    Examples:
        >>> try:
        ...     searchae.open("no-such-study")
        ... except searchae.SearchaeError as error:
        ...     print(error.exit_code)
        2
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(one_line, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython shows of it: the user's own line, and the message."""
        return [*_line_outside(self), f"{type(self).__name__}: {self}"]


class UserError(SearchaeError):
    """An option, a file or the environment is wrong: the user has to fix it and run again.

    Examples:
        >>> searchae.tune("quickstrat")
        Traceback (most recent call last):
        searchae.errors.SpecError: study 'quickstrat': ... did you mean 'quickstart'? ...
    """

    exit_code = 2


class SpecError(UserError):
    """A study file or an override is wrong; the message lists all faults, one on each line."""


class DataError(UserError):
    """A data set is missing, cannot be read, or differs from the one of the study."""


class ModelError(UserError):
    """A model cannot be built from its parameters, or does not fit the images."""


class StorageError(UserError):
    """The database cannot be reached, refuses the login, or was not created by searchae."""


class NoStudyError(StorageError):
    """The database has no study of this name (yet)."""


class StudyMismatchError(UserError):
    """A study of this name exists, but was created from another study file or other data."""


class DeviceError(UserError):
    """The requested device does not exist on this machine, or has failed."""


class BundleError(UserError):
    """A bundle is missing or damaged, or does not fit the input that it was given."""


class ArtifactsError(UserError):
    """Checkpoints or logs cannot be written: the disk is full, or permissions are missing."""


class TrainingError(SearchaeError):
    """A training ended without a usable result; the search continues with other trials."""


class DivergedError(TrainingError):
    """The loss, the PSNR or a weight became NaN or infinite."""


class DeadError(DivergedError):
    """The net can no longer learn: a layer's output is constant and passes no gradient."""


class OutOfMemoryError(TrainingError):
    """A trial did not fit into the memory of its device."""


class LeaseLostError(SearchaeError):
    """The trial was given to another worker; this one has to stop it without a result."""


class StudyStoppedError(SearchaeError):
    """The study was stopped because a trial failed by a bug; the message has the traceback."""


class StopAskedError(SearchaeError):
    """Somebody ended the work on a study with ``searchae stop``."""

    exit_code = 130  # as for an interrupt: the same command goes on


class TimeUpError(SearchaeError):
    """The time limit ended the work before there was a result; the same command goes on."""

    exit_code = 130  # as for an interrupt


class SearchInterrupt(KeyboardInterrupt):
    """Ctrl-C, or a notebook's "interrupt": the running trials are kept, to be continued.

    Args:
        message: How to go on.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"interrupted: {self}"]


def _line_outside(error: BaseException) -> list[str]:
    """Returns the last line of the traceback that is not searchae's; none if there is none."""
    own = os.path.dirname(__file__) + os.sep
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_inside(f, own)]
    last = next((f for f in reversed(frames) if f.line), None)
    return [f"line {last.lineno}: {last.line}"] if last else []


def _is_inside(frame: traceback.FrameSummary, folder: str) -> bool:
    return frame.filename.startswith((folder, _PYTHON)) or "site-packages" in frame.filename


def install_text(extra: str) -> str:
    """Returns how to install an extra; there is no release of searchae on a package index."""
    return f"pip install '.[{extra}]' in searchae's source folder"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Lists valid names, and suggests the one that is most similar to an unknown name.

    Upper and lower case count as the same.

    Args:
        name: The unknown name.
        valid: The valid names.

    Returns:
        For example ``"did you mean 'adam'? Valid: adam, rmsprop, sgd"``.
    """
    names = sorted(str(v) for v in valid)
    by_folded = {n.casefold(): n for n in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    hint = f"did you mean '{by_folded[close[0]]}'? " if close else ""
    return f"{hint}Valid: {', '.join(names) or 'none'}"
