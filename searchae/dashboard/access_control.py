"""WSGI middleware with access control for Optuna's dashboard, which has none of its own.

A request is passed on only after these checks, in this order: the Host header (without logins) or
the login, then the permission to write. ``/healthz`` is answered without them: it says that the
server runs, and nothing else. Every response gets security headers, so that uploaded files cannot
run scripts with the site's permissions.
"""

from __future__ import annotations

import base64
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

HEALTH_PATH = "/healthz"
_READ_METHODS = ("GET", "HEAD")
_REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}
_REASONS |= {503: "Service Unavailable"}
_UPLOADS_POLICY = (
    "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; "
    "style-src 'unsafe-inline'; frame-ancestors 'self'"
)
_FIXED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REPLACED_HEADERS = {"access-control-allow-origin", *(name.lower() for name in _FIXED_HEADERS)}
_MIN_GZIP_BYTES = 1024
Headers = list[tuple[str, str]]


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        status: The HTTP status code.
        reason: The message for the user.
        headers: Additional response headers.
    """

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass(frozen=True)
class AccessControl:
    """WSGI middleware; see the module's docstring.

    Attributes:
        inner: The application that is protected.
        logins: The users; None: no login, and only requests to localhost are passed on.
        writes: Whether methods other than GET and HEAD are passed on.
    """

    inner: WSGIApplication
    logins: Logins | None
    writes: bool

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        path = environ.get("PATH_INFO", "")
        # The dashboard reads the header of every request for a file, and fails without it.
        accepts_gzip = "gzip" in environ.setdefault("HTTP_ACCEPT_ENCODING", "")

        def start(status: str, headers: Headers, error: Any = None) -> Any:
            return start_response(status, with_security_headers(path, headers), error)

        if path == HEALTH_PATH and environ["REQUEST_METHOD"] in _READ_METHODS:
            start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"ok\n"]
        try:
            self._check(environ)
        except RefusedError as e:
            return send_refusal(e, environ, start)
        response: list[Any] = []

        def remember(*given: Any) -> Any:
            response[:] = given
            return lambda _: None

        chunks = self.inner(environ, remember)
        if response and accepts_gzip and isinstance(chunks, list):
            chunks = _compress(chunks, response[1])
        start(*response)
        return chunks

    def _check(self, environ: WSGIEnvironment) -> None:
        if self.logins is None:
            _check_host(environ)
        else:
            _check_login(environ, self.logins)
        if environ["REQUEST_METHOD"] in _READ_METHODS:
            return
        if not self.writes:
            raise RefusedError(403, "this dashboard is read-only")
        _check_origin(environ)


def is_local(host: str) -> bool:
    """Whether a host name or address is ``localhost`` or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def send_refusal(
    error: RefusedError, environ: WSGIEnvironment, start: StartResponse
) -> list[bytes]:
    """Sends an error response, in the JSON format that the dashboard's pages display.

    Args:
        error: The reason.
        environ: Of the request.
        start: The server's ``start_response``.

    Returns:
        The response's body.
    """
    body = json.dumps({"reason": error.reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(f"{error.status} {_REASONS[error.status]}", [*headers, *error.headers])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def with_security_headers(path: str, headers: Headers) -> Headers:
    """Returns response headers with security headers added.

    Only the dashboard's own pages, which come with a content security policy, may run scripts.

    Args:
        path: Of the request.
        headers: Of the response.
    """
    own_policy = [v for k, v in headers if k.lower() == "content-security-policy"]
    if path.startswith("/artifacts"):
        policy, frames = _UPLOADS_POLICY, "SAMEORIGIN"
    elif own_policy:
        policy, frames = f"{own_policy[0]};frame-ancestors 'none'", "DENY"
    else:
        policy, frames = "sandbox; default-src 'none'; frame-ancestors 'none'", "DENY"
    dropped = _REPLACED_HEADERS | {"content-security-policy", "x-frame-options"}
    kept = [(k, v) for k, v in headers if k.lower() not in dropped]
    if not any(k.lower() == "cache-control" for k, _ in kept):
        kept.append(("Cache-Control", "private, no-cache"))
    return [
        *kept,
        *_FIXED_HEADERS.items(),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", frames),
    ]


def _check_host(environ: WSGIEnvironment) -> None:
    """Refuses other host names that resolve to this machine (DNS rebinding)."""
    host = environ.get("HTTP_HOST", "")
    name = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::\d+)?", host)
    if not name or not is_local((name[1] or name[2]).lower()):
        raise RefusedError(403, "without a login this dashboard answers to localhost only")


def _check_login(environ: WSGIEnvironment, logins: Logins) -> None:
    challenge = ("WWW-Authenticate", 'Basic realm="searchae", charset="UTF-8"')
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:  # neither Base64 nor UTF-8 in it
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise RefusedError(401, "log in", challenge)
    result = logins.check(user, password, environ.get("REMOTE_ADDR", ""))
    if result is False:
        raise RefusedError(401, "log in", challenge)
    if result is not True:
        wait = ("Retry-After", str(int(result) + 1))
        raise RefusedError(429, "too many logins, or too many wrong ones; wait", wait)


def _check_origin(environ: WSGIEnvironment) -> None:
    """Refuses writes that another site's page sends with the user's login (CSRF)."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not _is_same_host(origin, environ.get("HTTP_HOST", "")):
        raise RefusedError(
            403, "written by another site's page; a proxy in front must pass Host on as it is"
        )
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "written by another site's page")


def _is_same_host(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _compress(chunks: list[bytes], headers: Headers) -> list[bytes]:
    """Compresses text responses: 41 MB of trials become 8 MB in a third of a second."""
    names = {k.lower(): v for k, v in headers}
    is_text = names.get("content-type", "").startswith(("application/json", "text/"))
    if not is_text or "content-encoding" in names or sum(map(len, chunks)) < _MIN_GZIP_BYTES:
        return chunks
    body = gzip.compress(b"".join(chunks), compresslevel=1)
    headers[:] = [(k, v) for k, v in headers if k.lower() != "content-length"]
    headers += [
        ("Content-Length", str(len(body))),
        ("Content-Encoding", "gzip"),
        ("Vary", "Accept-Encoding"),
    ]
    return [body]
