"""What the commands have in common: their options, opening a study, printing a result."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from searchae.storage import ResilientStorage
    from searchae.study import StoredStudy


def _with_password(url: str) -> str:
    """The URL with the password from the file that the environment names, if it has none."""
    path = os.environ.get("SEARCHAE_STORAGE_PASSWORD_FILE")
    if not path or not url.startswith("postgresql"):
        return url
    from sqlalchemy.engine import make_url

    from searchae.errors import StorageError

    try:
        password = Path(path).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise StorageError(f"SEARCHAE_STORAGE_PASSWORD_FILE: {path} cannot be read: {e}") from None
    parsed = make_url(url)
    if parsed.password is None:
        parsed = parsed.set(password=password)
    return parsed.render_as_string(hide_password=False)


StudyOption = Annotated[
    str, typer.Option("--study", "-s", help="A study file's name (svhn), or a path to one.")
]
StudyNameOption = Annotated[str, typer.Option("--study", "-s", help="The study's name.")]
StorageOption = Annotated[
    str,
    typer.Option(
        envvar="SEARCHAE_STORAGE",
        show_envvar=True,
        show_default="sqlite:///searchae.db",
        callback=_with_password,
        help="Database URL: sqlite:///FILE or postgresql://USER@HOST/DB. A password comes through "
        "the environment: in the URL, or in the file SEARCHAE_STORAGE_PASSWORD_FILE.",
    ),
]
DataDirOption = Annotated[
    Path, typer.Option(envvar="SEARCHAE_DATA_DIR", help="Where data sets lie, or are fetched to.")
]
ArtifactsOption = Annotated[
    Path,
    typer.Option(envvar="SEARCHAE_ARTIFACTS", help="Checkpoints and logs; shared by all workers."),
]
DeviceOption = Annotated[
    str, typer.Option(envvar="SEARCHAE_DEVICE", help="auto, cpu, cuda or cuda:N.")
]
_PRECISION = "fp32, bf16, or auto: bf16 on a CPU with AMX units for it."
PrecisionOption = Annotated[
    str,
    typer.Option(
        envvar="SEARCHAE_PRECISION",
        help=_PRECISION,
    ),
]
RecordedPrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        envvar="SEARCHAE_PRECISION",
        help=_PRECISION,
        show_default="the trial's in the search",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM, as shells have it."""
DEFAULT_STORAGE = "sqlite:///searchae.db"
WAIT_S = 2.0
"""Seconds between two looks for a study that is awaited."""


def examples(*commands: str) -> str:
    """The end of a command's help: commands to try, a line each."""
    unwrapped = "\b"  # click's mark of a paragraph whose lines are kept as they are
    return "\n".join((unwrapped, "Examples:", *(f"  {command}" for command in commands)))


def show(
    as_json: bool, document: Callable[[], Mapping[str, Any]], text: Callable[[], None]
) -> None:
    """Prints a result on stdout, as one JSON object or as text."""
    if as_json:
        print(json.dumps(document(), default=str))
    else:
        text()


@contextmanager
def importing() -> Iterator[None]:
    """Within the block Python collects no garbage: around imports that take seconds.

    They leave hardly any, and looking for it takes a quarter of their time. Who waits at a
    terminal sees a word meanwhile, which goes when they are done.
    """
    enabled, stderr = gc.isenabled(), sys.stderr
    # A process may have been started without one.
    watched = stderr is not None and not stderr.closed and stderr.isatty()
    gc.disable()
    if watched:
        print("loading ...", end="", file=stderr, flush=True)
    try:
        yield
    finally:
        if watched:
            print("\r           \r", end="", file=stderr, flush=True)
        if enabled:
            gc.enable()


def quiet_optuna() -> None:
    """Optuna logs each trial, and warns of what is experimental; our own lines say it better."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def connect_to(url: str, *, stop: threading.Event | None = None) -> ResilientStorage:
    """A database, waited for: a minute, or until ``stop``."""
    from searchae.storage import Backoff, connect

    if stop is None:
        return connect(url, backoff=Backoff(limit_s=60))
    from searchae.training import Interrupted

    patience = iter(range(15))  # seconds in which a worker that was stopped puts its trial back

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            if next(patience, None) is None:
                raise Interrupted("stopped while the database was away")
            time.sleep(1)

    return connect(url, backoff=Backoff(sleep=sleep), patient=True)


def open_study(url: str, study: str, *, stop: threading.Event | None = None) -> StoredStudy:
    """A study that must be there; a SQLite file is not made by looking into it.

    Raises:
        NoStudyError: It is not there.
    """
    from searchae.errors import NoStudyError
    from searchae.storage import database_exists, masked_url
    from searchae.study import load_study

    if not database_exists(url):
        raise NoStudyError(
            f"{masked_url(url)}: there is no such database; `searchae tune` makes one"
        )
    return load_study(connect_to(url, stop=stop), study)


def await_study(url: str, study: str, *, stop: threading.Event) -> StoredStudy:
    """A study that somebody else is about to create.

    Raises:
        Interrupted: ``stop`` was set before it was there.
    """
    from searchae.errors import NoStudyError
    from searchae.training import Interrupted

    told = False
    while not stop.is_set():
        try:
            return open_study(url, study, stop=stop)
        except NoStudyError as e:
            if not told:
                print(f"searchae: waiting: {e}", file=sys.stderr, flush=True)
            told = True
            stop.wait(WAIT_S)
    raise Interrupted("stopped before the study was there")
