"""``searchae tune``: runs a search, or shows what it would do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.database import connect_to, storage_url
from searchae.cli.fleet import (
    HostsOption,
    InstallOption,
    LauncherOption,
    MaxHoursOption,
    RayAddressOption,
    SkipUnfitOption,
    SlurmOption,
    ThreadsOption,
    TunnelOption,
    WorkersOption,
    WorkersPerDeviceOption,
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
    PrecisionOption,
    StorageOption,
    StudyOption,
    examples,
)
from searchae.cli.results import print_result
from searchae.cli.signals import polled_stop
from searchae.cli.track import TrackOption
from searchae.cli.typed_options import WHERE, typed_options
from searchae.config import comparable, compared_by_default
from searchae.errors import SpecError, UserError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from searchae.launch import Launcher, Request
    from searchae.study import Summary

app = typer.Typer()

TrialsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Trials in all, complete or pruned.",
        show_default="the study file's",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, help="Seed of everything random.", show_default="the study file's"
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the study file; KEY= takes its default. Repeatable.",
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The study's name in the storage.", show_default="the study file's"
    ),
]
WarmStartOption = Annotated[
    str, typer.Option(metavar="NAME", help="Start a new study from this one's trials.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, show what would run, train nothing.")
]


@app.command(
    epilog=examples(
        "searchae tune -s quickstart",
        "searchae tune -s svhn --trials 200 --workers 4",
        "searchae tune -s mnist --set train.epochs=5 --dry-run",
        "searchae tune -s svhn --storage managed --launcher ssh --hosts gpu1,gpu2:2 --install",
    )
)
def tune(
    context: typer.Context,
    study: StudyOption,
    trials: TrialsOption = None,
    max_hours: MaxHoursOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    workers_per_device: WorkersPerDeviceOption = "1",
    threads: ThreadsOption = None,
    precision: PrecisionOption = "auto",
    launcher: LauncherOption = "local",
    ray_address: RayAddressOption = "auto",
    slurm: SlurmOption = None,
    hosts: HostsOption = "",
    tunnel: TunnelOption = False,
    install: InstallOption = False,
    skip_unfit: SkipUnfitOption = False,
    seed: SeedOption = None,
    overrides: OverridesOption = None,
    name: NameOption = "",
    warm_start: WarmStartOption = "",
    dry_run: DryRunOption = False,
    notify: NotifyOption = None,
    track: TrackOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run a search, or finish one that was interrupted.

    Run the same command again after a crash: what is finished stays, what is missing is run.
    """
    with importing():
        quiet_optuna()
        from searchae.launch import Request

    request = Request(
        study=study,
        storage=storage_url(storage, create=True),
        name=name,
        trials=trials,
        max_hours=max_hours,
        workers=workers,
        workers_per_device=_parse_workers_per_device(workers_per_device),
        threads=threads,
        precision=precision,
        device=device,
        seed=seed,
        data_dir=data_dir,
        artifacts=artifacts,
        overrides=overrides or (),
        warm_start=warm_start,
    )
    _require_study_file(study, request.storage)
    chosen = chosen_launcher(
        launcher,
        artifacts=artifacts,
        label=name or Path(study).stem,
        ray_address=ray_address,
        slurm=slurm,
        hosts=hosts,
        tunnel=tunnel,
        install=install,
        skip_unfit=skip_unfit,
        storage=request.storage,
        data_dir=data_dir,
        workers_per_gpu=_parse_workers_per_device(workers_per_device) or 1,
    )
    urls = take_urls(notify)
    if dry_run:
        _show_plan(request, chosen, track, as_json=as_json)
    else:
        where = typed_options(context, only=WHERE)
        _search(request, chosen, urls, track, where, as_json=as_json)


def _require_study_file(study: str, storage: URL) -> None:
    """Says of a study that is stored, but whose file is not here, how to come by the file.

    Raises:
        SpecError: There is no such file.
    """
    from searchae.config import find_study_file

    try:
        find_study_file(study)
    except SpecError as e:
        from searchae.storage import database_exists, masked_url
        from searchae.study import study_overviews

        if "/" in study or not database_exists(storage):
            raise
        if study not in {o.name for o in study_overviews(connect_to(storage, writes=False))}:
            raise
        name = shlex.quote(study)
        raise SpecError(
            f"study {study!r} is in {masked_url(storage)}, but its file is not here: type the "
            f"file's path and --name {name}, or write the file anew with "
            f"`searchae studies --show {name} > {name}.toml` and type --study ./{name}.toml"
        ) from e


def _show_plan(request: Request, launcher: Launcher, track: str, *, as_json: bool) -> None:
    with importing():
        from searchae.cli import console
        from searchae.launch import configure_malloc
        from searchae.tuning import make_tracker, plan_search

    if track:
        make_tracker(track)  # checks that there is its library
    configure_malloc()  # as in a worker, whose step is measured here
    plan = plan_search(request, console.print_note, launcher)
    print_result(
        lambda: console.plan_document(plan), lambda: console.print_plan(plan), as_json=as_json
    )


def _search(
    request: Request,
    launcher: Launcher,
    urls: Sequence[str],
    track: str,
    where: Sequence[str],
    *,
    as_json: bool,
) -> None:
    from searchae.launch import prestarted_workers

    with prestarted_workers(request, launcher) as imports_done:
        summary = _follow_search(request, launcher, urls, track, imports_done)
    from searchae.cli import console

    print_result(summary.document, lambda: console.print_summary(summary), as_json=as_json)
    if summary.best is not None and summary.counts.finished >= summary.counts.budget:
        elsewhere = console.places_elsewhere(summary.storage, request.data_dir, request.artifacts)
        space = request.resolved[1].space
        default = [p.name for p in compared_by_default(space)]
        best_db = summary.best.psnr_db
        has_learned = best_db is not None and best_db > summary.baseline_db  # or compare refuses it
        compared = (default or list(comparable(space))) if has_learned else []
        console.note_next(summary.study, elsewhere, where, compared=compared, by=not default)


def _follow_search(
    request: Request,
    launcher: Launcher,
    urls: Sequence[str],
    track: str,
    imports_done: Callable[[], None],
) -> Summary:
    with importing():
        from searchae.cli import progress
        from searchae.tuning import make_tracker, notifying, tracking, tune

    imports_done()
    name, _ = request.resolved
    tracker = make_tracker(track) if track else None
    with (
        progress.ProgressDisplay() as display,
        notifying(urls, "tune", name, display) as notified,
        tracking(tracker, request.storage, name, request.artifacts, notified) as watcher,
    ):
        return tune(request, watcher, launcher, polled_stop())


def _parse_workers_per_device(text: str) -> int | None:
    """Returns the number of workers that share a GPU; None for ``auto``."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise UserError(f"--workers-per-device {text}: give a number of 1 or more, or auto")
    return int(text)
