"""``searchae worker``: joins a study."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from searchae.cli.database import await_study, open_study, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    StorageOption,
    StudyNameOption,
    examples,
    threads_option,
)
from searchae.cli.own_net import FactoryOption
from searchae.cli.results import print_result
from searchae.cli.signals import INTERRUPTED, handle_signals, interrupt
from searchae.cli.terminal import print_line

log = logging.getLogger(__name__)

app = typer.Typer()

PARENT_S = 1.0
"""Seconds between two looks whether the process that started this worker is still there."""

ThreadsOption = Annotated[
    int | None,
    threads_option(
        "CPU threads.",
        show_default="all cores",
    ),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for the study, if it is not there yet.")
]


@app.command(
    epilog=examples("SEARCHAE_STORAGE=postgresql://me@db/searchae searchae worker -s svhn")
)
def worker(
    study: StudyNameOption,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = "auto",
    factory: FactoryOption = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Join a study from any machine and work until it is done.

    What to train comes from the study. SIGTERM, SIGHUP or Ctrl-C puts the running trial back.
    """
    logging.getLogger("searchae").setLevel(min(logging.INFO, logging.getLogger("searchae").level))
    with importing():
        from searchae.launch import available_cores, configure_malloc, wait_until_wanted

        configure_malloc()
        quiet_optuna()
        from searchae.cli import console
        from searchae.study import allow_net
        from searchae.training import Interrupted
        from searchae.worker import Worker, WorkerOptions, WorkerResults, preload

        preload()

    wait_until_wanted()
    stop = threading.Event()
    # A second signal does not wait for the trial to be put back.
    handle_signals(lambda: interrupt() if stop.is_set() else _begin_to_stop(stop))
    if parent := int(os.environ.get("SEARCHAE_PARENT", "0")):
        threading.Thread(target=_watch, args=(parent, stop), name="parent", daemon=True).start()
    options = WorkerOptions(
        device=device,
        threads=threads or available_cores(),
        precision=precision,
        data_dir=data_dir,
        artifacts=artifacts,
        is_local=parent > 0,
        shares=os.environ.get("SEARCHAE_SHARES", ""),
        wanted=Path(wanted) if (wanted := os.environ.get("SEARCHAE_WANTED")) else None,
    )
    results = WorkerResults()
    url = storage_url(storage)
    try:
        stored = (await_study if wait else open_study)(url, study, stop=stop)
        allow_net(factory, stored)
        Worker(stored, options, stop, results).run()
    except Interrupted as e:
        stop.set()
        print_line(f"searchae: {e}", file=sys.stderr)
    counts = asdict(results)
    print_result(lambda: counts, lambda: console.print_counts(counts), as_json=as_json)
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


def _watch(parent: int, stop: threading.Event) -> None:
    """Sets ``stop`` once this process has another parent, even while the database is away."""
    while not stop.wait(PARENT_S):
        if os.getppid() != parent:
            log.warning("the process that started this worker is gone; leaving")
            stop.set()


def _begin_to_stop(stop: threading.Event) -> None:
    stop.set()
    with suppress(OSError):  # the terminal may be gone
        # Not print: the signal may have come in the middle of one.
        os.write(
            sys.stderr.fileno(),
            b"searchae: stopping: a running trial is kept, to be continued ...\n",
        )
