"""Runs a search: checks, opens the study, starts the workers, follows them, and sums up."""

from __future__ import annotations

from functools import partial

from searchae.data import describe_splits
from searchae.files import RemotePath
from searchae.formatting import format_count
from searchae.launch import (
    Launcher,
    LocalLauncher,
    Request,
    Supervisor,
    provide_images,
    study_jobs,
)
from searchae.search import note_on_objectives
from searchae.storage import masked_url
from searchae.study import (
    FOLDER,
    SPLITS,
    Coordinator,
    StoredStudy,
    Summary,
    TrialCounts,
    claimed_folder,
    describe_import,
    has_comparable_results,
    keep_factory,
    open_study,
    release_folder,
    summarize,
)
from searchae.tuning.duration import estimate_duration
from searchae.tuning.fleet_run import running_fleet
from searchae.tuning.gpu_sharing import crowding_warning, measured_fleet
from searchae.tuning.limits import set_limits
from searchae.tuning.monitor import StopRequest, Watcher, follow_workers
from searchae.tuning.preflight import Prepared, preflight


def tune(
    request: Request,
    watcher: Watcher,
    launcher: Launcher | None = None,
    stop: StopRequest | None = None,
) -> Summary:
    """Runs a search until its budget is spent, or continues one that was interrupted.

    Args:
        request: What to search.
        watcher: Shows the progress.
        launcher: Where the workers run; this machine if unset.
        stop: Setting it ends the search like an interrupt, while it ``is_polled``.

    Raises:
        UserError: Something in the request is wrong; no worker was started.
        StudyStoppedError: A trial met a bug.
        SearchaeError: The workers died.
        KeyboardInterrupt: The search was interrupted; every running trial is kept, to be continued.
    """
    launcher, stop = launcher or LocalLauncher(), stop or StopRequest()
    prepared = preflight(request, launcher, watcher.note)
    stored, created = _open(prepared, request, watcher)
    provide_images(launcher, stored, prepared.splits, request.data_dir, watcher.note)
    coordinator = Coordinator(stored)
    coordinator.clear_stop()
    coordinator.reap(trust_silence=False)
    if invalid := coordinator.mark_invalid():
        watcher.note(
            f"{format_count(invalid, 'trial')} of another program left alone: outside the space "
            "of this study (marked invalid)"
        )
    set_limits(coordinator, request, watcher.note)
    counts = coordinator.counts()
    watcher.note(_opening_line(stored, counts, created=created))
    source = prepared.warm_start
    if (
        created
        and source
        and has_comparable_results(source, stored.spec, data_hash=stored.data_hash)
    ):
        watcher.note(describe_import(stored.study, source))
    if text := note_on_objectives(stored.spec):
        watcher.note(text)
    left = max(0, counts.budget - counts.finished)
    if left == 0:
        return summarize(stored, coordinator)
    fleet = measured_fleet(prepared, request, launcher, watcher.note)
    if warning := crowding_warning(fleet, left=left):
        watcher.note(warning)
    if launcher.is_local and prepared.device.type == "cpu":  # a GPU's memory is the workers'
        time = estimate_duration(prepared, stored.spec, fleet, left=left)
        if time is not None:
            watcher.note(f"expected: {time.text}, by a training step measured now")
    del prepared  # the workers need the memory of its images
    supervisor = Supervisor(
        launcher, study_jobs(fleet, request, stored.name, at_most=left, folder=stored.folder)
    )
    with running_fleet(launcher, coordinator, stop, watcher, request.artifacts) as ended:
        follow_workers(stored, coordinator, supervisor, watcher, ended, stop)
    return summarize(stored, coordinator)


def _open(prepared: Prepared, request: Request, watcher: Watcher) -> tuple[StoredStudy, bool]:
    """Opens the study or creates it, with a folder of its own; returns it and whether it is new."""
    assert prepared.storage is not None  # only a dry run has none
    open_here = partial(
        open_study,
        prepared.storage,
        prepared.name,
        spec=prepared.spec,
        data_hash=prepared.splits.hash,
        baseline_db=prepared.baseline_db,
        warm_start=prepared.warm_start,
    )
    if prepared.existing:
        stored, created = open_here()
    else:
        with claimed_folder(request.artifacts, prepared.name) as folder:
            stored, created = open_here(attributes={FOLDER: folder})
        if not created:  # another process has just done so, with another folder
            release_folder(request.artifacts, folder)
    in_store = isinstance(request.artifacts, RemotePath)  # where each folder has a name of its own
    if created and stored.folder != stored.name and not in_store:
        watcher.note(
            f"{request.artifacts / stored.name} is another study's: the files of this one go to "
            f"{request.artifacts / stored.folder}"
        )
    stored.study.set_user_attr(SPLITS, describe_splits(prepared.splits))
    keep_factory(stored, request.factory)
    return stored, created


def _opening_line(stored: StoredStudy, counts: TrialCounts, *, created: bool) -> str:
    where = masked_url(stored.storage.engine.url)
    finished = counts.finished
    left = max(0, counts.budget - finished)
    if created:
        return f"study {stored.name!r} created in {where}: {format_count(left, 'trial')} to run"
    if left == 0:
        return f"study {stored.name!r} in {where}: all {finished} trials done; nothing to run"
    begun = counts.waiting + counts.paused + counts.running
    further = f", {begun} of them begun already" if begun else ""
    done = format_count(finished, "trial")
    return f"study {stored.name!r} in {where}: {done} done, {left} to run{further}"
