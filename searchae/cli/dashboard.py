"""``searchae dashboard``: serves the dashboard."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.database import storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import DEFAULT_STORAGE, ArtifactsOption, StorageOption, examples
from searchae.cli.signals import INTERRUPTED
from searchae.cli.terminal import print_line
from searchae.errors import UserError

if TYPE_CHECKING:
    from searchae.dashboard import Logins, ServerOptions

LOGIN_VARIABLE = "SEARCHAE_DASHBOARD_LOGIN"

app = typer.Typer()

HostOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Address to listen on. One that others reach needs a login."
    ),
]
PortOption = Annotated[
    int,
    typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 for any free one."),
]
LoginOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"Who may look: a line a user, made by --hash-password. {LOGIN_VARIABLE} in the "
        "environment may hold such lines instead.",
    ),
]
AllowWritesOption = Annotated[
    bool, typer.Option("--allow-writes", help="Let those who log in change and delete studies.")
]
ReadOnlyOption = Annotated[
    bool, typer.Option("--read-only", help="Refuse all changes, also on this machine.")
]
ProxyOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="A reverse proxy's address, whose X-Forwarded-For is believed: without it all "
        "visitors share one limit on wrong logins.",
        show_default="no proxy",
    ),
]
HashPasswordOption = Annotated[
    str | None,
    typer.Option(
        metavar="USER", help="Ask for a password, print the line that lets USER in, and end."
    ),
]


@app.command(
    epilog=examples(
        "searchae dashboard",
        "(umask 077; searchae dashboard --hash-password ann > login.txt)",
        "searchae dashboard --host 0.0.0.0 --login login.txt",
    )
)
def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8080,
    artifacts: ArtifactsOption = Path("artifacts"),
    login: LoginOption = None,
    allow_writes: AllowWritesOption = False,
    read_only: ReadOnlyOption = False,
    proxy: ProxyOption = "",
    hash_password: HashPasswordOption = None,
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
        from searchae.dashboard import ServerOptions, check_server_options

    logins = _logins(login)
    options = ServerOptions(
        host=host,
        port=port,
        artifacts=artifacts,
        logins=logins,
        writes=allow_writes or (logins is None and not read_only),
        proxy=proxy,
    )
    check_server_options(options)
    _serve(storage, options)


def _serve(storage: str, options: ServerOptions) -> None:
    from searchae.dashboard import serve_dashboard
    from searchae.storage import Backoff, connect, masked_url, require_database

    url = storage_url(storage)
    require_database(url)
    # Requests wait for a database that restarts, but not during a longer outage.
    connection = connect(
        url,
        backoff=Backoff(longest_s=1.0, limit_s=5.0),
        patient=True,
        writes=options.writes,
    )

    def announce(address: str) -> None:
        line = f"Dashboard of {masked_url(url)} at {address} (Ctrl-C to stop)"
        print_line(line, file=sys.stderr)

    if serve_dashboard(connection, options, announce) == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)


def _logins(file: Path | None) -> Logins | None:
    from searchae.dashboard import Logins

    lines = os.environ.get(LOGIN_VARIABLE, "")
    if file is not None:
        return Logins.load(file)
    return Logins.parse(lines, source=LOGIN_VARIABLE) if lines else None


def _new_password() -> str:
    """Asks for a password twice on a terminal, without echo; else reads a line from stdin."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    password = getpass("Password: ")
    if getpass("Again: ") != password:
        raise UserError("the two passwords differ; run it again")
    return password
