"""``searchae compare``: compares choices, or ranks trials again, over new seeds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.database import open_study, storage_url
from searchae.cli.fleet import (
    HostsOption,
    InstallOption,
    LauncherOption,
    MaxHoursOption,
    NumberPerDeviceOption,
    RayAddressOption,
    SkipUnfitOption,
    SlurmOption,
    ThreadsOption,
    TunnelOption,
    WorkersOption,
    chosen_launcher,
)
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.notify import NotifyOption, take_urls
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
from searchae.cli.own_net import FactoryOption
from searchae.cli.results import print_result, require_html
from searchae.cli.signals import polled_stop
from searchae.cli.typed_options import WHERE, typed_options
from searchae.errors import StopAskedError, TimeUpError, UserError

if TYPE_CHECKING:
    from searchae.compare import Comparison, ComparisonResult, Reranking
    from searchae.launch import FleetRequest, Launcher

app = typer.Typer()

ByOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A searched parameter with choices; repeatable.",
        show_default="regularizer, activation and optimizer, as far as they are searched",
    ),
]
UntilOption = Annotated[
    float,
    typer.Option(
        metavar="DB", help="Add bases and seeds until each difference is known this well."
    ),
]
L1CurveOption = Annotated[
    bool,
    typer.Option(help="With the regularizer, also measure PSNR and sparsity by l1_weight."),
]
MaxTrainingsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Start no more than this many trainings.", show_default="no limit"
    ),
]
TopOption = Annotated[
    int | None,
    typer.Option(
        metavar="K", min=1, help="Rank the study's K best trials instead.", show_default="no"
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=2, help="With --top: trainings of each trial.", show_default="3"),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(metavar="E", min=1, help="Epochs of each training.", show_default="the search's"),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        metavar="E",
        min=0,
        help="Stop after this many epochs without improvement; 0: never.",
        show_default="the search's",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        help="The page with the results.",
        show_default="ARTIFACTS/STUDY/compare/...",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be trained, and how long.")
]
DEFAULT_SEEDS = 3


@app.command(
    epilog=examples(
        "searchae compare -s quickstart",
        "searchae compare -s svhn --by activation --until 0.2",
        "searchae compare -s svhn --max-hours 2 --workers 4",
        "searchae compare -s svhn --top 10 --seeds 5",
    )
)
def compare(
    context: typer.Context,
    study: StudyNameOption,
    by: ByOption = None,
    until: UntilOption = 0.3,
    l1_curve: L1CurveOption = True,
    max_trainings: MaxTrainingsOption = None,
    max_hours: MaxHoursOption = None,
    top: TopOption = None,
    seeds: SeedsOption = None,
    epochs: EpochsOption = None,
    patience: PatienceOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    workers_per_device: NumberPerDeviceOption = 1,
    threads: ThreadsOption = None,
    precision: RecordedPrecisionOption = None,
    launcher: LauncherOption = "local",
    ray_address: RayAddressOption = "auto",
    slurm: SlurmOption = None,
    hosts: HostsOption = "",
    tunnel: TunnelOption = False,
    install: InstallOption = False,
    skip_unfit: SkipUnfitOption = False,
    factory: FactoryOption = "",
    notify: NotifyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out which regularizer, activation and optimizer win.

    A matched experiment: each choice is put into the same settings of the study's best trials
    (bases), its learning rate is tuned there by one rule, and it is trained with the same new seeds
    and measured on the test split. Bases and seeds are added until each difference is known
    within --until dB.

    Trainings are trials of the study NAME.trainings: workers share them, searchae worker -s
    NAME.trainings helps from another machine, and what was trained is kept, so that the same
    command again continues. --top K ranks the study's best trials over seeds before naming a
    winner, because the best of many noisy values is too high by chance; searchae train --trial
    winner then takes it.
    """
    _check_options(top, by=by, out=out, seeds=seeds, max_trainings=max_trainings)
    require_html(out)
    with importing():
        from searchae.launch import FleetRequest, configure_malloc

        configure_malloc()
        quiet_optuna()
        from searchae.compare import Comparison, ComparisonOptions, Reranking, TopOptions
        from searchae.study import allow_net

    url = storage_url(storage)
    stored = open_study(url, study)
    allow_net(factory, stored)
    chosen = chosen_launcher(
        launcher,
        artifacts=artifacts,
        label=study,
        ray_address=ray_address,
        slurm=slurm,
        hosts=hosts,
        tunnel=tunnel,
        install=install,
        skip_unfit=skip_unfit,
        storage=url,
        data_dir=data_dir,
        workers_per_gpu=workers_per_device,
    )
    request = FleetRequest(
        storage=url,
        max_hours=max_hours,
        workers=workers,
        workers_per_device=workers_per_device,
        threads=threads,
        device=device,
        data_dir=data_dir,
        artifacts=artifacts,
    )
    urls = take_urls(notify)
    if top is not None:
        options = TopOptions(top, seeds or DEFAULT_SEEDS, epochs, patience, precision)
        reranking = Reranking(stored, options)
        with _hint_at_going_on(context):
            _rerank(reranking, request, chosen, urls, dry_run=dry_run, as_json=as_json)
    else:
        comparison = Comparison(
            stored,
            ComparisonOptions(
                by=by or (),
                has_l1_curve=l1_curve,
                until_db=until,
                max_trainings=max_trainings,
                epochs=epochs,
                patience=patience,
                precision=precision,
            ),
        )
        with _hint_at_going_on(context):
            result = _compare(
                comparison, request, chosen, out, urls, dry_run=dry_run, as_json=as_json
            )
        _note_next(context, result, request)


@contextmanager
def _hint_at_going_on(context: typer.Context) -> Iterator[None]:
    """Prints the command that goes on if the block is ended early: in time, or by Ctrl-C."""
    try:
        yield
    except (TimeUpError, StopAskedError, KeyboardInterrupt):
        _note_going_on(context)
        raise


def _note_going_on(context: typer.Context) -> None:
    from searchae.cli.console import note_password, print_note

    note_password(context.params["storage"])
    words = ["searchae", "compare", *typed_options(context)]
    print_note(f"next: {shlex.join(words)}   goes on from here")


def _note_next(
    context: typer.Context, result: ComparisonResult | None, request: FleetRequest
) -> None:
    from searchae.cli import console
    from searchae.storage import masked_url

    if result is None:
        return
    if result.is_unfinished:
        _note_going_on(context)
    if result.best is not None:
        storage = masked_url(request.storage)
        places = console.places_elsewhere(storage, request.data_dir, request.artifacts)
        where = typed_options(context, only=WHERE)
        console.note_next_of_compare(context.params["study"], places, where)


def _check_options(
    top: int | None,
    *,
    by: Sequence[str] | None,
    out: Path | None,
    seeds: int | None,
    max_trainings: int | None,
) -> None:
    """Refuses options that belong to the other kind of comparison.

    Raises:
        UserError: There is one.
    """
    if top is not None and (by or out or max_trainings):
        raise UserError(
            "--top: ranks trials; --by, --out and --max-trainings belong to a comparison of choices"
        )
    if top is None and seeds is not None:
        raise UserError("--seeds: only with --top; a comparison of choices adds seeds as needed")


def _rerank(
    reranking: Reranking,
    request: FleetRequest,
    launcher: Launcher,
    urls: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from searchae.cli import console_compare, progress
    from searchae.tuning import notifying

    if dry_run:
        document = {
            "study": reranking.stored.name,
            "trials": [row.number for row in reranking.rows],
            "seeds": list(reranking.seeds),
            "trainings": len(reranking.trainings),
            "note": reranking.shortfall,
        }
        print_result(
            lambda: document, lambda: console_compare.print_top_plan(document), as_json=as_json
        )
        return
    with (
        progress.ProgressDisplay() as display,
        notifying(urls, "compare", reranking.stored.name, display) as watcher,
    ):
        ranking, found = reranking.run(request, launcher, watcher, polled_stop())
    print_result(lambda: found, lambda: console_compare.print_ranking(ranking), as_json=as_json)


def _compare(
    comparison: Comparison,
    request: FleetRequest,
    launcher: Launcher,
    out: Path | None,
    urls: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> ComparisonResult | None:
    """Runs or plans a comparison; returns its result, None of a plan."""
    from searchae.cli import console_compare, progress
    from searchae.compare import ComparisonRun
    from searchae.tuning import notifying

    if dry_run:
        plan = comparison.estimate()
        print_result(lambda: plan, lambda: console_compare.print_plan(plan), as_json=as_json)
        return None
    with (
        progress.ProgressDisplay() as display,
        notifying(urls, "compare", comparison.stored.name, display) as watcher,
    ):
        run = ComparisonRun(comparison, request, launcher, watcher, polled_stop())
        result, found = run.run(out)
    print_result(
        lambda: found,
        lambda: console_compare.print_verdicts(result, found["html"]),
        as_json=as_json,
    )
    return result
