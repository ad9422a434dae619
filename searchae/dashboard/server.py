"""The HTTP server: Optuna's dashboard with searchae's access control, run by waitress.

waitress rather than gunicorn, because it buffers a whole request before a thread handles it (slow
clients block no thread), because it does not fork (database connections must not be shared with a
child process), and because a port in use raises an error in this process.
"""

from __future__ import annotations

import errno
import logging
import re
import signal
import stat
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

from searchae.dashboard.access_control import AccessControl, RefusedError, is_local, send_refusal
from searchae.dashboard.added_content import Overlay, serve_pictures
from searchae.dashboard.deletion import with_folders_removed
from searchae.dashboard.home_page import HomePage
from searchae.dashboard.importance_response import ImportanceResponses
from searchae.dashboard.logins import Logins
from searchae.dashboard.metrics import MetricsPage
from searchae.dashboard.slow_clients import CHECK_S, MAX_CONNECTIONS, limit_clients
from searchae.dashboard.trial_details import StudyDetails, call_wsgi
from searchae.errors import SearchaeError, UserError
from searchae.files import ArtifactPath
from searchae.storage import ReaderStorage, ResilientStorage
from searchae.study import upload_folder

log = logging.getLogger(__name__)

_CREATION_PATH = re.compile(r"/api/studies/*")
_THREADS = 8
_MAX_BODY_READ_ONLY, _MAX_BODY = 2**20, 128 * 2**20
"""Largest request body in bytes, without and with writes."""
_PRELOADED_STUDIES = 20


@dataclass(frozen=True)
class ServerOptions:
    """How the dashboard is served.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for any free one.
        artifacts: Folder of the studies' artifacts.
        logins: Users and passwords; required unless ``host`` is this machine only.
        writes: Whether users may change studies.
        proxy: Address of a reverse proxy, whose header ``X-Forwarded-For`` names the clients;
            empty for none.
    """

    host: str
    port: int
    artifacts: ArtifactPath
    logins: Logins | None = None
    writes: bool = False
    proxy: str = ""


def application(storage: ResilientStorage, options: ServerOptions) -> WSGIApplication:
    """Builds the WSGI application.

    Args:
        storage: The studies. Its calls should give up after a few seconds of a database outage;
            the response is then 503.
        options: How it is served; host and port are not used here.
    """
    reader = ReaderStorage(storage)
    overlay = Overlay(reader, options.artifacts)
    uploads = _UploadedFiles(upload_folder(options.artifacts))
    dashboard: WSGIApplication = optuna_dashboard.wsgi(reader, artifact_store=uploads)
    dashboard = with_folders_removed(dashboard, overlay, options.artifacts)
    dashboard = ImportanceResponses(HomePage(dashboard, reader), reader, overlay)
    details = StudyDetails(dashboard, reader, overlay)
    threading.Thread(target=_preload_studies, args=(reader, details), daemon=True).start()
    pages = MetricsPage(serve_pictures(details, overlay), reader)
    app = _with_response_bodies(_without_creation(pages))
    return AccessControl(_with_outage_responses(app, reader), options.logins, options.writes)


def serve_dashboard(
    storage: ResilientStorage, options: ServerOptions, announce: Callable[[str], object]
) -> signal.Signals:
    """Serves the dashboard until SIGINT (Ctrl-C) or SIGTERM.

    Args:
        storage: The studies.
        options: How they are served.
        announce: Called with the server's URL once it accepts requests.

    Returns:
        The signal that ended it.

    Raises:
        UserError: The server cannot listen on the address, or the address requires a login.
    """
    check_server_options(options)
    # waitress warns whenever a page sends more requests at once than there are threads.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        server = waitress.create_server(
            application(storage, options),
            host=options.host,
            port=options.port,
            threads=_THREADS,
            ident=None,
            channel_timeout=60,
            cleanup_interval=CHECK_S,
            connection_limit=MAX_CONNECTIONS,
            asyncore_use_poll=True,  # select() takes no more than 1,024 files
            clear_untrusted_proxy_headers=True,
            **_proxy_settings(options.proxy),
            max_request_body_size=_MAX_BODY if options.writes else _MAX_BODY_READ_ONLY,
        )
    except (OSError, ValueError) as e:
        raise _cannot_listen(options, e) from None
    limit_clients(server, proxy=options.proxy)
    received = [signal.SIGINT]

    def stop(number: int, _frame: FrameType | None) -> None:
        received[0] = signal.Signals(number)
        raise SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    host = f"[{options.host}]" if ":" in options.host else options.host
    announce(f"http://{host}:{server.effective_port}/")
    server.run()
    return received[0]


def _proxy_settings(address: str) -> dict[str, Any]:
    if not address:
        return {}
    return {
        "trusted_proxy": address,
        "trusted_proxy_count": 1,
        "trusted_proxy_headers": {"x-forwarded-for"},
    }


def check_server_options(options: ServerOptions) -> None:
    """Requires a login unless only this machine can reach the server.

    Raises:
        UserError: There is no login; the message says how to make one.
    """
    if options.logins is None and not is_local(options.host):
        raise UserError(
            f"--host {options.host}: others can reach that address, so it needs a login.",
            "Make one:  searchae dashboard --hash-password YOUR_NAME > login.txt; "
            "chmod 600 login.txt",
            f"Then:      searchae dashboard --host {options.host} --login login.txt",
        )


class _UploadedFiles(FileSystemArtifactStore):
    """Optuna's artifact store in a folder that may not exist yet.

    A missing file is answered with status 404, not with 500 and a traceback. Ids come from the
    database: one that leads out of the folder is refused, which Optuna before 4.8 does not do.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Opens a file for reading.

        Raises:
            bottle.HTTPError: There is no such file.
        """
        _check_file_name(artifact_id)
        try:
            # A pipe would block this thread, and a link lead anywhere.
            if not stat.S_ISREG((self._folder / artifact_id).lstat().st_mode):
                raise bottle.HTTPError(404, "no such file")
            return super().open_reader(artifact_id)
        except (ArtifactNotFound, FileNotFoundError):
            raise bottle.HTTPError(404, "no such file") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes a file, and creates the folder first if needed."""
        _check_file_name(artifact_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Removes a file.

        Raises:
            ArtifactNotFound: There is no such file.
        """
        _check_file_name(artifact_id)
        super().remove(artifact_id)


def _check_file_name(artifact_id: str) -> None:
    """Refuses an id that is not the plain name of a file.

    Raises:
        bottle.HTTPError: It is not.
    """
    if artifact_id in ("", ".", "..") or Path(artifact_id).name != artifact_id:
        raise bottle.HTTPError(404, "no such file")


def _with_response_bodies(inner: WSGIApplication) -> WSGIApplication:
    """Replaces empty responses to writes: the dashboard's pages treat an empty body as an error."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return inner(environ, start)
        status, headers, body = call_wsgi(inner, environ)
        if status.startswith("204"):
            status, body = "200 OK", b"{}"
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start(status, headers)
        return [body]

    return app


def _without_creation(inner: WSGIApplication) -> WSGIApplication:
    """Refuses to make studies: one that is made on the page has no spec and cannot be searched."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST" and _CREATION_PATH.fullmatch(environ["PATH_INFO"]):
            reason = "a study is made by searchae tune -s FILE.toml: it needs images and a space"
            return send_refusal(RefusedError(403, reason), environ, start)
        return inner(environ, start)

    return app


def _with_outage_responses(inner: WSGIApplication, storage: ReaderStorage) -> WSGIApplication:
    """Answers 503 when the database cannot be reached; Optuna's dashboard would answer 500."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        storage.outage.reason = None
        response: list[Any] = []

        def remember(*given: Any) -> Any:
            response[:] = given
            return lambda _: None

        try:
            chunks = inner(environ, remember)
        except SearchaeError:
            if storage.outage.reason is None:
                raise
        if storage.outage.reason is not None:
            log.warning("%s", storage.outage.reason)
            unavailable = RefusedError(
                503, "the database is away; try again in a moment", ("Retry-After", "10")
            )
            return send_refusal(unavailable, environ, start)
        start(*response)
        return chunks

    return app


def _preload_studies(storage: ReaderStorage, details: StudyDetails) -> None:
    """Reads the newest studies, so that the first visitor does not wait for it."""
    try:
        names = [study.study_name for study in storage.get_all_studies()]  # the oldest first
        for name in names[-_PRELOADED_STUDIES:][::-1]:
            details.preload(storage.get_study_id_from_name(name))
    except (SearchaeError, KeyError) as e:
        log.debug("preloading ended: %s", e)


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
