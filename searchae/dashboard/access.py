"""What stands between the network and Optuna's dashboard, which itself asks nobody for anything.

In this order: the host that the browser believes to speak to, the login, the right to write.
Nothing is passed on before all three; every answer gets headers that keep what was uploaded
from running as a script of this site.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from searchae.dashboard.logins import Logins

_SAFE = ("GET", "HEAD")
_NAMES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}
_NAMES |= {503: "Service Unavailable"}
_UPLOADED = (
    "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; "
    "style-src 'unsafe-inline'; frame-ancestors 'self'"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DROPPED = {"access-control-allow-origin", *(name.lower() for name in _ALWAYS)}
_COMPRESSED_FROM = 1024
Headers = list[tuple[str, str]]


class RefusedError(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass(frozen=True)
class Guard:
    """WSGI middleware; see the module.

    Attributes:
        inner: What is guarded.
        logins: Who may pass; without any, only requests to this machine's own names do.
        writes: Whether anything but GET and HEAD is passed on.
    """

    inner: WSGIApplication
    logins: Logins | None
    writes: bool

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serves one request."""
        path = environ.get("PATH_INFO", "")
        gzipped = "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "")

        def start(status: str, headers: Headers, error: Any = None) -> Any:
            return start_response(status, guarded(path, headers), error)

        try:
            self._check(environ)
        except RefusedError as e:
            return refuse(e, environ, start)
        status: list[Any] = []

        def remember(*answer: Any) -> Any:
            status[:] = answer
            return lambda _: None

        chunks = self.inner(environ, remember)
        if status and gzipped and isinstance(chunks, list):
            chunks = _compressed(chunks, status[1])
        start(*status)
        return chunks

    def _check(self, environ: WSGIEnvironment) -> None:
        if self.logins is None:
            _check_host(environ)
        else:
            _check_login(environ, self.logins)
        if environ["REQUEST_METHOD"] in _SAFE:
            return
        if not self.writes:
            raise RefusedError(403, "this dashboard is read-only")
        _check_origin(environ)


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine as it calls itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def refuse(error: RefusedError, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
    """Answers with the reason, in the form in which the dashboard's pages show one."""
    body = json.dumps({"reason": error.reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(f"{error.status} {_NAMES[error.status]}", [*headers, *error.headers])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def guarded(path: str, headers: Headers) -> Headers:
    """The headers with ours; what is not a page of the dashboard's own may run nothing."""
    own_policy = [v for k, v in headers if k.lower() == "content-security-policy"]
    if path.startswith("/artifacts"):
        policy, frames = _UPLOADED, "SAMEORIGIN"
    elif own_policy:
        policy, frames = f"{own_policy[0]};frame-ancestors 'none'", "DENY"
    else:
        policy, frames = "sandbox; default-src 'none'; frame-ancestors 'none'", "DENY"
    dropped = _DROPPED | {"content-security-policy", "x-frame-options"}
    kept = [(k, v) for k, v in headers if k.lower() not in dropped]
    if not any(k.lower() == "cache-control" for k, _ in kept):
        kept.append(("Cache-Control", "private, no-cache"))
    return [
        *kept,
        *_ALWAYS.items(),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", frames),
    ]


def _check_host(environ: WSGIEnvironment) -> None:
    """Another site's name that resolves to this machine must not read it (DNS rebinding)."""
    host = environ.get("HTTP_HOST", "")
    name = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::\d+)?", host)
    if not name or not is_local((name[1] or name[2]).lower()):
        raise RefusedError(403, "without a login this dashboard answers to localhost only")


def _check_login(environ: WSGIEnvironment, logins: Logins) -> None:
    ask = ("WWW-Authenticate", 'Basic realm="searchae", charset="UTF-8"')
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise RefusedError(401, "log in", ask)
    right = logins.check(user, password, environ.get("REMOTE_ADDR", ""))
    if right is False:
        raise RefusedError(401, "log in", ask)
    if right is not True:
        wait = ("Retry-After", str(int(right) + 1))
        raise RefusedError(429, "too many wrong logins; wait a minute", wait)


def _check_origin(environ: WSGIEnvironment) -> None:
    """Another site's page must not write with this visitor's login (cross-site requests)."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not _is_same(origin, environ.get("HTTP_HOST", "")):
        raise RefusedError(
            403, "written by another site's page; a proxy in front must pass Host on as it is"
        )
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "written by another site's page")


def _is_same(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _compressed(chunks: list[bytes], headers: Headers) -> list[bytes]:
    """Trials are mostly repetition: 41 MB become 8 in a third of a second."""
    names = {k.lower(): v for k, v in headers}
    text = names.get("content-type", "").startswith(("application/json", "text/"))
    if not text or "content-encoding" in names or sum(map(len, chunks)) < _COMPRESSED_FROM:
        return chunks
    body = gzip.compress(b"".join(chunks), compresslevel=1)
    headers[:] = [(k, v) for k, v in headers if k.lower() != "content-length"]
    headers += [
        ("Content-Length", str(len(body))),
        ("Content-Encoding", "gzip"),
        ("Vary", "Accept-Encoding"),
    ]
    return [body]
