"""The loop of one worker: claims trials and runs them until the budget is spent."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from searchae.errors import ArtifactsError, DeviceError, StorageError, StudyStoppedError
from searchae.search import preload_pruners
from searchae.storage import preload_storage
from searchae.study import Coordinator, NoTrial, StoredStudy
from searchae.worker.gpu_memory import CrowdedError
from searchae.worker.hardware import Machine
from searchae.worker.heartbeat import Heartbeat
from searchae.worker.objective import TrainFunction, run_trial
from searchae.worker.options import WorkerOptions, WorkerResults
from searchae.worker.trial_runner import TrialRunner

log = logging.getLogger(__name__)

QUARANTINE_AFTER = 3
"""A worker leaves for good after this many failures of its disk or device in a row."""
FAILURE_WAIT_S = 2.0
"""Seconds that a worker waits after the first such failure; twice as long after the second."""
POLL_S, LOCAL_POLL_S = 1.0, 0.25
"""Seconds between two attempts to claim a trial while others work on the rest of the budget. The
second holds for workers that ``tune`` started on its own machine: they are few, and it waits for
them to end."""
SWITCH_INTERVAL_S = 0.0005
"""The interpreter's thread switch interval while a worker runs, a tenth of the default: the thread
that writes checkpoints gives way sooner to the one that trains and reports."""


def preload() -> None:
    """Imports what a worker's first trial needs beyond this package, so that it starts sooner."""
    preload_storage()
    preload_pruners()


@dataclass
class Worker:
    """Runs the trials of one study in this process until there is nothing left to claim.

    Args:
        stored: The study.
        options: What the worker was started with.
        stop: To be set by a signal handler: the trial is put back, and ``run`` returns.
        results: Counts the trials by how they ended, also while ``run`` is running.
        train: Trains one trial; replaced in load tests.
    """

    stored: StoredStudy
    options: WorkerOptions
    stop: threading.Event = field(default_factory=threading.Event)
    results: WorkerResults = field(default_factory=WorkerResults)
    train: TrainFunction = run_trial

    def run(self) -> WorkerResults:
        """Works until the budget is spent or ``stop`` is set.

        Raises:
            DataError: The images here are not those that the study was created with.
            DeviceError: There is no such device, or it failed three times in a row.
            ArtifactsError: Checkpoints could not be written three times in a row.
            StudyStoppedError: A trial met a bug, here or on another worker.
            StorageError: The study or its database is gone.
        """
        machine = Machine.prepare(self.stored, self.options)
        coordinator = Coordinator(self.stored)
        heartbeat = Heartbeat(coordinator, self.stop)
        runner = TrialRunner(
            coordinator, heartbeat, self.options, machine, self.train, self.results
        )
        coordinator.join(machine.label)
        counts = coordinator.counts()
        log.info(
            "joined study %r: %d of %d trials done",
            *(self.stored.name, counts.finished, counts.budget),
        )
        switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            with heartbeat.beating():
                self._claim_and_run(coordinator, heartbeat, runner)
        finally:
            sys.setswitchinterval(switch_interval_s)
            with suppress(StorageError):  # it is not listed for longer than the grace period
                coordinator.leave()
            runner.close()
        return self.results

    def _claim_and_run(
        self, coordinator: Coordinator, heartbeat: Heartbeat, runner: TrialRunner
    ) -> None:
        failures, crowded = 0, ""
        while (trial_id := self._claim(coordinator, heartbeat, runner)) is not None:
            try:
                with coordinator.existing():
                    runner.run(trial_id)
            except CrowdedError as e:
                # Only the text is kept: the error's traceback holds the trial's tensors.
                crowded = str(e)
            except (ArtifactsError, DeviceError) as e:
                failures += 1
                if failures >= QUARANTINE_AFTER:
                    coordinator.quarantine(str(e))
                    raise
                log.warning("the trial is left for another worker: %s", e)
                self.stop.wait(failures * FAILURE_WAIT_S)  # so that another worker takes the trial
            else:
                failures = 0
            if crowded and not self._wait_for_memory(runner, crowded):
                return
            crowded = ""

    def _claim(
        self, coordinator: Coordinator, heartbeat: Heartbeat, runner: TrialRunner
    ) -> int | None:
        """Claims a trial, waiting for one if need be; None if there is nothing left to do."""
        is_told = False
        while not self.stop.is_set():
            steady = heartbeat.steady
            claimed = coordinator.claim(trust_silence=steady, promotable=runner.promotable())
            if claimed is NoTrial.SETTLE:  # what may go on is looked up now that nothing runs
                claimed = coordinator.claim(
                    trust_silence=steady, promotable=runner.promotable(settling=True), settle=True
                )
            if claimed is NoTrial.WAIT:
                if not is_told:
                    log.info("waiting: other workers train the rest, or more is being decided on")
                    is_told = True
                self.stop.wait(LOCAL_POLL_S if self.options.is_local else POLL_S)
            elif claimed is NoTrial.ASKED:
                log.info("leaving: searchae stop asked the workers to; searchae tune goes on")
                return None
            elif claimed is NoTrial.STOPPED:
                message = coordinator.stopped()
                if message:  # else the stop has been cleared since
                    raise StudyStoppedError(*message.splitlines())
            else:
                return None if isinstance(claimed, NoTrial) else claimed
        return None

    def _wait_for_memory(self, runner: TrialRunner, why: str) -> bool:
        """Waits for other workers' trials to end; returns False to leave the GPU to them."""
        wait_s = runner.gpu.next_wait_s()
        if wait_s is None:
            log.warning("%s: leaving the GPU to the others", why)
            return False
        log.warning("%s: trying again in %.0f s", why, wait_s)
        runner.gpu.release()
        self.stop.wait(wait_s)
        return True
