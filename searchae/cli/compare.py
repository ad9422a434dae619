"""``searchae compare``: compares choices, or ranks trials again, over new seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae import malloc
from searchae.cli.database import open_study, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
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
)
from searchae.cli.results import print_result
from searchae.errors import UserError

if TYPE_CHECKING:
    from searchae.compare import Comparison, Reranking

app = typer.Typer()

ByOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A searched parameter with choices; repeatable.",
        show_default="regularizer, activation and optimizer, as far as they are searched",
    ),
]
BestOption = Annotated[int, typer.Option(min=1, help="Trials that stand for each choice.")]
TopOption = Annotated[
    int | None,
    typer.Option(min=1, help="Instead, rank the study's K best trials again.", show_default="no"),
]
SeedsOption = Annotated[int, typer.Option(min=2, help="Trainings of each trial, on new seeds.")]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, help="Of each training.", show_default="the search's")
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Stop after so many epochs without a better PSNR; 0 for never.",
        show_default="the search's",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html", help="The plots.", show_default="ARTIFACTS/STUDY/compare/..."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be trained, and how long.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="SEARCHAE_THREADS",
        help="CPU threads.",
        show_default="as many as each trial had",
    ),
]


@app.command(
    epilog=examples(
        "searchae compare -s quickstart",
        "searchae compare -s svhn --by activation --best 5 --seeds 5",
        "searchae compare -s svhn --top 10 --seeds 5",
    )
)
def compare(
    study: StudyNameOption,
    by: ByOption = None,
    best: BestOption = 3,
    top: TopOption = None,
    seeds: SeedsOption = 3,
    epochs: EpochsOption = None,
    patience: PatienceOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
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
        from searchae.compare import Comparison, Reranking, TrainingSchedule
        from searchae.training import pick_device

    stored = open_study(storage_url(storage), study)
    schedule = TrainingSchedule(seeds, epochs, patience, pick_device(device), threads, precision)
    if top is not None:
        reranking = Reranking(stored, schedule, top=top, artifacts=artifacts)
        _rerank(reranking, data_dir, dry_run=dry_run, as_json=as_json)
    else:
        comparison = Comparison(stored, schedule, by=by or (), best=best, artifacts=artifacts)
        _compare(comparison, data_dir, out, dry_run=dry_run, as_json=as_json)


def _rerank(reranking: Reranking, data_dir: Path, *, dry_run: bool, as_json: bool) -> None:
    from searchae.cli import console, console_compare

    if dry_run:
        numbers = [row.number for row in reranking.rows]
        side = {"parameter": "top", "name": f"{len(numbers)}", "trials": numbers}
        _print_plan(reranking, [side], as_json=as_json)
        return
    ranking, document = reranking.run(
        data_dir=data_dir, on_training=console_compare.print_training, note=console.print_note
    )
    print_result(lambda: document, lambda: console_compare.print_ranking(ranking), as_json=as_json)


def _compare(
    comparison: Comparison, data_dir: Path, out: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    from searchae.cli import console, console_compare

    if dry_run:
        sides = [
            {"parameter": contest.parameter, "name": side.name, "trials": list(side.trials)}
            for contest in comparison.compared
            for side in contest.sides
        ]
        _print_plan(comparison, sides, as_json=as_json)
        return
    verdicts, document = comparison.run(
        data_dir=data_dir,
        out=out,
        on_training=console_compare.print_training,
        note=console.print_note,
    )
    html = document["html"]
    print_result(
        lambda: document, lambda: console_compare.print_verdicts(verdicts, html), as_json=as_json
    )


def _print_plan(
    plan: Comparison | Reranking, sides: Sequence[dict[str, Any]], *, as_json: bool
) -> None:
    """Prints what a comparison would train.

    Args:
        plan: The comparison.
        sides: Its trials: ``parameter``, ``name`` and ``trials`` of each side.
        as_json: See ``print_result``.
    """
    from searchae.cli import console_compare

    missing = plan.store.missing()
    document = {
        "study": plan.stored.name,
        "sides": sides,
        "seeds": list(plan.seeds),
        "trainings": len(plan.store.wanted),
        "missing": len(missing),
        "seconds": plan.store.seconds(missing),
    }
    print_result(lambda: document, lambda: console_compare.print_plan(document), as_json=as_json)
