"""Checks the hosts of the ssh launcher before anything starts, all at once."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from searchae import __version__
from searchae.launch.ssh_connection import Connection, HostError, UnreachableError, probe_source
from searchae.launch.ssh_database import (
    connect_arguments,
    is_on_this_machine,
    tunnel_target,
    tunnel_url,
)
from searchae.launch.ssh_hosts import Host, HostState, faults_of

PROBE_S = 120.0
"""Seconds for a host to answer, which imports torch on a cold disk."""


@dataclass(frozen=True)
class Checks:
    """What every host is checked for.

    Attributes:
        storage: The database.
        folders: This machine's ``data`` and ``artifacts``, which a host may share.
        tunnel: Whether hosts that cannot reach the database get a tunnel to it.
        venv: The name of the environment that ``--install`` makes on a host.
        install: Installs searchae on a host that was found not to have it; None for nothing.
        needs: Packages that a host needs besides those of every search.
    """

    storage: URL
    folders: Mapping[str, Path]
    tunnel: bool
    venv: str
    install: Callable[[Connection, HostState], None] | None = None
    needs: Sequence[str] = ()

    def run(self, hosts: Sequence[Host], connections: Mapping[str, Connection]) -> list[HostState]:
        """Checks hosts.

        Args:
            hosts: The hosts.
            connections: The connection to each, by its name.
        """
        with _tokens(self.folders) as tokens, ThreadPoolExecutor(len(hosts)) as pool:
            return list(pool.map(lambda h: self._check(h, connections[h.target], tokens), hosts))

    def _check(self, host: Host, connection: Connection, tokens: Mapping[str, str]) -> HostState:
        try:
            state = self._probe(HostState(host), connection, tokens)
            lacks = state.found["searchae"] != __version__ or state.found["missing"]
            if lacks and self.install is not None:
                self.install(connection, state)
                state = self._probe(HostState(host), connection, tokens)
            return state
        except UnreachableError as e:
            return HostState(host, faults=(_why_unreachable(host, str(e)),))
        except HostError as e:
            return HostState(host, faults=(_why_failed(host, str(e)),))

    def _probe(
        self, state: HostState, connection: Connection, tokens: Mapping[str, str]
    ) -> HostState:
        # Another machine's own database may listen where this machine's does.
        is_here = is_on_this_machine(self.storage)
        found = self._ask(state.host, connection, tokens, None if is_here else self.storage)
        state = replace(state, found=found, faults=tuple(faults_of(found, state.host)))
        if state.faults:
            return state
        if not is_here and not found["database"]:
            return replace(state, database="direct")
        if self.tunnel:
            return self._with_tunnel(state, connection)
        why = "it is on this machine" if is_here else found["database"]
        return replace(state, faults=(f"cannot reach the database: {why}; add --tunnel",))

    def _with_tunnel(self, state: HostState, connection: Connection) -> HostState:
        try:
            port = connection.forward(0, tunnel_target(self.storage))
        except HostError as e:
            fault = f"no tunnel to the database: {e}; its sshd may forbid it (AllowTcpForwarding)"
            return replace(state, faults=(fault,))
        there = tunnel_url(self.storage, port)
        found = self._ask(replace(state.host, python=state.found["python"]), connection, {}, there)
        if found["database"]:
            fault = f"cannot reach the database through the tunnel: {found['database']}"
            return replace(state, faults=(fault,))
        return replace(state, database="tunnel", port=port)

    def _ask(
        self, host: Host, connection: Connection, tokens: Mapping[str, str], database: URL | None
    ) -> dict[str, Any]:
        parameters = None if database is None else connect_arguments(database)
        request = {
            "do": "probe",
            "probe": probe_source(),
            "input": json.dumps({"database": parameters, "needs": self.needs}),
            "version": __version__,
            "venv": self.venv,
            "here": sys.executable,
            "python": host.python,
            "data": host.data,
            "data_here": str(self.folders["data"]),
            "tokens": dict(tokens),
        }
        return connection.call(request, timeout_s=PROBE_S)


@contextmanager
def _tokens(folders: Mapping[str, Path]) -> Iterator[dict[str, str]]:
    """Writes a file of a random name to each folder for the block; a host that sees it shares it.

    A folder that does not exist yet is as shared as the one that it will be made in.

    Yields:
        The path of each file, by the folder's key.
    """
    written: dict[str, str] = {}
    try:
        for key, folder in folders.items():
            there = next(p for p in (folder, *folder.parents) if p.exists())
            path = there / f".searchae-shared-{secrets.token_hex(8)}"
            with suppress(OSError):  # read-only: it counts as not shared
                path.touch()
                written[key] = str(path)
        yield written
    finally:
        for name in written.values():
            with suppress(OSError):
                os.unlink(name)


def _why_unreachable(host: Host, why: str) -> str:
    """Returns ssh's words, and what to do."""
    if "Host key verification failed" in why:
        return f"its host key is not known; type `ssh {host.target}` once and compare it"
    if "Permission denied" in why:
        return (
            f"{why}; `ssh {host.target}` has to work without a password: ssh-copy-id "
            f"{host.target}, or add the key to your agent (ssh-add)"
        )
    return f"{why}; does `ssh {host.target}` work?"


def _why_failed(host: Host, why: str) -> str:
    if "python3" in why and "not found" in why:
        return f"{why}: install Python 3.8 or later as python3 on {host.target}"
    return why
