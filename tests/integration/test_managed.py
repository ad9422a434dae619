"""The PostgreSQL of ``--storage managed``: started by the first command, stopped after the last."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from searchae.errors import NoStudyError

pytestmark = pytest.mark.timeout(600)

PROGRAM = """
import sys
from searchae.storage import masked_url, open_url
url = open_url(sys.argv[1], create=True, note=lambda text: print(text, file=sys.stderr))
print(url.render_as_string(hide_password=False), masked_url(url), flush=True)
sys.stdin.read()
"""


def wait_for(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that stays open to the server's user: pytest closes its own now and then."""
    with tempfile.TemporaryDirectory(prefix="managed-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def command(home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process that uses the database until its standard input ends."""
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, f"managed:{home / 'pg'}"],
                env={**os.environ, "SEARCHAE_MANAGED_IDLE_S": "3"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()
    wait_for(lambda: not running(home))


def running(folder: Path) -> list[str]:
    """The command lines of servers and keepers of a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder / "pg") in line and PROGRAM[:20] not in line:
            found.append(line)
    return found


def told(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line.split()


def test_commands_share_one_server_which_stops_when_the_last_has_ended(
    home: Path, command: Callable[[], subprocess.Popen[str]]
) -> None:
    both = [command(), command()]
    (url, name), again = told(both[0]), told(both[1])
    assert again == [url, name]
    assert name == f"managed:{home / 'pg'}", "no address and no password is shown"
    plain = url.replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        found = connection.execute("SHOW listen_addresses").fetchone()
        assert found == ("127.0.0.1",)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plain.replace(plain.split(":")[2].split("@")[0], "wrong"))
    settings = home / "pg" / "settings.json"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    password = url.split(":")[2].split("@")[0]
    assert not any(password in line for line in running(home))

    both[0].kill()
    time.sleep(6)
    with psycopg.connect(plain) as connection:  # the other one still uses it
        connection.execute("SELECT 1")
    both[1].kill()
    wait_for(lambda: not running(home))
    with psycopg.connect(told(command())[0].replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_a_connection_keeps_it_and_a_killed_keeper_is_replaced(
    home: Path, command: Callable[[], subprocess.Popen[str]]
) -> None:
    first = command()
    plain = told(first)[0].replace("+psycopg", "")
    with psycopg.connect(plain) as connection:  # as a worker whose command was killed
        first.kill()
        time.sleep(8)
        connection.execute("SELECT 1")
        connection.commit()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            line = path.read_bytes()
            if b"managed_keeper" in line and str(home).encode() in line:
                os.kill(int(path.parent.name), signal.SIGKILL)
        connection.execute("SELECT 1")
        connection.commit()
        second = command()
        assert told(second)[0].replace("+psycopg", "") == plain, "the server itself went on"
        connection.execute("SELECT 1")
    second.kill()
    wait_for(lambda: not running(home))


def test_only_a_search_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchae.storage import open_url

    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoStudyError, match=r"there is no database at .*/searchae-postgres"):
        open_url("managed")
    assert not list(tmp_path.iterdir())
