"""The command that serves the dashboard."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.options import (
    DEFAULT_STORAGE,
    INTERRUPTED,
    ArtifactsOption,
    StorageOption,
    examples,
    importing,
    quiet_optuna,
)
from searchae.errors import StorageError, UserError

if TYPE_CHECKING:
    from searchae.dashboard import Logins

LOGIN_VARIABLE = "SEARCHAE_DASHBOARD_LOGIN"

app = typer.Typer()


@app.command(
    epilog=examples(
        "searchae dashboard",
        "searchae dashboard --hash-password ann > login.txt",
        "searchae dashboard --host 0.0.0.0 --login login.txt",
    )
)
def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    host: Annotated[
        str, typer.Option(help="Address to listen on. One that others reach needs a login.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")
    ] = 8080,
    artifacts: ArtifactsOption = Path("artifacts"),
    login: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Who may look: a line a user, made by --hash-password. {LOGIN_VARIABLE} in the "
            "environment may hold such lines instead.",
        ),
    ] = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let those who log in change and delete studies.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse changes without a login, too.")
    ] = False,
    hash_password: Annotated[
        str | None,
        typer.Option(
            metavar="USER", help="Ask for a password, print the line that lets USER in, and end."
        ),
    ] = None,
) -> None:
    """Serve Optuna's dashboard on the studies, until Ctrl-C.

    On this machine's own address nobody logs in, and studies can be changed. With a login they
    can only be looked at, unless --allow-writes. The login is sent unencrypted: put a reverse
    proxy with TLS in front of it for a network that is not yours alone.
    """
    if hash_password is not None:
        from searchae.dashboard import login_line

        print(login_line(hash_password, _new_password()))
        return
    if allow_writes and read_only:
        raise UserError("--allow-writes and --read-only exclude each other; leave one out")
    with importing():
        quiet_optuna()
        from searchae.dashboard import ServerOptions, check_server_options, serve_dashboard
        from searchae.storage import Backoff, connect, database_exists, masked_url

    logins = _logins(login)
    options = ServerOptions(
        host=host,
        port=port,
        artifacts=artifacts,
        logins=logins,
        writes=allow_writes or (logins is None and not read_only),
    )
    check_server_options(options)
    if not database_exists(storage):
        raise StorageError(
            f"{masked_url(storage)}: there is no such database; `searchae tune` makes one"
        )
    # A visitor waits for a database that restarts, but not for one that stays away.
    opened = connect(storage, backoff=Backoff(longest_s=1.0, limit_s=5.0), patient=True)

    def announce(url: str) -> None:
        line = f"Dashboard of {masked_url(storage)} at {url} (Ctrl-C to stop)"
        print(line, file=sys.stderr, flush=True)

    if serve_dashboard(opened, options, announce) == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _logins(file: Path | None) -> Logins | None:
    from searchae.dashboard import Logins

    lines = os.environ.get(LOGIN_VARIABLE, "")
    if file is not None:
        return Logins.load(file)
    return Logins.parse(lines, source=LOGIN_VARIABLE) if lines else None


def _new_password() -> str:
    """Asked for twice on a terminal, unseen; else the first line of what is piped in."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    password = getpass("Password: ")
    if getpass("Again: ") != password:
        raise UserError("the two passwords differ; run it again")
    return password
