"""One worker: claim a trial, run it, tell how it ended, until the budget is spent."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, Trial, TrialState
from torch import Tensor

from searchae.config import TrialParams, initial_params, sample_params
from searchae.data import find_decoded, load_splits, require_same_data
from searchae.errors import (
    ArtifactsError,
    DeadError,
    DeviceError,
    DivergedError,
    LeaseLostError,
    OutOfMemoryError,
    StorageError,
    StudyStoppedError,
)
from searchae.search import FinishedTrialCursor, TrialHistory, make_pruner, make_sampler
from searchae.study import (
    ERROR,
    HISTORY,
    IMPORTED,
    OUTCOME,
    RUNTIME,
    WARM_START,
    Coordinator,
    NoTrial,
    StoredStudy,
    best_trials,
    compact_history,
    gallery_folder,
    keep_best_pictures,
    package_versions,
    save_picture,
)
from searchae.training import (
    CheckpointError,
    Checkpoints,
    EpochResult,
    Interrupted,
    Precision,
    PrunedError,
    Trainer,
    checkpoint_folder,
    device_errors,
    draw_reconstructions,
    held_by_others,
    kernels_of,
    pick_device,
    pick_precision,
)
from searchae.worker import objective
from searchae.worker.heartbeat import Heartbeat

log = logging.getLogger(__name__)

DIVERGED, DEAD, OUT_OF_MEMORY, BUG = "diverged", "dead", "out-of-memory", "bug"
QUARANTINE_AFTER = 3
"""A worker leaves after so many failures in a row of its disk or device."""
REST_S = 2.0
"""Seconds that a worker rests after the first such failure; twice that after the second."""
POLL_S, POLL_NEARBY_S = 1.0, 0.25
"""Seconds between two looks at a budget whose rest others are working on; of workers on the
machine of their `tune`, which are few, and which it waits for in the end."""
TURN_S = 0.0005
"""After so long a thread that writes a checkpoint leaves Python to the trial's; Python's own is ten
times that, and a report waits for several."""
CROWDED_BYTES = 256 << 20
"""A GPU of which others hold more has no memory because of them."""
CROWDED_S = 600.0
"""So long in all a worker waits for the others' memory before it takes a trial for too large."""


class _CrowdedError(Exception):
    """No memory, because others on the GPU have it; the trial is put back."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told by whoever starts it; the rest it reads from the study.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads to train with.
        precision: ``auto``, ``fp32`` or ``bf16``, for trials that start here.
        data_dir: Where data sets lie.
        artifacts: The folder that all workers of all studies share.
        parent: Leave when the process is no longer this one's child; 0 to stay.
        shares: Of workers that share a GPU, where one has no memory while others hold some:
            ``leave`` for good, or ``stay`` and try again later; empty where none shares it.
    """

    device: str = "auto"
    threads: int = 1
    precision: str = "auto"
    data_dir: Path = Path("data")
    artifacts: Path = Path("artifacts")
    parent: int = 0
    shares: str = ""


@dataclass
class WorkerResults:
    """What one worker did, trials by how they ended."""

    complete: int = 0
    pruned: int = 0
    diverged: int = 0
    out_of_memory: int = 0
    put_back: int = 0
    taken_away: int = 0


@dataclass
class Worker:
    """Runs trials of one study in this process until nothing is left to claim.

    Args:
        stored: The study.
        options: What this worker was started with.
        stop: Set it from a signal handler: the trial is put back, and ``run`` returns.
        train: Trains one trial (a port for load tests).
    """

    stored: StoredStudy
    options: WorkerOptions
    stop: threading.Event = field(default_factory=threading.Event)
    counts: WorkerResults = field(default_factory=WorkerResults)
    train: Callable[..., float] = objective.run_trial

    def run(self) -> WorkerResults:
        """Works until the budget is spent or ``stop`` is set.

        Raises:
            DataError: The images here are not those that the study was made with.
            DeviceError: There is no such device, or it failed three times in a row.
            ArtifactsError: Checkpoints could not be written three times in a row.
            StudyStoppedError: A trial met a bug, here or elsewhere.
        """
        self._prepare()
        self._ledger.join(self._device_label())
        counts = self._ledger.counts()
        log.info(
            "joined study %r: %d of %d trials are done",
            *(self.stored.name, counts.finished, counts.budget),
        )
        turn_s = sys.getswitchinterval()
        sys.setswitchinterval(TURN_S)
        try:
            with self._pulse.beating():
                self._work()
        finally:
            sys.setswitchinterval(turn_s)
            self._ledger.leave()
            self._writer.shutdown()
        return self.counts

    def _prepare(self) -> None:
        spec = self.stored.spec
        torch.set_num_threads(self.options.threads)
        self._device = pick_device(self.options.device)
        self._precision = pick_precision(self.options.precision, self._device)
        kernels_of(self._device, self._precision)  # built now, and a wrong wish is said now
        self._images = self._load()
        self._ledger = Coordinator(self.stored)
        self._pulse = Heartbeat(self._ledger, self.stop, parent=self.options.parent)
        self._study = self.stored.study
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._failures = 0
        self._waited_s, self._leaving = 0.0, False
        self._study.pruner = make_pruner(spec, self._study)
        self._memory = TrialHistory()
        self._progress, self._psnrs_db = FinishedTrialCursor(), dict[int, float]()
        self._imported = sum(self._study.user_attrs.get(IMPORTED, {}).values())

    def _load(self) -> tuple[Tensor, Tensor]:
        """Training and validation images, mapped where the search has left them."""
        spec, data_dir = self.stored.spec, self.options.data_dir
        found = find_decoded(self.stored.data_hash, data_dir)
        if found is not None:
            return found
        splits = load_splits(spec.data, data_dir=data_dir, seed=spec.seed)
        require_same_data(splits, self.stored.data_hash)
        return splits.train, splits.validation

    def _work(self) -> None:
        while not (self.stop.is_set() or self._leaving):
            message = self._ledger.stopped()
            if message:
                raise StudyStoppedError(message)
            claimed = self._ledger.claim(trust_silence=self._pulse.steady)
            if claimed is NoTrial.WAIT:
                self.stop.wait(POLL_NEARBY_S if self.options.parent else POLL_S)
            elif isinstance(claimed, NoTrial):
                return
            else:
                self._run_or_rest(claimed)

    def _run_or_rest(self, trial_id: int) -> None:
        """Runs a trial; leaves for good where it is this machine that fails, not the trials."""
        try:
            self._run_trial(trial_id)
        except _CrowdedError as e:
            self._make_room(e)
        except (ArtifactsError, DeviceError) as e:
            self._failures += 1
            if self._failures >= QUARANTINE_AFTER:
                self._ledger.quarantine(str(e))
                raise
            log.warning("put back: %s", e)
            self.stop.wait(self._failures * REST_S)  # so that others take it
        else:
            self._failures = 0

    def _make_room(self, error: _CrowdedError) -> None:
        """Ends this worker, or waits for the others' trials to end."""
        if self.options.shares == "leave":
            log.warning("%s: leaving the GPU to the others", error)
            self._leaving = True
            return
        rest_s = min(60.0, max(2 * REST_S, self._waited_s))
        log.warning("%s: trying again in %.0f s", error, rest_s)
        self._waited_s += rest_s
        self.stop.wait(rest_s)

    def _run_trial(self, trial_id: int) -> None:
        with (
            self.stored.storage.exclusive_trial(trial_id) as frozen,
            self._pulse.holding(trial_id, frozen.number),
        ):
            try:
                self._train(trial_id, frozen)
            except Interrupted:
                self._ledger.release(trial_id)
                self.counts.put_back += 1
                log.info("trial %d: put back", frozen.number)
            except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
                self.counts.taken_away += 1
                log.info("trial %d: taken over by another worker", frozen.number)
            else:
                # After what is still being written.
                self._writer.submit(self._clear, frozen.number)
                ended = self.stored.storage.get_trial(trial_id)
                value = "-" if not ended.values else f"{ended.values[0]:.2f} dB"
                log.info("trial %d: %s, %s", ended.number, ended.state.name.lower(), value)

    def _ask(self, trial_id: int, number: int) -> Trial:
        """Optuna's handle on a claimed trial; samples its joint parameters."""
        self._study.sampler = make_sampler(self.stored.spec, number=number, history=self._memory)
        self._study._thread_local.cached_all_trials = None  # what the last trial was sampled from
        imported = self._imported
        first = initial_params(self.stored.spec, number - imported, warm=imported > 0)
        if first:
            self.stored.storage.set_trial_system_attr(trial_id, "fixed_params", first)
        return Trial(self._study, trial_id)

    def _train(self, trial_id: int, frozen: FrozenTrial) -> None:
        spec = self.stored.spec
        # A trial that goes on here has the precision that it was begun with.
        begun = frozen.user_attrs.get(RUNTIME, {}).get("precision")
        precision: Precision = begun or self._precision
        ended: list[Trainer] = []

        def on_end(trainer: Trainer) -> None:
            trial.set_user_attr(HISTORY, compact_history(trainer.history))
            ended.append(trainer)

        def on_epoch(result: EpochResult) -> None:
            self._pulse.epoch = result.epoch
            if self._pulse.lost.is_set():
                raise LeaseLostError

        try:
            with self.stored.storage.batched_writes():
                trial = self._ask(trial_id, frozen.number)
                params = sample_params(spec, trial)
                trial.set_user_attr(RUNTIME, self._runtime(precision))
            psnr_db = self.train(
                trial,
                params,
                images=self._images,
                seed=spec.seed,
                device=self._device,
                precision=precision,
                checkpoints=self._checkpoints(frozen.number),
                reported=frozen.intermediate_values,
                on_epoch=on_epoch,
                leave=lambda: self.stop.is_set() or self._pulse.time_up,
                stop=lambda: self.stop.is_set() or self._pulse.lost.is_set(),
                on_end=on_end,
                thread=self._writer,
            )
        except PrunedError:
            self._tell(trial, TrialState.PRUNED)
            self.counts.pruned += 1
        except DivergedError as e:
            # Of a net that died: as good as one that diverged.
            self._tell_bad(trial, DEAD if isinstance(e, DeadError) else DIVERGED, e)
            self.counts.diverged += 1
        except OutOfMemoryError as e:
            self._no_memory(trial, e)
        except Interrupted:
            if self._pulse.lost.is_set():
                raise LeaseLostError from None
            raise
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except DeviceError:
            self._ledger.release(trial_id)
            raise
        except (OSError, CheckpointError) as e:
            # This machine's disk, not the trial: others may do better.
            if self._pulse.lost.is_set() or not self._ledger.holds(trial_id):
                raise LeaseLostError from e  # its new owner cleared the checkpoints away
            self._ledger.release(trial_id)
            raise ArtifactsError(f"--artifacts {self.options.artifacts}: {e}") from e
        except StorageError:
            raise
        except Exception as e:
            self._stop_study(trial_id, frozen.number, e)
            raise StudyStoppedError(self._ledger.stopped()) from e
        else:
            self._tell(trial, TrialState.COMPLETE, psnr_db)
            self.counts.complete += 1
            self._draw(frozen.number, params, ended)

    def _no_memory(self, trial: Trial, error: OutOfMemoryError) -> None:
        """Puts back a trial for which others left no memory; one that had it all is too large."""
        waits = self.options.shares and self._waited_s < CROWDED_S
        if waits and held_by_others(self._device) > CROWDED_BYTES:
            self._ledger.release(trial._trial_id)
            self.counts.put_back += 1
            raise _CrowdedError(f"trial {trial.number} put back: {error}") from error
        self._tell_bad(trial, OUT_OF_MEMORY, error)
        self.counts.out_of_memory += 1

    def _draw(self, number: int, params: TrialParams, ended: Sequence[Trainer]) -> None:
        """Keeps a picture of the trial if it is among the study's best; it may do without."""
        folder = gallery_folder(self.options.artifacts, self.stored.name)
        psnrs_db = self._results()
        best = best_trials(psnrs_db)
        try:
            for trainer in ended if number in best else ():
                with device_errors("drawing reconstructions"):
                    picture = draw_reconstructions(
                        trainer.model,
                        self._images[1],
                        noise_std=params.train.noise_std,
                        seed=self.stored.spec.seed,
                        title=f"trial {number}: {best[number]:.2f} dB on the validation split",
                    )
                save_picture(folder, number, picture, psnr_db=best[number])
            keep_best_pictures(folder, psnrs_db)
        except (OSError, DeviceError, OutOfMemoryError) as e:
            log.warning("trial %d: no picture: %s", number, e)

    def _results(self) -> dict[int, float]:
        """Number -> PSNR in dB of the study's own trials that have a result."""
        trials = self._study.get_trials(deepcopy=False)
        ended, _ = self._progress.read(trials)
        for trial in (trials[number] for number in ended):
            is_complete = trial.state == TrialState.COMPLETE and trial.values
            if is_complete and not {OUTCOME, WARM_START} & trial.user_attrs.keys():
                self._psnrs_db[trial.number] = trial.values[0]
        return self._psnrs_db

    def _tell(self, trial: Trial, state: TrialState, value: float | None = None) -> None:
        """Ends a trial, or finds that somebody else has; one that is pruned has its last report."""
        if state == TrialState.PRUNED:
            frozen = trial._cached_frozen_trial
            value = frozen.intermediate_values.get(frozen.last_step or 0)
        if value is not None and math.isnan(value):
            value = None
        if not self._ledger.finish(trial._trial_id, state, value):
            raise LeaseLostError

    def _tell_bad(self, trial: Trial, outcome: str, error: Exception) -> None:
        """Ends a trial that has no result of its own as one that learned nothing.

        Its value is the PSNR of the mean training image: every sampler learns from it that the
        place is bad, and no plot is stretched by an absurd number.
        """
        log.warning("trial %d: %s: %s", trial.number, outcome, error)
        trial.set_user_attr(OUTCOME, outcome)
        trial.set_user_attr(ERROR, str(error))
        self._tell(trial, TrialState.COMPLETE, self.stored.baseline_db)

    def _stop_study(self, trial_id: int, number: int, error: Exception) -> None:
        """Ends the whole study: a bug would only repeat itself."""
        text = "".join(traceback.format_exception(error))
        storage = self.stored.storage
        storage.set_trial_user_attr(trial_id, OUTCOME, BUG)
        storage.set_trial_user_attr(trial_id, ERROR, text)
        self._ledger.stop(f"trial {number} met a bug:\n{text}")
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self._ledger.forget(trial_id)

    def _device_label(self) -> str:
        """The device for people: which of the machine's GPUs ``cuda`` is."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self._device.type == "cuda" and self._device.index is None and visible:
            return f"cuda:{visible}"
        return str(self._device)

    def _runtime(self, precision: Precision) -> dict[str, object]:
        """What besides spec and seed a result depends on, to the bit."""
        identity = self._ledger.identity
        return {
            "worker": identity.worker,
            "host": identity.host,
            "device": str(self._device),
            "precision": precision,
            "kernels": kernels_of(self._device, precision),
            "threads": self.options.threads,
            "cpu": torch.backends.cpu.get_cpu_capability(),
            **package_versions(),
        }

    def _clear(self, number: int) -> None:
        """Removes the checkpoints of a trial that has ended; those left are swept by ``tune``."""
        try:
            self._checkpoints(number).clear()
        except OSError as e:
            log.warning("trial %d: its checkpoints are left: %s", number, e)

    def _checkpoints(self, number: int) -> Checkpoints:
        folder = checkpoint_folder(self.options.artifacts, self.stored.name)
        return Checkpoints(folder, number)
