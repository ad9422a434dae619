"""``searchae stop``: ends the work on a study, from any machine."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae.cli.database import open_study, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    JsonOption,
    StorageOption,
    StudyNameOption,
    examples,
)
from searchae.cli.results import print_result
from searchae.cli.terminal import print_line
from searchae.formatting import format_count, format_duration

if TYPE_CHECKING:
    from searchae.study import Coordinator, TrialCounts, WorkerInfo

LOOK_S = 0.5
"""Seconds between two looks at the workers."""
TELL_S = 10.0
"""Seconds after which the workers that are waited for are named again."""

app = typer.Typer()

NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Ask the workers to leave, and do not wait for it.")
]


@app.command(
    epilog=examples(
        "searchae stop -s svhn",
        "searchae stop -s svhn --no-wait",
        "searchae stop -s svhn.trainings",
    )
)
def stop(
    study: StudyNameOption,
    no_wait: NoWaitOption = False,
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: JsonOption = False,
) -> None:
    """End the work on a study, whichever machines it runs on.

    Workers end their epoch, put their trials back and leave; the tune, train or compare that
    started them ends with exit code 130. The trainings of the study, which train and compare run,
    are stopped too. Nothing is lost: the same tune, train or compare goes on.
    """
    with importing():
        quiet_optuna()
        from searchae.cli.console import print_note
        from searchae.study import Coordinator, with_lists

    stored = open_study(storage_url(storage), study)
    coordinators = [Coordinator(one) for one in with_lists(stored)]
    who = _who()
    for coordinator in coordinators:
        coordinator.ask_to_stop(who)
    begun = sum(len(coordinator.workers()) for coordinator in coordinators)
    workers = format_count(begun, "worker")
    print_note(
        f"study {study!r}: asked {workers} to end the epoch, put the trial back and leave"
        if begun
        else f"study {study!r}: no worker is at work on it"
    )
    if begun and not no_wait:
        _wait(coordinators, print_note)
    ended = [(c.stored.name, c.counts(), c.workers()) for c in coordinators]
    document = {
        "study": study,
        "asked_by": who,
        "workers_asked": begun,
        "studies": [_document(*one) for one in ended],
    }
    print_result(lambda: document, lambda: _print_end(ended), as_json=as_json)


def _wait(coordinators: Sequence[Coordinator], tell: Any) -> None:
    """Waits until no worker is alive, and tells who is waited for."""
    before, told_at = None, 0.0
    while True:
        alive = [(c.stored.name, worker) for c in coordinators for worker in c.workers()]
        if not alive:
            break
        names = [worker.worker for _, worker in alive]
        if names != before or time.monotonic() - told_at >= TELL_S:
            tell("waiting for " + "; ".join(_worker_text(*one) for one in alive))
            before, told_at = names, time.monotonic()
        time.sleep(LOOK_S)
    for coordinator in coordinators:
        coordinator.reap(trust_silence=False)


def _worker_text(study: str, worker: WorkerInfo) -> str:
    at = f"{worker.host} pid {worker.pid}"
    if worker.trial is None:
        doing = f"idle on {study}"
    else:
        doing = f"trial {worker.trial} of {study} after epoch {worker.epoch or 0}"
    silent = f", silent for {format_duration(worker.silent_s)}" if worker.silent_s > 60 else ""
    return f"{at} ({doing}{silent})"


def _document(name: str, counts: TrialCounts, alive: Sequence[WorkerInfo]) -> dict[str, Any]:
    return {
        "study": name,
        "finished": counts.finished,
        "budget": counts.budget,
        "running": counts.running,
        "waiting": counts.waiting,
        "workers": len(alive),
    }


def _print_end(ended: Sequence[tuple[str, TrialCounts, Sequence[WorkerInfo]]]) -> None:
    for name, counts, alive in ended:
        parts = [f"{counts.finished} of {counts.budget} trials done"]
        if counts.waiting:
            parts.append(f"{counts.waiting} to be continued")
        if counts.paused:
            parts.append(f"{counts.paused} paused")
        if alive:
            parts.append(f"{format_count(len(alive), 'worker')} still to leave")
        elif counts.running:
            parts.append(f"{counts.running} to be continued, of workers that are gone")
        print_line(f"{name}: {', '.join(parts)}")
    print_line("The same tune, train or compare command goes on.")


def _who() -> str:
    """Returns who runs this, as ``USER on HOST``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number only
        user = f"user {os.geteuid()}"
    return f"{user} on {socket.gethostname()}"
