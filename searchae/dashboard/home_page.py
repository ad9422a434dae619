"""WSGI middleware that adds to the dashboard's first page how far each study is.

Optuna's dashboard shows a card with a name and a direction for each study, and its list of studies
has no field for more. A script of our own, which the pages' content security policy permits, writes
a line on each card.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from searchae.dashboard.trial_details import call_wsgi
from searchae.storage import ReaderStorage
from searchae.study import study_overviews

SCRIPT_PATH, PROGRESS_PATH = "/static/searchae.js", "/api/searchae/progress"
_PAGE_PATH = re.compile(r"/dashboard(/.*)?")
_HEAD_END = b"</head>"
_STYLE = "<style>main, main div { min-width: 0; } main pre { overflow-x: auto; }</style>"
"""Without it a trial's page is as wide as its widest line, not as the window: parts of a flexible
box do not become narrower than their content unless they are told to."""
_TAG = f'{_STYLE}<script defer src="{SCRIPT_PATH}"></script>'.encode()
_CONDITIONS = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE")
"""Headers of a request that refer to the file on the disk, not to what is sent."""
_REREAD_INTERVAL = 10
"""Least time between two readings of the studies' progress, as a multiple of what one takes."""
_SHORTEST_REREAD_S, _LONGEST_REREAD_S = 2.0, 30.0


@dataclass
class HomePage:
    """WSGI middleware for the pages, the list of studies and the studies' progress.

    Attributes:
        inner: Optuna's dashboard.
        storage: The storage that it shows.
    """

    inner: WSGIApplication
    storage: ReaderStorage
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _progress: bytes = field(default=b"", init=False)
    _reread_at: float = field(default=0.0, init=False)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return self.inner(environ, start_response)
        if path == SCRIPT_PATH:
            script = (files("searchae.dashboard") / "home_page.js").read_bytes()
            return _send(script, "text/javascript", method, start_response)
        if path == PROGRESS_PATH:
            return _send(self._read_progress(), "application/json", method, start_response)
        if path.rstrip("/") == "/api/studies":
            return self._changed(environ, start_response, _without_unreadable)
        if _PAGE_PATH.fullmatch(path):
            return self._changed(environ, start_response, _with_script)
        return self.inner(environ, start_response)

    def _read_progress(self) -> bytes:
        """Returns a JSON object: the title of each study's card -> how far it is."""
        with self._lock:  # one request reads, the others wait for what it has read
            began = time.monotonic()
            if not self._progress or began >= self._reread_at:
                found = {
                    f"{overview.id}. {overview.name}": overview.text
                    for overview in study_overviews(self.storage)
                    if not overview.fault  # perhaps another program's
                }
                self._progress, took_s = json.dumps(found).encode(), time.monotonic() - began
                pause_s = max(_SHORTEST_REREAD_S, _REREAD_INTERVAL * took_s)
                self._reread_at = began + min(pause_s, _LONGEST_REREAD_S)
            return self._progress

    def _changed(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        change: Callable[[bytes], bytes],
    ) -> Iterable[bytes]:
        asked = {k: v for k, v in environ.items() if k not in _CONDITIONS}
        status, headers, body = call_wsgi(self.inner, {**asked, "REQUEST_METHOD": "GET"})
        if status.startswith("200"):
            body = change(body)
            replaced = ("content-length", "last-modified", "etag", "accept-ranges")
            headers = [(k, v) for k, v in headers if k.lower() not in replaced]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body] if environ["REQUEST_METHOD"] == "GET" else []


def _with_script(page: bytes) -> bytes:
    return page.replace(_HEAD_END, _TAG + _HEAD_END, 1)


def _without_unreadable(body: bytes) -> bytes:
    """Leaves out attributes that hold JSON: a study's page shows those of the list, too."""
    document = json.loads(body)
    for study in document["study_summaries"]:
        study["user_attrs"] = [a for a in study["user_attrs"] if not _is_unreadable(a)]
    return json.dumps(document).encode()


def _is_unreadable(attribute: dict[str, str]) -> bool:
    return attribute["key"].startswith("searchae:") and attribute["value"][:1] in ("{", "[")


def _send(body: bytes, kind: str, method: str, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body] if method == "GET" else []
