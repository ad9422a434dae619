"""Closes connections whose requests come in too slowly.

waitress closes a connection only after a minute without a byte, so that a client that sends one
every two seconds keeps it for ever, without a login, and a hundred of them keep everybody else out.
"""

from __future__ import annotations

import time
from typing import Any

MAX_CONNECTIONS = 1000
"""Connections at once; each costs a file descriptor and a few kilobytes."""
HEADER_S, BODY_S = 10.0, 120.0
"""Time for a request's headers, and for all of it, in seconds."""
CHECK_S = 2
"""Seconds between two looks at the connections."""


def close_slow_clients(server: Any) -> None:
    """Makes a server of waitress close the connections of slow clients.

    Args:
        server: What ``waitress.create_server`` returned, with ``cleanup_interval=CHECK_S``.
    """
    for part in _listening(server):
        _close_slow_clients_of(part)


def _listening(server: Any) -> list[Any]:
    """Returns the servers, one for each address that a host's name stands for."""
    several = [s for s in getattr(server, "map", {}).values() if hasattr(s, "maintenance")]
    return several or [server]


def _close_slow_clients_of(server: Any) -> None:
    begun: dict[Any, tuple[Any, float]] = {}  # channel -> the request that comes in, and since when
    usual = server.maintenance

    def maintenance(now: float) -> None:
        usual(now)
        at = time.monotonic()
        channels = list(server.active_channels.values())
        for channel in [c for c in begun if c not in channels]:
            del begun[channel]
        for channel in channels:
            request = channel.request
            if channel.requests or channel.total_outbufs_len:
                begun.pop(channel, None)  # being answered
                continue
            first, since = begun.get(channel, (None, at))
            if first is not request:
                since = at
            begun[channel] = (request, since)
            has_headers = request is not None and request.headers_finished
            if request is not None and at - since > (BODY_S if has_headers else HEADER_S):
                channel.will_close = True

    server.maintenance = maintenance
