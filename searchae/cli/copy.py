"""``searchae copy``: copies a study into another database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae.cli.database import connect_to, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import ArtifactsOption, JsonOption, StudyNameOption, examples
from searchae.cli.results import print_result
from searchae.cli.terminal import print_line
from searchae.files import artifact_path
from searchae.formatting import format_count

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer()

FromOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="URL",
        envvar="SEARCHAE_STORAGE_FROM",
        show_envvar=True,
        help="Database that the study is in.",
    ),
]
ToOption = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        envvar="SEARCHAE_STORAGE",
        show_envvar=True,
        help="Database that it is copied to.",
    ),
]
ArtifactsToOption = Annotated[
    Any,  # an ArtifactPath, or None
    typer.Option(
        metavar="DIR|URL",
        parser=artifact_path,
        help="Also copy its files, from --artifacts to here.",
        show_default="the files stay, for both",
    ),
]


@app.command(
    epilog=examples(
        "searchae copy -s svhn --from sqlite:///searchae.db --to postgresql://me@db/searchae",
        "searchae copy -s svhn --from sqlite:///searchae.db --to sqlite:///kept.db "
        "--artifacts-to kept",
    )
)
def copy(
    study: StudyNameOption,
    source: FromOption,
    target: ToOption,
    artifacts: ArtifactsOption = Path("artifacts"),
    artifacts_to: ArtifactsToOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a study into another database.

    The copy is exact: trials with their numbers, times, states, parameters, reports and
    attributes, and the lists of trainings. Nothing is in the other database until all of it is; an
    interrupted copy is typed again. No worker may be at work on the study meanwhile.
    """
    with importing():
        quiet_optuna()
        from searchae.storage import masked_url, require_database
        from searchae.study import StudyCopy

    url, url_to = storage_url(source), storage_url(target)
    require_database(url)
    with _progress() as progress:
        copied = StudyCopy(
            connect_to(url), connect_to(url_to), study, artifacts, artifacts_to, progress
        ).run()
    where = masked_url(url_to)
    document = {
        "from": masked_url(url),
        "to": where,
        "studies": [{"study": one.name, "trials": one.trials} for one in copied],
        "artifacts_to": None if artifacts_to is None else str(artifacts_to),
    }

    def text() -> None:
        for one in copied:
            print_line(f"{one.name}: {format_count(one.trials, 'trial')} copied to {where}")
        if artifacts_to is None:
            print_line(
                f"The files stay in {artifacts / copied[0].folder}, for both studies: go on with "
                "one of the two only, or copy with --artifacts-to."
            )

    print_result(lambda: document, text, as_json=as_json)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], object]]:
    """Shows on a terminal how many rows are copied; yields what is called with that."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from searchae.cli.terminal import SafeConsole

    console: Any = SafeConsole(stderr=True)
    columns = (TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task("copying", total=None)
        yield lambda done, rows: shown.update(task, completed=done, total=rows)
