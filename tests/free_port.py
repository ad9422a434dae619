"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to outgoing connections: one of these could take a server's port
# between its choice and its start, or while the server is stopped.
_LOWEST, _HIGHEST = 20_000, 32_000


def free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
