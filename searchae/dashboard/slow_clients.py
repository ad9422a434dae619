"""Keeps slow and greedy clients from taking all connections of the server, waitress.

waitress closes a connection only after a minute without a byte, so that a client that sends one
every two seconds keeps it for ever, without a login; and it takes any number from one address.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

MAX_CONNECTIONS = 1000
"""Connections at once; each costs a file descriptor and a few kilobytes."""
MAX_PER_ADDRESS = 200
"""Connections at once from one address, which an office may share; a browser opens up to six."""
HEADER_S, BODY_S = 10.0, 120.0
"""Time for a request's headers, and for all of it, in seconds."""
CHECK_S = 2
"""Seconds between two looks at the connections."""


def limit_clients(server: Any, *, proxy: str = "") -> None:
    """Makes a server close the connections of slow clients, and those beyond an address's share.

    The connections of a reverse proxy are its visitors': of one visitor, the requests at once are
    limited instead, which are not one connection each for longer.

    Args:
        server: What ``waitress.create_server`` returned, with ``cleanup_interval=CHECK_S``.
        proxy: The address of the proxy, whose header ``X-Forwarded-For`` names the visitors.
    """
    for part in _listening(server):
        _refuse_surplus(part, proxy)
        _close_slow_and_surplus(part, proxy)


def _listening(server: Any) -> list[Any]:
    """Returns the servers, one for each address that a host's name stands for."""
    several = [s for s in getattr(server, "map", {}).values() if hasattr(s, "maintenance")]
    return several or [server]


def _refuse_surplus(server: Any, proxy: str) -> None:
    usual = server.accept

    def accept() -> Any:
        accepted = usual()
        if accepted is None or accepted[1][0] == proxy:
            return accepted
        address = accepted[1][0]
        held = sum(c.addr[0] == address for c in list(server.active_channels.values()))
        if held < MAX_PER_ADDRESS:
            return accepted
        accepted[0].close()
        return None

    server.accept = accept


def _close_slow_and_surplus(server: Any, proxy: str) -> None:
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
        held: Counter[str] = Counter()
        for channel in sorted(channels, key=lambda c: c.creation_time):
            visitor = _visitor(channel) if channel.addr[0] == proxy else ""
            held[visitor] += 1
            if visitor and held[visitor] > MAX_PER_ADDRESS:
                channel.will_close = True

    server.maintenance = maintenance


def _visitor(channel: Any) -> str:
    """Returns the visitor whose request comes through a proxy's connection; empty if unknown."""
    request = next(iter([*channel.requests, channel.request]))
    headers = getattr(request, "headers", {})
    # What the proxy itself has added stands last.
    return str(headers.get("X_FORWARDED_FOR", "")).rpartition(",")[2].strip()
