"""The command line: parses it, runs one command, and turns errors into exit codes.

Results go to stdout, progress and errors to stderr. Heavy packages are imported by the commands
themselves: ``searchae --help`` loads neither torch nor optuna.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from searchae import __version__
from searchae.cli import (
    bundle,
    compare,
    copy,
    dashboard,
    data,
    init,
    manage,
    report,
    status,
    stop,
    train,
    tune,
    worker,
)
from searchae.cli.signals import INTERRUPTED, handle_signals, interrupt
from searchae.cli.terminal import LineFormatter, safe_streams
from searchae.errors import SearchaeError, UserError
from searchae.formatting import one_line

_INTERRUPTED_MESSAGE = "interrupted; run the same command again to go on"

app = typer.Typer(
    name="searchae",
    help="Hyperparameter search for image autoencoders.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it: searchae tune --study quickstart\n\n"
    "The password of a PostgreSQL database comes through the environment: in the URL of "
    "SEARCHAE_STORAGE, or in the file that SEARCHAE_STORAGE_PASSWORD_FILE names.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# In the order of --help.
for commands in (
    init,
    tune,
    worker,
    stop,
    status,
    data,
    train,
    bundle,
    compare,
    dashboard,
    report,
    manage,
    copy,
):
    app.add_typer(commands.app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"searchae {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="SEARCHAE_DEBUG", help="Show tracebacks and debug logs."),
    ] = False,
) -> None:
    level = logging.DEBUG if debug else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("searchae").setLevel(level)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``searchae``; those of this process if unset.

    Returns:
        The exit code: 0 success, 1 failure, 2 a mistake of the user, 130 stopped before the end.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("SEARCHAE_DEBUG"))
    # Accepted at any position, because it is usually appended to a command that failed.
    words = (["--debug"] if debug else []) + [w for w in words if w != "--debug"]
    handle_signals(interrupt)
    with safe_streams():
        return _flush_output(_run(words, debug=debug))


def _flush_output(code: int) -> int:
    """Writes what is buffered, and returns the exit code: not 0 if that fails.

    Python would else do it at exit, and show a traceback.
    """
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(e, BrokenPipeError):  # as of `searchae studies | head -1`
            return code or 1
        message, failed = _describe(e)
        _print_error(message)
        return code or failed
    return code


def _run(words: Sequence[str], *, debug: bool) -> int:
    try:
        _check_study_option([w for w in words if w != "--debug"])
        app(words)
    except SystemExit as e:  # typer ends every command with it, and prints usage errors itself
        if e.code == INTERRUPTED and "dashboard" not in words:  # it only displays
            _print_error(_INTERRUPTED_MESSAGE)
        return e.code if isinstance(e.code, int) else 1
    except KeyboardInterrupt:
        _print_error(_INTERRUPTED_MESSAGE)
        return INTERRUPTED
    except Exception as e:  # noqa: BLE001  # no exception leaves the command line
        if debug:
            traceback.print_exc()
        message, code = _describe(e)
        _print_error(message)
        return code
    return 0


def _check_study_option(words: Sequence[str]) -> None:
    """Says how to name the study where it was given without ``-s``, or not at all.

    Raises:
        UserError: It was.
    """
    if not words or not {"-h", "--help"}.isdisjoint(words):
        return
    group = typer.main.get_command(app)
    command = getattr(group, "commands", {}).get(words[0])
    if command is None or any(p.param_type_name == "argument" for p in command.params):
        return
    option = next((p for p in command.params if p.name == "study"), None)
    if option is None or any(
        w.partition("=")[0] in option.opts or w.startswith("-s") for w in words
    ):
        return
    if len(words) > 1 and not words[1].startswith("-"):
        meant = shlex.join(["searchae", words[0], "-s", *words[1:]])
        raise UserError(f"{words[1]}: the study is named by -s: {meant}")
    if option.required:
        example = f"searchae {words[0]} -s quickstart"
        raise UserError(
            f"{words[0]}: name a study with -s, as in `{example}`; `searchae studies` lists them"
        )


def _describe(error: Exception) -> tuple[str, int]:
    """Returns the message and the exit code of an error."""
    if isinstance(error, SearchaeError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return one_line(f"{error.filename or 'system'}: {error.strerror or error}"), 2
    what = one_line(f"{type(error).__name__}: {error}")
    return f"{what}\nThis is a bug in searchae; --debug shows where", 1


def _print_error(text: str) -> None:
    print(f"searchae: {text}", file=sys.stderr)
