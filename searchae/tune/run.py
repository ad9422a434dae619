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

from searchae.config import ProgressCallback, StudySpec, batch_size_variants, model_variants
from searchae.data import Splits, describe_splits, keep_decoded, load_splits
from searchae.errors import NoStudyError, SearchaeError, SpecError, StudyStoppedError, UserError
from searchae.formatting import format_count
from searchae.launch import (
    Fleet,
    Launcher,
    LocalLauncher,
    Request,
    Supervisor,
    available_cores,
    resolve_study,
    sized_fleet,
    study_jobs,
)
from searchae.models import build_model, parameter_count
from searchae.storage import connect, database_exists, masked_url, parse_url
from searchae.study import (
    SPLITS,
    Coordinator,
    StoredStudy,
    Summary,
    TrialCounts,
    TrialRow,
    check_spec,
    find_study,
    load_study,
    open_study,
    summarize,
)
from searchae.training import (
    check_artifact_folder,
    check_wish,
    checkpoint_folder,
    mean_image_psnr_db,
    pick_device,
    pick_precision,
    remove_old_checkpoints,
    why_slow,
)
from searchae.tune import gpu_probe

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


class StopRequest(threading.Event):
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
    stop: StopRequest | None = None,
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
    launcher, stop = launcher or LocalLauncher(), stop or StopRequest()
    name, spec = resolve_study(request)
    if launcher.is_local:
        pick_device(request.device)
    pick_precision(request.precision, torch.device("cpu"))  # the name; workers pick for themselves
    check_wish()
    check_hours(request.max_hours)
    crew = sized_fleet(request, launcher)
    warn_unused_options(request, crew, watcher.note)
    source = warm_start_source(request)
    connection = connect(request.storage)
    if there := find_study(connection, name):
        check_spec(there, spec)  # before the images, which may take minutes
    splits, baseline_db = load_images(spec, request, watcher.note)
    check_models(spec, splits)
    stored, created = open_study(
        connection,
        name,
        spec=spec,
        data_hash=splits.hash,
        baseline_db=baseline_db,
        warm_start=source,
    )
    stored.study.set_user_attr(SPLITS, describe_splits(splits))
    if launcher.is_local:
        keep_decoded(splits, request.data_dir)
    ledger = Coordinator(stored)
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
    crew = measured_workers_per_device(crew, request, launcher, spec, splits, watcher.note)
    if crowded := crowding_warning(crew, left=left):
        watcher.note(crowded)
    del splits
    supervisor = Supervisor(launcher, study_jobs(crew, request, stored.name, at_most=left))
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
        remove_old_checkpoints(
            checkpoint_folder(request.artifacts, stored.name), _ended_numbers(stored)
        )
    return summarize(stored, ledger)


def measured_workers_per_device(
    crew: Fleet,
    request: Request,
    launcher: Launcher,
    spec: StudySpec,
    splits: Splits,
    note: Callable[[str], None],
) -> Fleet:
    """The fleet with as many workers a GPU as it bears, where nobody has said how many."""
    if request.workers_per_device is not None or request.workers or not crew.gpus:
        return crew
    device = pick_device(request.device)
    precision = pick_precision(request.precision, device)
    bears = gpu_probe.workers_per_device(
        spec,
        image_shape=splits.image_shape,
        images=len(splits.train),
        held_out=len(splits.validation),
        device=device,
        precision=precision,
        note=note,
    )
    return sized_fleet(replace(request, workers_per_device=bears), launcher)


def warn_unused_options(request: Request, crew: Fleet, note: Callable[[str], None]) -> None:
    """Says what is allowed, but helps nobody."""
    if crew.gpus:
        return
    if request.workers_per_device != 1:
        note("--workers-per-device: no GPU is used, so that it changes nothing; see --workers")
    cpu = torch.device("cpu")
    slow = why_slow(pick_precision(request.precision, cpu), cpu)
    if slow and crew.is_local:
        note(slow)


def crowding_warning(crew: Fleet, *, left: int) -> str:
    """What is to be said of more threads than this machine has cores; empty if there are not.

    Args:
        crew: Whose workers.
        left: Trials to run: there are no more workers than that.
    """
    workers, cores = min(crew.workers, left), available_cores()
    if crew.gpus or not crew.is_local or workers * crew.threads <= cores:
        return ""
    return (
        f"{format_count(workers, 'worker')} of {format_count(crew.threads, 'thread')} on "
        f"{format_count(cores, 'core')}: more threads than cores make each worker slower"
    )


def warm_start_source(request: Request) -> StoredStudy | None:
    """The study that a new one starts from, if any.

    Raises:
        NoStudyError: It is not there.
    """
    if not request.warm_start:
        return None
    url = parse_url(request.storage)
    if not database_exists(url):
        where = masked_url(url)
        raise NoStudyError(f"study {request.warm_start!r} is not in {where}, which is not there")
    return load_study(connect(url), request.warm_start)


def check_hours(hours: float | None) -> None:
    """Refuses a time limit that is none.

    Raises:
        UserError: It is not a number above 0.
    """
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise UserError(f"--max-hours {hours:g}: give a number of hours above 0, 0.5 for half one")


def load_images(
    spec: StudySpec, request: Request, progress: ProgressCallback
) -> tuple[Splits, float]:
    """The images, and the PSNR of the mean training image on the validation split, in dB."""
    check_artifact_folder(request.artifacts)
    splits = load_splits(spec.data, data_dir=request.data_dir, seed=spec.seed, progress=progress)
    return splits, mean_image_psnr_db(splits.train, splits.validation)


def check_models(spec: StudySpec, splits: Splits) -> list[int]:
    """Builds every net of the space once; returns their trainable parameters."""
    everything = model_variants(spec)
    sizes = [
        parameter_count(build_model(p.model, image_shape=splits.image_shape)) for p in everything
    ]
    largest = max(batch_size_variants(spec, everything))
    if largest > len(splits.train):
        raise SpecError(
            f"train.batch_size: {largest} exceeds the {len(splits.train)} training images"
        )
    return sizes


def _opening(stored: StoredStudy, counts: TrialCounts, *, created: bool) -> str:
    where = masked_url(stored.storage.engine.url)
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
    stored: StoredStudy,
    ledger: Coordinator,
    supervisor: Supervisor,
    watcher: Watcher,
    stop: StopRequest,
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
        is_local = supervisor.launcher.is_local
        if now.counts.finished >= now.counts.budget and not (is_local and now.counts.running):
            # Those left wait for a node, or hear within a second that all is done.
            deadline = time.monotonic() + LEAVE_S * is_local
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


def _ended_numbers(stored: StoredStudy) -> set[int]:
    trials = stored.study.get_trials(deepcopy=False)
    return {t.number for t in trials if t.state.is_finished()}
