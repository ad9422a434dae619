"""The main job: spec -> study -> workers -> follow them -> sweep -> summary."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch

from searchae import (
    data,
    fleet,
    models,
    objective,
    probe,
    space,
    storage,
    study,
)
from searchae.data import decoded
from searchae.errors import NoStudyError, SearchaeError, SpecError, StudyStoppedError, UserError
from searchae.launch import Launcher, LocalLauncher
from searchae.launch.supervisor import Supervisor
from searchae.ledger import Counts, Ledger
from searchae.report import Summary, TrialRow, summarize
from searchae.request import Request, jobs, resolve, sized_fleet
from searchae.spec import Progress, StudySpec
from searchae.training import mean_image_psnr_db
from searchae.training.device import pick_device
from searchae.training.kernels import check_wish
from searchae.training.precision import pick_precision, why_slow
from searchae.words import counted
from searchae.worker import checkpoint_folder

FOLLOW_S, END_S = 1.0, 0.25
"""Seconds between two looks at the study while it is followed; before its last trial ends."""
LOOK_SHARE = 0.05
"""The most of a core that looking may take, which trains too."""
LEAVE_S = 3.0
"""Seconds that workers have to leave by themselves once the budget is spent."""


class Watcher(Protocol):
    """Gets what a person who waits wants to see."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """A trial has ended."""

    def progress(self, summary: Summary) -> None:
        """How far the study is."""


class Stop(threading.Event):
    """A wish to stop that waits for a moment at which nothing is held.

    An exception in the middle of a database call leaves a transaction open, which this process
    itself would then wait for.

    Attributes:
        heard: Whether somebody looks at it now; if not, the caller has to interrupt by himself.
    """

    heard = False


def tune(
    request: Request,
    watcher: Watcher,
    launcher: Launcher | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Runs a search until its budget is spent, or finishes one that was interrupted.

    Args:
        request: What to search.
        watcher: Told what goes on.
        launcher: Where workers run; on this machine if unset.
        stop: Set from a signal handler, ends the search as an interrupt does, while ``heard``.

    Raises:
        UserError: Something in the request is wrong; nothing was started.
        StudyStoppedError: A trial met a bug.
        SearchaeError: The workers died.
        KeyboardInterrupt: Passed on, after every trial has been put back.
    """
    launcher, stop = launcher or LocalLauncher(), stop or Stop()
    name, spec = resolve(request)
    if launcher.nearby:
        pick_device(request.device)
    pick_precision(request.precision, torch.device("cpu"))  # the name; workers pick for themselves
    check_wish()
    check_hours(request.max_hours)
    crew = sized_fleet(request, launcher)
    advise(request, crew, watcher.note)
    source = warm_start(request)
    connection = storage.connect(request.storage)
    if there := study.find_study(connection, name):
        study.check_spec(there, spec)  # before the images, which may take minutes
    splits, baseline_db = load_images(spec, request, watcher.note)
    check_models(spec, splits)
    stored, created = study.open_study(
        connection,
        name,
        spec=spec,
        data_hash=splits.hash,
        baseline_db=baseline_db,
        warm_start=source,
    )
    stored.study.set_user_attr(study.SPLITS, data.describe(splits))
    if launcher.nearby:
        decoded.keep(splits, request.data_dir)
    ledger = Ledger(stored)
    asked, done = spec.search.trials, ledger.counts().finished
    if done > asked:
        watcher.note(f"{done} trials are done, more than the {asked} asked for")
    ledger.set_budget(max(asked, done))
    ledger.set_time_limit(None if request.max_hours is None else request.max_hours * 3600)
    ledger.clear_stop()
    ledger.reap(trust_silence=False)
    counts = ledger.counts()
    left = max(0, counts.budget - counts.finished)
    watcher.note(_opening(stored, counts, created=created))
    if left == 0:
        return summarize(stored, ledger)
    crew = measured(crew, request, launcher, spec, splits, watcher.note)
    if crowded := crowding(crew, left=left):
        watcher.note(crowded)
    del splits
    supervisor = Supervisor(launcher, jobs(crew, request, stored.name, at_most=left))
    try:
        stop.heard = True
        _follow(stored, ledger, supervisor, watcher, stop)
    except KeyboardInterrupt as e:
        traceback.clear_frames(e.__traceback__)  # which may hold a transaction
        watcher.note("stopping: trials are put back ...")
        raise
    finally:
        stop.heard = False
        launcher.stop(wait_s=30)
        ledger.reap(trust_silence=False)
        objective.sweep(checkpoint_folder(request.artifacts, stored.name), stored.study)
    return summarize(stored, ledger)


def measured(
    crew: fleet.Fleet,
    request: Request,
    launcher: Launcher,
    spec: StudySpec,
    splits: data.Splits,
    note: Callable[[str], None],
) -> fleet.Fleet:
    """The fleet with as many workers a GPU as it bears, where nobody has said how many."""
    if request.workers_per_device is not None or request.workers or not crew.gpus:
        return crew
    device = pick_device(request.device)
    precision = pick_precision(request.precision, device)
    bears = probe.workers_per_device(
        spec,
        image_shape=splits.image_shape,
        images=len(splits.train),
        held_out=len(splits.validation),
        device=device,
        precision=precision,
        note=note,
    )
    return sized_fleet(replace(request, workers_per_device=bears), launcher)


def advise(request: Request, crew: fleet.Fleet, note: Callable[[str], None]) -> None:
    """Says what is allowed, but helps nobody."""
    if crew.gpus:
        return
    if request.workers_per_device != 1:
        note("--workers-per-device: no GPU is used, so that it changes nothing; see --workers")
    cpu = torch.device("cpu")
    slow = why_slow(pick_precision(request.precision, cpu), cpu)
    if slow and crew.nearby:
        note(slow)


def crowding(crew: fleet.Fleet, *, left: int) -> str:
    """What is to be said of more threads than this machine has cores; empty if there are not.

    Args:
        crew: Whose workers.
        left: Trials to run: there are no more workers than that.
    """
    workers, cores = min(crew.workers, left), fleet.cores()
    if crew.gpus or not crew.nearby or workers * crew.threads <= cores:
        return ""
    return (
        f"{counted(workers, 'worker')} of {counted(crew.threads, 'thread')} on "
        f"{counted(cores, 'core')}: more threads than cores make each worker slower"
    )


def warm_start(request: Request) -> study.Stored | None:
    """The study that a new one starts from, if any.

    Raises:
        NoStudyError: It is not there.
    """
    if not request.warm_start:
        return None
    url = storage.parse_url(request.storage)
    if not storage.exists(url):
        where = storage.masked(url)
        raise NoStudyError(f"study {request.warm_start!r} is not in {where}, which is not there")
    return study.load_study(storage.connect(url), request.warm_start)


def check_hours(hours: float | None) -> None:
    """Refuses a time limit that is none.

    Raises:
        UserError: It is not a number above 0.
    """
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise UserError(f"--max-hours {hours:g}: give a number of hours above 0, 0.5 for half one")


def load_images(spec: StudySpec, request: Request, progress: Progress) -> tuple[data.Splits, float]:
    """The images, and the PSNR of the mean training image on the validation split, in dB."""
    objective.check_artifacts(request.artifacts)
    splits = data.load(spec.data, data_dir=request.data_dir, seed=spec.seed, progress=progress)
    return splits, mean_image_psnr_db(splits.train, splits.validation)


def check_models(spec: StudySpec, splits: data.Splits) -> list[int]:
    """Builds every net of the space once; returns their trainable parameters."""
    everything = space.models(spec)
    sizes = [
        models.parameter_count(models.build(p.model, image_shape=splits.image_shape))
        for p in everything
    ]
    largest = max(space.batch_sizes(spec, everything))
    if largest > len(splits.train):
        raise SpecError(
            f"train.batch_size: {largest} exceeds the {len(splits.train)} training images"
        )
    return sizes


def _opening(stored: study.Stored, counts: Counts, *, created: bool) -> str:
    where = storage.masked(stored.storage.engine.url)
    finished = counts.finished
    left = max(0, counts.budget - finished)
    if created:
        return f"study {stored.name!r} created in {where}: {left} trials to run"
    if left == 0:
        return f"study {stored.name!r} in {where}: all {finished} trials are done; nothing to run"
    begun = counts.waiting + counts.running
    further = f", {begun} of them begun already" if begun else ""
    return f"study {stored.name!r} in {where}: {finished} trials are done, {left} to run{further}"


def _follow(
    stored: study.Stored, ledger: Ledger, supervisor: Supervisor, watcher: Watcher, stop: Stop
) -> None:
    """Watches the study until no worker is left, or raises KeyboardInterrupt on a wish to stop."""
    seen = {row.number for row in _ended(summarize(stored, ledger))}
    supervisor.start()
    alive = True
    while alive:
        alive = supervisor.poll()
        started = time.monotonic()
        now = summarize(stored, ledger)
        took_s = time.monotonic() - started
        for row in _ended(now):
            if row.number not in seen:
                seen.add(row.number)
                watcher.trial(row, best_db=_worth_a_mark(now))
        watcher.progress(now)
        nearby = supervisor.launcher.nearby
        if now.counts.finished >= now.counts.budget and not (nearby and now.counts.running):
            # Those left wait for a node, or hear within a second that all is done.
            deadline = time.monotonic() + LEAVE_S * nearby
            while supervisor.launcher.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            break
        rest_s = FOLLOW_S if now.counts.budget - now.counts.finished > 1 else END_S
        if alive and stop.wait(max(rest_s, took_s / LOOK_SHARE)):
            raise KeyboardInterrupt
    message = ledger.stopped()
    if message:
        raise StudyStoppedError(message)
    counts = ledger.counts()
    seconds_left = ledger.seconds_left()
    if seconds_left is not None and seconds_left <= 0:
        watcher.note(
            f"the time is up: {counts.finished} of {counts.budget} trials are done; the rest is "
            "kept for another run"
        )
    elif counts.finished < counts.budget:
        raise _workers_gone(supervisor)


def _worth_a_mark(summary: Summary) -> float | None:
    """The best PSNR so far, in dB, once it is better than the mean image's."""
    best = summary.best
    if best is None or best.psnr_db is None or best.psnr_db < summary.baseline_db + 0.05:
        return None
    return best.psnr_db


def _ended(summary: Summary) -> list[TrialRow]:
    return [r for r in summary.rows if r.state in ("complete", "pruned", "failed")]


def _workers_gone(supervisor: Supervisor) -> SearchaeError:
    """Why no worker is left although there is work."""
    if not supervisor.given_up:
        return SearchaeError("the workers left before the budget was spent; run it again")
    last = supervisor.given_up[-1]
    lines = last.job.log.read_text(errors="replace").splitlines()[-15:]
    tail = "\n".join(f"  {line}" for line in lines)
    kind = UserError if last.code == 2 else SearchaeError
    return kind(
        f"every worker died; the last one with exit code {last.code}. Its log, "
        f"{last.job.log}, ends:\n{tail}"
    )
