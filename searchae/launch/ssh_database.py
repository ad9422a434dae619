"""How workers on other hosts get to the database: directly, or through a tunnel of ssh's."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

DEFAULT_PORT = 5432
LOOPBACK = "127.0.0.1"


def connect_arguments(url: URL) -> dict[str, Any]:
    """Returns what psycopg connects with, the password included."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    return dict(arguments)


def _place(url: URL) -> tuple[str, int]:
    """Returns the first host (a folder, for a socket; empty for the default) and its port."""
    arguments = connect_arguments(url)
    host = str(arguments.get("host") or "").split(",")[0]
    port = str(arguments.get("port") or DEFAULT_PORT).split(",")[0]
    return host, int(port)


def is_on_this_machine(url: URL) -> bool:
    """Whether a database is reached by a socket or a loopback address: no other host can."""
    host, _ = _place(url)
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tunnel_target(url: URL) -> str:
    """Returns where a tunnel to a database ends, as ``ssh -R`` takes it."""
    host, port = _place(url)
    if host.startswith("/"):
        return f"{host}/.s.PGSQL.{port}"
    if not host:
        folder = next((f for f in ("/var/run/postgresql", "/tmp") if Path(f).exists()), "/tmp")
        return f"{folder}/.s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tunnel_url(url: URL, port: int) -> URL:
    """Returns the database's URL for a host whose loopback port leads to it.

    The database keeps its name, by which its certificate is checked.
    """
    host, _ = _place(url)
    without = url.difference_update_query(["host", "port", "hostaddr"])
    if not host or host.startswith("/"):
        return without.set(host=LOOPBACK, port=port)
    return without.set(host=host, port=port).update_query_dict({"hostaddr": LOOPBACK})
