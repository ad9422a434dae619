"""The command line: parse, call one use case, print. The sole error boundary.

Results go to stdout, progress and errors to stderr. Nothing heavy is imported before a command
runs: ``searchae --help`` loads neither torch nor optuna.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from searchae import __version__, malloc
from searchae.cli.bundle import app as _winner
from searchae.cli.compare import app as _compare
from searchae.cli.dashboard import app as _dashboard
from searchae.cli.options import (
    DEFAULT_STORAGE,
    INTERRUPTED,
    ArtifactsOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    StorageOption,
    StudyNameOption,
    StudyOption,
    examples,
)
from searchae.cli.options import await_study as _await
from searchae.cli.options import connect_to as _connect
from searchae.cli.options import importing as _importing
from searchae.cli.options import open_study as _open
from searchae.cli.options import quiet_optuna as _quiet_optuna
from searchae.cli.options import show as _print
from searchae.cli.report import app as _report
from searchae.errors import SearchaeError, UserError

if TYPE_CHECKING:
    from searchae.launch import Launcher, Request

_GO_ON = "interrupted; run the same command again to go on"

app = typer.Typer(
    name="searchae",
    help="Hyperparameter search for image autoencoders.",
    epilog="Try it: searchae tune --study quickstart",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(_winner)
app.add_typer(_compare)
app.add_typer(_dashboard)
app.add_typer(_report)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"searchae {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="SEARCHAE_DEBUG", help="Show tracebacks and debug logs."),
    ] = False,
) -> None:
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("searchae").setLevel(level)


@app.command(
    epilog=examples(
        "searchae tune -s quickstart",
        "searchae tune -s svhn --trials 200 --workers 4",
        "searchae tune -s mnist --set train.epochs=5 --dry-run",
    )
)
def tune(
    study: StudyOption,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trials to end complete or pruned.", show_default="the study file's"
        ),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            help="Time for the whole fleet from now; each worker still ends its epoch.",
            show_default="no limit",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes at once.", show_default="one a GPU, else one a core up to 4"
        ),
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    workers_per_device: Annotated[
        str,
        typer.Option(metavar="N|auto", help="Workers that share a GPU; auto: measured, up to 8."),
    ] = "1",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="SEARCHAE_THREADS",
            help="CPU threads of each worker.",
            show_default="the cores, shared out among the workers",
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    launcher: Annotated[
        str, typer.Option(help="Where workers run: local, ray or slurm.")
    ] = "local",
    ray_address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Ray cluster: HOST:PORT; auto: the one here, else a new one; local: a new one.",
        ),
    ] = "auto",
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An sbatch option, as partition=gpu; repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Decides everything random.", show_default="the study file's"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key of the study file; repeatable."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The study's name in the storage.", show_default="the study file's")
    ] = "",
    warm_start: Annotated[
        str, typer.Option(metavar="NAME", help="Start a new study from this one's trials.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option(help="Check everything, show what would run, train nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a search, or finish one that was interrupted.

    Run the same command again after a crash: what is finished stays, what is missing is run.
    """
    with _importing():
        _quiet_optuna()
        from searchae.launch import Request, prestarted_workers

    request = Request(
        study=study,
        name=name,
        storage=storage,
        trials=trials,
        max_hours=max_hours,
        workers=workers,
        workers_per_device=_per_device(workers_per_device),
        threads=threads,
        precision=precision,
        device=device,
        seed=seed,
        data_dir=data_dir,
        artifacts=artifacts,
        overrides=overrides or (),
        warm_start=warm_start,
    )
    runs_on = _launcher(launcher, request, ray_address=ray_address, slurm=slurm or ())
    if dry_run:
        _show_plan(request, runs_on, as_json=as_json)
        return
    with prestarted_workers(request, runs_on) as imported:
        _search(request, runs_on, imported, as_json=as_json)


def _show_plan(request: Request, runs_on: Launcher, *, as_json: bool) -> None:
    with _importing():
        from searchae.cli import console
        from searchae.tune import plan_search

    malloc.configure_malloc()  # as a worker does, whose step is measured here
    plan = plan_search(request, console.print_note, runs_on)
    _print(as_json, lambda: console.plan_document(plan), lambda: console.print_plan(plan))


def _search(
    request: Request, runs_on: Launcher, imported: Callable[[], None], *, as_json: bool
) -> None:
    with _importing():
        from searchae.cli import console, progress
        from searchae.tune import StopRequest, tune

    imported()
    stop = StopRequest()
    # The second time it does not wait.
    _on_signals(lambda: stop.set() if stop.heard and not stop.is_set() else _interrupt())
    with progress.ProgressDisplay() as watcher:
        summary = tune(request, watcher, runs_on, stop)
    _print(as_json, summary.document, lambda: console.print_summary(summary))
    if summary.best is not None and summary.counts.finished >= summary.counts.budget:
        used = (
            ("--storage", summary.storage, DEFAULT_STORAGE),
            ("--data-dir", str(request.data_dir), "data"),
            ("--artifacts", str(request.artifacts), "artifacts"),
        )
        console.note_next(summary.study, {o: own for o, own, usual in used if own != usual})


@app.command(
    epilog=examples("SEARCHAE_STORAGE=postgresql://me@db/searchae searchae worker -s svhn")
)
def worker(
    study: StudyNameOption,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    threads: Annotated[
        int, typer.Option(min=0, envvar="SEARCHAE_THREADS", help="CPU threads; 0 for all cores.")
    ] = 0,
    precision: PrecisionOption = "auto",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the study, if it is not there yet.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Join a study from any machine and work until its budget is spent.

    What to train comes from the study. SIGTERM or Ctrl-C puts the running trial back.
    """
    malloc.configure_malloc()
    logging.getLogger("searchae").setLevel(min(logging.INFO, logging.getLogger("searchae").level))
    with _importing():
        _quiet_optuna()
        from searchae.cli import console
        from searchae.launch import wait_until_wanted
        from searchae.training import Interrupted
        from searchae.worker import Worker, WorkerOptions, WorkerResults

    wait_until_wanted()
    stop = threading.Event()
    # The second time it does not wait for the trial to be put back.
    _on_signals(lambda: _interrupt() if stop.is_set() else stop.set())
    options = WorkerOptions(
        device=device,
        threads=threads or len(os.sched_getaffinity(0)),
        precision=precision,
        data_dir=data_dir,
        artifacts=artifacts,
        parent=int(os.environ.get("SEARCHAE_PARENT", "0")),
        shares=os.environ.get("SEARCHAE_SHARES", ""),
    )
    done = WorkerResults()
    try:
        stored = (_await if wait else _open)(storage, study, stop=stop)
        Worker(stored, options, stop, done).run()
    except Interrupted:
        stop.set()
    counts = asdict(done)
    _print(as_json, lambda: counts, lambda: console.print_counts(counts))
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


@app.command(epilog=examples("searchae status -s svhn", "searchae status -s svhn --watch"))
def status(
    study: StudyNameOption,
    storage: StorageOption = DEFAULT_STORAGE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again every 2 seconds, until done.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a study is, which workers live, and the best trial so far."""
    with _importing():
        _quiet_optuna()
        from searchae.cli import console, progress
        from searchae.study import Coordinator, summarize

    stored = _open(storage, study)
    ledger = Coordinator(stored)
    if watch and not as_json:
        console.print_summary(
            progress.watch_search(lambda: summarize(stored, ledger)), workers=True
        )
        return
    summary = summarize(stored, ledger)
    document = {**summary.document(), "workers": [asdict(w) for w in summary.workers]}
    _print(as_json, lambda: document, lambda: console.print_summary(summary, workers=True))


@app.command(epilog=examples("searchae studies --json"))
def studies(storage: StorageOption = DEFAULT_STORAGE, as_json: JsonOption = False) -> None:
    """List the study files that can be named, and the studies in the storage."""
    with _importing():
        _quiet_optuna()
        from searchae.cli import console
        from searchae.config import study_files
        from searchae.storage import database_exists
        from searchae.study import study_names

    files = {name: str(path) for name, path in study_files().items()}
    stored = study_names(_connect(storage)) if database_exists(storage) else []
    document = {"files": files, "stored": stored}
    _print(as_json, lambda: document, lambda: console.print_studies(study_files(), stored))


@app.command(epilog=examples("searchae best -s quickstart --json"))
def best(
    study: StudyNameOption, storage: StorageOption = DEFAULT_STORAGE, as_json: JsonOption = False
) -> None:
    """Show the best trial."""
    with _importing():
        _quiet_optuna()
        from searchae.cli import console
        from searchae.study import Coordinator, summarize

    stored = _open(storage, study)
    summary = summarize(stored, Coordinator(stored))
    found, done, asked = summary.best, summary.counts.finished, summary.counts.budget
    if found is None:
        raise UserError(
            f"study {study!r}: no trial has trained to its end yet; see searchae status"
        )
    if done < asked:
        console.print_note(f"the best of {done} of {asked} trials: the search is not finished")
    document = {"number": found.number, "psnr_db": found.psnr_db, "params": found.params}
    _print(as_json, lambda: document, lambda: console.print_best(found, stored.spec))


@app.command(
    epilog=examples(
        "searchae data mnist", "searchae data house-numbers", "searchae data ./my-study.toml"
    )
)
def data(
    name: Annotated[
        str, typer.Argument(help="A data set (mnist), or a study file whose data it is.")
    ],
    data_dir: DataDirOption = Path("data"),
    as_json: JsonOption = False,
) -> None:
    """Fetch and check a data set, and show its splits."""
    with _importing():
        from searchae.cli import console
        from searchae.config import (
            SOURCES_WITHOUT_PATH,
            find_study_file,
            load_study_file,
            spec_from_document,
            study_files,
        )
        from searchae.data import describe_splits, load_splits
        from searchae.errors import nearest

    known = {*SOURCES_WITHOUT_PATH, *study_files()}
    if name in SOURCES_WITHOUT_PATH:
        spec = spec_from_document({"data": {"name": name}}, source=name)
    elif name in known or "/" in name or name.endswith(".toml"):
        spec = load_study_file(find_study_file(name))
    else:
        raise UserError(f"{name!r} is no data set and no study file; {nearest(name, known)}")
    splits = load_splits(spec.data, data_dir=data_dir, seed=spec.seed, progress=console.print_note)
    document = {"name": spec.data.name, **describe_splits(splits)}
    _print(as_json, lambda: document, lambda: console.print_splits(document))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``searchae``; the process's own if unset.

    Returns:
        0 done, 1 the search failed, 2 a user's mistake, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("SEARCHAE_DEBUG"))
    # --debug is taken anywhere, since it is added to a line that failed.
    words = (["--debug"] if debug else []) + [w for w in words if w != "--debug"]
    _on_signals(_interrupt)
    try:
        app(words)
    except SystemExit as e:  # typer ends every command so, and says itself what was mistyped
        if e.code == INTERRUPTED:
            _say(_GO_ON)
        return e.code if isinstance(e.code, int) else 1
    except KeyboardInterrupt:
        _say(_GO_ON)
        return INTERRUPTED
    except SearchaeError as e:
        if debug:
            traceback.print_exc()
        _say(str(e))
        return e.exit_code
    except OSError as e:
        if debug:
            traceback.print_exc()
        _say(f"{e.filename or 'system'}: {e.strerror or e}")
        return 2
    except Exception as e:  # noqa: BLE001  # the boundary: a bug of searchae's own
        if debug:
            traceback.print_exc()
        _say(f"{type(e).__name__}: {e}\nThis is a bug in searchae; --debug shows where")
        return 1
    return 0


def _say(text: str) -> None:
    print(f"searchae: {text}", file=sys.stderr)


def _on_signals(action: Callable[[], None]) -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        action()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _per_device(text: str) -> int | None:
    """Workers that share a GPU; None where they are to be measured."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise UserError(f"--workers-per-device {text}: give a number of 1 or more, or auto")
    return int(text)


def _launcher(name: str, request: Request, *, ray_address: str, slurm: Sequence[str]) -> Launcher:
    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if name == "local":
        from searchae.launch import LocalLauncher

        return LocalLauncher()
    if name == "ray":
        from searchae.launch import RayLauncher

        return RayLauncher(ray_address)
    if name == "slurm":
        from searchae.launch import SlurmLauncher

        options = dict(part.partition("=")[::2] for part in slurm)
        label = request.name or Path(request.study).stem
        return SlurmLauncher(request.artifacts.resolve() / "slurm", options, label=label)
    from searchae.errors import nearest

    raise UserError(f"--launcher {name!r}: not known. {nearest(name, ('local', 'ray', 'slurm'))}")
