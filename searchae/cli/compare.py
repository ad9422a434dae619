"""The command that says what wins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae import malloc
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    RecordedPrecisionOption,
    StorageOption,
    StudyNameOption,
    examples,
    importing,
    open_study,
    quiet_optuna,
    show,
)
from searchae.errors import UserError

if TYPE_CHECKING:
    from searchae.compare import Comparison, Reranking

app = typer.Typer()


@app.command(
    epilog=examples(
        "searchae compare -s quickstart",
        "searchae compare -s svhn --by activation --best 5 --seeds 5",
        "searchae compare -s svhn --top 10 --seeds 5",
    )
)
def compare(
    study: StudyNameOption,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A searched parameter with choices; repeatable.",
            show_default="regularizer, activation and optimizer, as far as they are searched",
        ),
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="Trials that stand for each choice.")] = 3,
    top: Annotated[
        int | None,
        typer.Option(
            min=1, help="Instead, rank the study's K best trials again.", show_default="no"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each trial, on new seeds.")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training.", show_default="the search's")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Stop after so many epochs without a better PSNR; 0 for never.",
            show_default="the search's",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="The plots.", show_default="ARTIFACTS/STUDY/compare/..."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be trained, and how long.")
    ] = False,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="SEARCHAE_THREADS",
            help="CPU threads.",
            show_default="as many as each trial had",
        ),
    ] = None,
    precision: RecordedPrecisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which regularizer, activation and optimizer win, or that no difference is shown.

    The best trials of each side are trained anew over seeds that the search has not seen, and
    compared on the test split. Trainings are kept: an interrupted comparison goes on, and the
    same one again takes no training. --top K re-ranks the study's best over seeds before naming
    a winner, since the best of many noisy values flatters itself; searchae train --trial winner
    then takes it.
    """
    if top is not None and (by or out):
        raise UserError("--top: ranks trials; --by and --out belong to a comparison of choices")
    malloc.configure_malloc()
    with importing():
        quiet_optuna()
        from searchae.cli import console, console_compare
        from searchae.compare import Comparison, Reranking, TrainingSchedule
        from searchae.training import pick_device

    stored = open_study(storage, study)
    schedule = TrainingSchedule(seeds, epochs, patience, pick_device(device), threads, precision)
    if top is not None:
        rerank = Reranking(stored, schedule, top=top, artifacts=artifacts)
        if dry_run:
            _dry_run(rerank, _ranked(rerank), as_json)
            return
        ranking, found = rerank.run(
            data_dir=data_dir, on_training=console_compare.print_training, note=console.print_note
        )
        show(as_json, lambda: found, lambda: console_compare.print_ranking(ranking))
        return
    contest = Comparison(stored, schedule, by=by or (), best=best, artifacts=artifacts)
    if dry_run:
        _dry_run(contest, _sides(contest), as_json)
        return
    verdicts, document = contest.run(
        data_dir=data_dir,
        out=out,
        on_training=console_compare.print_training,
        note=console.print_note,
    )
    html = document["html"]
    show(as_json, lambda: document, lambda: console_compare.print_verdicts(verdicts, html))


def _dry_run(what: Comparison | Reranking, sides: list[dict[str, Any]], as_json: bool) -> None:
    from searchae.cli import console_compare

    missing = what.store.missing()
    document = {
        "study": what.stored.name,
        "sides": sides,
        "seeds": list(what.seeds),
        "trainings": len(what.store.wanted),
        "missing": len(missing),
        "seconds": what.store.seconds(missing),
    }
    show(as_json, lambda: document, lambda: console_compare.print_plan(document))


def _sides(contest: Comparison) -> list[dict[str, Any]]:
    return [
        {"parameter": c.parameter, "name": s.name, "trials": list(s.trials)}
        for c in contest.compared
        for s in c.sides
    ]


def _ranked(rerank: Reranking) -> list[dict[str, Any]]:
    numbers = [r.number for r in rerank.rows]
    return [{"parameter": "top", "name": f"{len(numbers)}", "trials": numbers}]
