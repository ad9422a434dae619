"""``searchae status``, ``studies`` and ``best``: show what is in the storage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from searchae.cli.database import connect_to, open_study, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    JsonOption,
    StorageOption,
    StudyNameOption,
    examples,
)
from searchae.cli.results import print_result
from searchae.errors import UserError

app = typer.Typer()

WatchOption = Annotated[
    bool, typer.Option("--watch", help="Refresh every 2 seconds until the study ends.")
]


@app.command(epilog=examples("searchae status -s svhn", "searchae status -s svhn --watch"))
def status(
    study: StudyNameOption,
    storage: StorageOption = DEFAULT_STORAGE,
    watch: WatchOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a study is, its workers and its best trial."""
    with importing():
        quiet_optuna()
        from searchae.cli import console, progress
        from searchae.study import Coordinator, summarize

    stored = open_study(storage_url(storage), study, writes=False)
    coordinator = Coordinator(stored)
    if watch and not as_json:
        summary = progress.watch_search(lambda: summarize(stored, coordinator))
        console.print_summary(summary, workers=True)
        return
    summary = summarize(stored, coordinator)
    document = {**summary.document(), "workers": [asdict(w) for w in summary.workers]}
    print_result(
        lambda: document, lambda: console.print_summary(summary, workers=True), as_json=as_json
    )


@app.command(epilog=examples("searchae studies", "searchae studies --json"))
def studies(
    storage: StorageOption = DEFAULT_STORAGE,
    artifacts: ArtifactsOption = Path("artifacts"),
    as_json: JsonOption = False,
) -> None:
    """List the study files and the stored studies.

    Of each stored study: its trials, its best PSNR, when it was made and last worked on, and how
    large its folder below --artifacts is.
    """
    with importing():
        quiet_optuna()
        from searchae.cli import console
        from searchae.config import study_files
        from searchae.storage import database_exists
        from searchae.study import study_overviews

    url, files = storage_url(storage), study_files()
    stored = []
    if database_exists(url):
        stored = study_overviews(connect_to(url, writes=False), artifacts)
    document = {
        "files": {name: str(path) for name, path in files.items()},
        "stored": [overview.name for overview in stored],
        "studies": [asdict(overview) for overview in stored],
    }
    print_result(lambda: document, lambda: console.print_studies(files, stored), as_json=as_json)


@app.command(epilog=examples("searchae best -s quickstart --json"))
def best(
    study: StudyNameOption, storage: StorageOption = DEFAULT_STORAGE, as_json: JsonOption = False
) -> None:
    """Show the best trial, and the front of several objectives."""
    with importing():
        quiet_optuna()
        from searchae.cli import console
        from searchae.study import Coordinator, require_searched, summarize

    stored = open_study(storage_url(storage), study, writes=False)
    require_searched(stored)
    summary = summarize(stored, Coordinator(stored))
    row, finished, budget = summary.best, summary.counts.finished, summary.counts.budget
    if row is None:
        raise UserError(
            f"study {study!r}: no trial has trained to its end yet; see searchae status"
        )
    if finished < budget:
        console.print_note(f"the best of {finished} of {budget} trials: the search is not finished")
    for warning in summary.warnings:
        console.print_note(f"warning: {warning}")
    document = {"number": row.number, "psnr_db": row.psnr_db, "params": row.params}
    document |= summary.front_document()

    def text() -> None:
        console.print_best(row)
        if summary.front:
            console.print_front(summary.front)

    print_result(lambda: document, text, as_json=as_json)
