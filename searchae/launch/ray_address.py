"""Checks the address of a Ray cluster before Ray connects to it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


def check_listening(address: str) -> None:
    """Checks that a server listens at an address; Ray itself would retry for minutes.

    Args:
        address: ``HOST:PORT``, or with a scheme: ``ray://HOST[:PORT]``.

    Raises:
        ConnectionError: It is not an address, or no server listens there.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ConnectionError("not an address: use HOST:PORT, auto, or local for a new cluster")
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as e:
        raise ConnectionError(f"nobody listens there ({e.strerror or e})") from e
