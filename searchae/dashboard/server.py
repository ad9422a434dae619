"""The server: Optuna's dashboard behind the guard, until a signal ends it.

waitress, not gunicorn: it reads a request whole before a thread gets it, so that a slow visitor
holds no thread; it runs in this process, so that no connection to the database is carried
through a fork; and a port in use is an error here, not in a child.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import bottle
import optuna_dashboard
import waitress
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from searchae.dashboard.access import Guard, RefusedError, is_local, refuse
from searchae.dashboard.logins import Logins
from searchae.dashboard.overlay import Overlay, picture_store
from searchae.dashboard.trial_details import StudyDetail, call
from searchae.errors import SearchaeError, UserError
from searchae.storage import ReaderStorage, ResilientStorage

log = logging.getLogger(__name__)

PICTURES = "pictures"
"""The folder below ``--artifacts`` that the dashboard shows files from."""
_THREADS = 8
_LARGEST_READ, _LARGEST_UPLOAD = 2**20, 128 * 2**20


@dataclass(frozen=True)
class ServerOptions:
    """How the dashboard is served.

    Attributes:
        host: Address to listen on.
        port: 0 for any that is free.
        artifacts: Folder of the studies' artifacts.
        logins: Who may look; needed on an address that others reach.
        writes: Whether visitors may change studies.
    """

    host: str
    port: int
    artifacts: Path
    logins: Logins | None = None
    writes: bool = False


def application(storage: ResilientStorage, options: ServerOptions) -> WSGIApplication:
    """The whole of what is served.

    Args:
        storage: Its calls should give up after some seconds, which answers 503.
        options: See ``Options``.
    """
    quick = ReaderStorage(storage)
    drawn = Overlay(quick, options.artifacts)
    detail = StudyDetail(_dashboard(quick, options.artifacts / PICTURES), quick, drawn)
    threading.Thread(target=_read_ahead, args=(quick, detail), daemon=True).start()
    shown = picture_store(detail, drawn)
    return Guard(_outages_told(_bodies(shown), quick), options.logins, options.writes)


def serve(
    storage: ResilientStorage, options: ServerOptions, announce: Callable[[str], object]
) -> signal.Signals:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        storage: What to show.
        options: See ``Options``.
        announce: Told the address once it answers.

    Returns:
        The signal that ended it.

    Raises:
        UserError: The address cannot be listened on, or needs a login.
    """
    check(options)
    # The queue's warnings say only that a page asked for more at once than there are threads.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        server = waitress.create_server(
            application(storage, options),
            host=options.host,
            port=options.port,
            threads=_THREADS,
            ident=None,
            channel_timeout=60,
            clear_untrusted_proxy_headers=True,
            max_request_body_size=_LARGEST_UPLOAD if options.writes else _LARGEST_READ,
        )
    except (OSError, ValueError) as e:
        raise _cannot_listen(options, e) from None
    ended = [signal.SIGINT]

    def end(number: int, _frame: FrameType | None) -> None:
        ended[0] = signal.Signals(number)
        raise SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    announce(f"http://{shown}:{server.effective_port}/")
    server.run()
    return ended[0]


def check(options: ServerOptions) -> None:
    """Refuses to show studies to a network without a login.

    Raises:
        UserError: With the commands that make one.
    """
    if options.logins is None and not is_local(options.host):
        raise UserError(
            f"--host {options.host}: others can reach that address, so it needs a login.\n"
            "Make one:  searchae dashboard --hash-password YOUR_NAME > login.txt; "
            "chmod 600 login.txt\n"
            f"Then:      searchae dashboard --host {options.host} --login login.txt"
        )


class _Pictures(FileSystemArtifactStore):
    """Optuna's store in a folder; a file that is gone is a 404, not a 500 with a traceback."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Opens one of the folder's files.

        Raises:
            bottle.HTTPError: It is not there.
        """
        try:
            return super().open_reader(artifact_id)
        except (ArtifactNotFound, IsADirectoryError):
            raise bottle.HTTPError(404, "no such file") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes a file; the folder is made by the first one, not by looking."""
        self._base_path.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)


def _dashboard(storage: ReaderStorage, pictures: Path) -> WSGIApplication:
    app: WSGIApplication = optuna_dashboard.wsgi(storage, artifact_store=_Pictures(pictures))
    return app


def _bodies(inner: WSGIApplication) -> WSGIApplication:
    """Gives each write's answer a body: the page reads one, and takes none for a failure."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return inner(environ, start)
        status, headers, body = call(inner, environ)
        if status.startswith("204"):
            status, body = "200 OK", b"{}"
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start(status, headers)
        return [body]

    return app


def _outages_told(inner: WSGIApplication, storage: ReaderStorage) -> WSGIApplication:
    """Optuna's dashboard calls every failure its own; one of the database's is a 503."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        storage.outage.reason = None
        answer: list[Any] = []

        def remember(*given: Any) -> Any:
            answer[:] = given
            return lambda _: None

        try:
            chunks = inner(environ, remember)
        except SearchaeError:
            if storage.outage.reason is None:
                raise
        if storage.outage.reason is not None:
            log.warning("%s", storage.outage.reason)
            away = RefusedError(
                503, "the database is away; try again in a moment", ("Retry-After", "10")
            )
            return refuse(away, environ, start)
        start(*answer)
        return chunks

    return app


def _read_ahead(storage: ReaderStorage, detail: StudyDetail) -> None:
    """Reads the studies, newest first, so that the first visitor need not wait for it."""
    try:
        for study in sorted(storage.get_all_studies(), key=lambda s: -s._study_id)[:20]:
            detail.prepare(study._study_id)
    except (SearchaeError, KeyError) as e:
        log.debug("reading ahead ended: %s", e)


def _cannot_listen(options: ServerOptions, error: Exception) -> UserError:
    where = f"--host {options.host} --port {options.port}"
    if not isinstance(error, OSError):
        return UserError(f"{where}: {error}")
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"{where}: something else listens there, another dashboard perhaps; "
            f"take another port: --port {options.port + 1}"
        )
    if error.errno == errno.EACCES:
        return UserError(f"{where}: only root may listen there; take a port above 1023")
    return UserError(f"{where}: cannot listen there: {error.strerror or error}")
