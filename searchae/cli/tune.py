"""``searchae tune``: runs a search, or shows what it would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae import malloc
from searchae.cli.database import storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
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
from searchae.cli.signals import handle_signals, interrupt
from searchae.errors import UserError, nearest

if TYPE_CHECKING:
    from searchae.launch import Launcher, Request
    from searchae.study import Summary

app = typer.Typer()

TrialsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Trials to end complete or pruned.", show_default="the study file's"),
]
MaxHoursOption = Annotated[
    float | None,
    typer.Option(
        help="Time for the whole fleet from now; each worker still ends its epoch.",
        show_default="no limit",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes at once.", show_default="one a GPU, else one a core up to 4"
    ),
]
WorkersPerDeviceOption = Annotated[
    str, typer.Option(metavar="N|auto", help="Workers that share a GPU; auto: measured, up to 8.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="SEARCHAE_THREADS",
        help="CPU threads of each worker.",
        show_default="the cores, shared out among the workers",
    ),
]
LauncherOption = Annotated[str, typer.Option(help="Where workers run: local, ray or slurm.")]
RayAddressOption = Annotated[
    str,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="Ray cluster: HOST:PORT; auto: the one here, else a new one; local: a new one.",
    ),
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An sbatch option, as partition=gpu; repeatable."),
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, help="Decides everything random.", show_default="the study file's"),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the study file; repeatable."
    ),
]
NameOption = Annotated[
    str, typer.Option(help="The study's name in the storage.", show_default="the study file's")
]
WarmStartOption = Annotated[
    str, typer.Option(metavar="NAME", help="Start a new study from this one's trials.")
]
DryRunOption = Annotated[
    bool, typer.Option(help="Check everything, show what would run, train nothing.")
]


@app.command(
    epilog=examples(
        "searchae tune -s quickstart",
        "searchae tune -s svhn --trials 200 --workers 4",
        "searchae tune -s mnist --set train.epochs=5 --dry-run",
    )
)
def tune(
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
    seed: SeedOption = None,
    overrides: OverridesOption = None,
    name: NameOption = "",
    warm_start: WarmStartOption = "",
    dry_run: DryRunOption = False,
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
        storage=storage_url(storage),
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
    chosen = _launcher(launcher, request, ray_address=ray_address, slurm=slurm or ())
    (_show_plan if dry_run else _search)(request, chosen, as_json=as_json)


def _show_plan(request: Request, launcher: Launcher, *, as_json: bool) -> None:
    with importing():
        from searchae.cli import console
        from searchae.tune import plan_search

    malloc.configure_malloc()  # as in a worker, whose step is measured here
    plan = plan_search(request, console.print_note, launcher)
    print_result(
        lambda: console.plan_document(plan), lambda: console.print_plan(plan), as_json=as_json
    )


def _search(request: Request, launcher: Launcher, *, as_json: bool) -> None:
    from searchae.launch import prestarted_workers

    with prestarted_workers(request, launcher) as imports_done:
        summary = _follow_search(request, launcher, imports_done)
    from searchae.cli import console

    print_result(summary.document, lambda: console.print_summary(summary), as_json=as_json)
    if summary.best is not None and summary.counts.finished >= summary.counts.budget:
        places = (
            ("--storage", summary.storage, DEFAULT_STORAGE),
            ("--data-dir", str(request.data_dir), "data"),
            ("--artifacts", str(request.artifacts), "artifacts"),
        )
        console.note_next(summary.study, {o: value for o, value, usual in places if value != usual})


def _follow_search(
    request: Request, launcher: Launcher, imports_done: Callable[[], None]
) -> Summary:
    with importing():
        from searchae.cli import progress
        from searchae.tune import StopRequest, tune

    imports_done()
    stop = StopRequest()
    # A second signal interrupts at once.
    handle_signals(lambda: stop.set() if stop.is_polled and not stop.is_set() else interrupt())
    with progress.ProgressDisplay() as watcher:
        return tune(request, watcher, launcher, stop)


def _parse_workers_per_device(text: str) -> int | None:
    """Returns the number of workers that share a GPU; None for ``auto``."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise UserError(f"--workers-per-device {text}: give a number of 1 or more, or auto")
    return int(text)


def _launcher(name: str, request: Request, *, ray_address: str, slurm: Sequence[str]) -> Launcher:
    from searchae.launch import LocalLauncher, RayLauncher, SlurmLauncher

    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if name == "local":
        return LocalLauncher()
    if name == "ray":
        return RayLauncher(ray_address)
    if name == "slurm":
        options = dict(part.partition("=")[::2] for part in slurm)
        label = request.name or Path(request.study).stem
        return SlurmLauncher(request.artifacts.resolve() / "slurm", options, label=label)
    raise UserError(f"--launcher {name!r}: not known. {nearest(name, ('local', 'ray', 'slurm'))}")
