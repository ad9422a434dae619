"""The hosts of the ssh launcher: what the user wrote, and what each of them was found to have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchae import __version__
from searchae.errors import UserError, nearest
from searchae.formatting import format_count

MOST_DEFAULT = 4
"""Workers on a host without GPUs unless a number is given, as on this machine."""

_KEYS = ("python", "data", "workers")
_NUMBER = r"[1-9]\d*"


@dataclass(frozen=True)
class Host:
    """A host as the user named it.

    Attributes:
        target: As for ``ssh``: a name of its configuration, or ``user@host``.
        workers: Workers at once; as many as GPUs, else cores up to four, if unset.
        python: The Python that has searchae there; looked for if empty.
        data: The data folder there; the same path as here if that is shared, else a folder of
            searchae's in the user's cache, if empty.
    """

    target: str
    workers: int | None = None
    python: str = ""
    data: str = ""


def parse_hosts(text: str) -> list[Host]:
    """Reads ``--hosts``.

    Args:
        text: ``HOST[:N],...``, or the path of a file with a host a line, ``HOST[:N] [KEY=VALUE]``,
            where ``#`` begins a comment.

    Raises:
        UserError: A host is written otherwise, is named twice, or there is none.
    """
    path = Path(text)
    if path.is_file():
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"--hosts {text}: cannot be read: {e}") from e
        entries = [line.partition("#")[0].split() for line in lines]
    elif "/" in text:
        raise UserError(f"--hosts {text}: there is no such file")
    else:
        entries = [[part.strip()] for part in text.split(",")]
    hosts = [_host(words, text) for words in entries if words and words[0]]
    if not hosts:
        raise UserError(f"--hosts {text}: names no host; for example --hosts gpu1,gpu2:2")
    twice = {h.target for h in hosts if sum(h.target == o.target for o in hosts) > 1}
    if twice:
        raise UserError(
            f"--hosts {text}: {min(twice)} is named twice; write {min(twice)}:2 for two workers"
        )
    return hosts


def _host(words: list[str], text: str) -> Host:
    target, colon, number = words[0].rpartition(":")
    if not colon:
        target, number = words[0], ""
    is_host = re.fullmatch(r"[^-\s:][^\s:]*", target)
    if not is_host or (colon and not re.fullmatch(_NUMBER, number)):
        raise UserError(
            f"--hosts {text}: {words[0]!r}: write HOST or HOST:WORKERS. A port, a user or an IPv6 "
            "address belongs into ~/.ssh/config, under a name for the host"
        )
    values: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key not in _KEYS or not equals or not value:
            raise UserError(f"--hosts {text}: {target}: {word!r}: {nearest(key, _KEYS)}")
        values[key] = value
    workers = values.get("workers", number)
    if workers and not re.fullmatch(_NUMBER, workers):
        raise UserError(f"--hosts {text}: {target}: workers={workers}: give a number from 1")
    return Host(
        target, int(workers) if workers else None, values.get("python", ""), values.get("data", "")
    )


@dataclass(frozen=True)
class HostState:
    """A host after its check.

    Attributes:
        host: The host.
        found: What ``ssh_host.probe`` answered; empty if it is unreachable.
        faults: Why no worker can run on it, and what to do; empty if one can.
        database: How it gets to the database: ``direct`` or ``tunnel``; empty if it does not.
        port: The tunnel's port on the host.
        uses_store: Whether artifacts are in an object store, which all hosts see.
    """

    host: Host
    found: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    database: str = ""
    port: int = 0
    uses_store: bool = False

    @property
    def fits(self) -> bool:
        """Whether workers can run on it."""
        return not self.faults

    @property
    def workers(self) -> int:
        """Workers that it gets unless ``--workers`` says otherwise."""
        found = self.host.workers or self.found.get("gpus")
        return int(found or min(self.found.get("cores", 1), MOST_DEFAULT))

    def shares(self, folder: str) -> bool:
        """Whether it sees this machine's folder: ``data`` or ``artifacts``."""
        if folder == "artifacts" and self.uses_store:
            return True
        return bool(self.found.get("shared", {}).get(folder))


def host_text(state: HostState) -> str:
    """Returns what a host that was checked has, in one line."""
    found = state.found
    if not found:
        return f"{state.host.target}: unreachable"
    has = f"searchae {found['searchae']}" if found["searchae"] else "no searchae"
    room = f"{format_count(found['cores'], 'core')}, {format_count(found['gpus'], 'GPU')}"
    if not state.fits:
        return f"{state.host.target}: cannot run workers: {has}, {room}"
    return (
        f"{state.host.target}: {format_count(state.workers, 'worker')}, {has}, {room}, "
        f"{found['memory'] / 1e9:.1f} GB of memory free, database: {state.database}"
    )


def faults_of(found: Mapping[str, Any], host: Host) -> list[str]:
    """Returns why no worker can run on a host that was reached, apart from the database."""
    install = "add --install to have it installed there, or name its Python: python=PATH in --hosts"
    python, version = found["python"], found["searchae"]
    if not python:
        where = host.python or "PATH"
        return [f"no Python that runs at {where}; install Python 3.11 or later, then {install}"]
    faults = []
    if not version:
        where = f"{python} (Python {found['python_version']})"
        faults.append(f"searchae is not installed for {where}; {install}")
    elif version != __version__:
        faults.append(f"has searchae {version}, this is {__version__}; {install}")
    elif found["missing"]:
        faults.append(f"{python} lacks {', '.join(found['missing'])}; {install}")
    if not found["writable"]:
        faults.append(f"the data folder {found['data']} cannot be written; name another: data=DIR")
    return faults
