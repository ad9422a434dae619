"""A worker in this process, for each way a trial can end."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from searchae import data
from searchae.config.loader import load_study_file
from searchae.data import decoded_cache
from searchae.errors import (
    DeadError,
    DeviceError,
    DivergedError,
    OutOfMemoryError,
    StudyStoppedError,
)
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, open_study
from searchae.training.epoch import EpochResult
from searchae.worker import gpu_memory
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")

BASELINE_DB = 11.5


@pytest.fixture
def study(folder: Path) -> Callable[..., StoredStudy]:
    def make(name: str = "tiny", **changes: Any) -> StoredStudy:
        keys = {"search.pruner": "none", **{k.replace("__", "."): v for k, v in changes.items()}}
        spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
        splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
        storage = connect(f"sqlite:///{folder / name}.db")
        return open_study(storage, name, spec=spec, data_hash=splits.hash, baseline_db=BASELINE_DB)[
            0
        ]

    return make


def worker(stored: StoredStudy, folder: Path, *, shares: str = "", **more: Any) -> Worker:
    options = WorkerOptions(
        device="cpu",
        data_dir=folder / "data",
        artifacts=folder / f"artifacts-{stored.name}",
        shares=shares,
    )
    return Worker(stored, options, **more)


def trials(stored: StoredStudy) -> list[FrozenTrial]:
    return stored.study.get_trials(deepcopy=False)


def failing_once(error: Exception) -> Callable[..., float]:
    """Returns a training that raises an error the first time it is called."""
    met: list[Any] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        if not met:
            met.append(error)
            raise error
        return run_trial(job, hooks)

    return train


def test_a_bug_stops_the_study_for_every_worker_and_shows_its_traceback(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study()
    with pytest.raises(StudyStoppedError, match="ZeroDivisionError: one over none"):
        worker(stored, folder, train=failing_once(ZeroDivisionError("one over none"))).run()
    assert [t.state.name for t in trials(stored)] == ["FAIL"]
    assert "raise error" in trials(stored)[0].user_attrs["searchae:error"]
    with pytest.raises(StudyStoppedError, match="one over none"):
        worker(stored, folder).run()
    assert len(trials(stored)) == 1, "no worker claims another trial"
    Coordinator(stored).clear_stop()
    assert worker(stored, folder).run().complete == 6


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DivergedError("the loss is nan"), "diverged"),
        (DeadError("no gradient passes"), "dead"),
        (OutOfMemoryError("96 GiB wanted"), "out-of-memory"),
    ],
)
def test_a_trial_without_a_result_is_a_bad_one_that_the_sampler_learns_from(
    study: Callable[..., StoredStudy], folder: Path, error: Exception, outcome: str
) -> None:
    stored = study()
    counts = worker(stored, folder, train=failing_once(error)).run()
    first, *rest = trials(stored)
    assert (first.state.name, first.value) == ("COMPLETE", -math.inf)
    assert first.user_attrs["searchae:outcome"] == outcome
    assert str(error) in first.user_attrs["searchae:error"]
    assert len(rest) == 5, "it counts towards the budget"
    assert counts.diverged + counts.out_of_memory == 1


def test_without_memory_beside_others_a_worker_leaves_or_waits_for_them(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, full = study(), OutOfMemoryError("2 GiB wanted")
    monkeypatch.setattr(gpu_memory, "held_by_others", lambda _device: 2**30)
    monkeypatch.setattr(gpu_memory, "FIRST_WAIT_S", 0.01)
    leaving = worker(stored, folder, shares="leave", train=failing_once(full)).run()
    assert (leaving.complete, leaving.put_back, leaving.out_of_memory) == (0, 1, 0)
    assert [t.state.name for t in trials(stored)] == ["WAITING"]
    staying = worker(stored, folder, shares="stay", train=failing_once(full)).run()
    assert (staying.complete, staying.put_back, staying.out_of_memory) == (6, 1, 0)
    assert [t.state.name for t in trials(stored)] == ["COMPLETE"] * 6
    assert all("searchae:outcome" not in t.user_attrs for t in trials(stored))


def test_a_worker_that_waits_for_memory_holds_none_of_its_trial_s(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "held_by_others", lambda _device: 2**30)
    monkeypatch.setattr(gpu_memory, "FIRST_WAIT_S", 0.01)
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        if held:
            return run_trial(job, hooks)
        tensor = torch.zeros(9)  # in a frame of the error's traceback
        held.append(weakref.ref(tensor))
        raise OutOfMemoryError("2 GiB wanted")

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            left.append(sum(ref() is not None for ref in held))
            return super().wait(timeout)

    worker(study(), folder, shares="stay", train=train, stop=Stop()).run()
    assert left[:1] == [0]


@pytest.mark.parametrize(
    ("shares", "others", "longest_s"),
    [("", 2**30, 1e9), ("stay", 2**20, 1e9), ("stay", 2**30, 0.0)],
)
def test_a_trial_that_had_the_memory_or_all_the_time_is_too_large(
    shares: str,
    others: int,
    longest_s: float,
    study: Callable[..., StoredStudy],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_memory, "held_by_others", lambda _device: others)
    monkeypatch.setattr(gpu_memory, "LONGEST_WAIT_S", longest_s)
    train = failing_once(OutOfMemoryError("96 GiB wanted"))
    counts = worker(study(), folder, shares=shares, train=train).run()
    assert (counts.out_of_memory, counts.put_back) == (1, 0)


def test_an_exploding_training_is_found_to_diverge(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study(
        train__learning_rate=1e6,
        train__regularizer="none",
        train__optimizer="sgd",
        model__activation="relu",
        model__output="none",
        search__trials=1,
    )
    worker(stored, folder).run()
    assert trials(stored)[0].user_attrs["searchae:outcome"] == "diverged"
    assert trials(stored)[0].value == -math.inf


class KilledError(BaseException):
    """Simulates SIGKILL: no part of the worker handles it."""


def killed_after(epochs: int) -> Callable[..., float]:
    """Returns a training that is killed once, after a number of epochs."""
    killed: list[Any] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: EpochResult) -> None:
            hooks.on_result(result)
            if result.epoch == epochs and not killed:
                killed.append(True)
                raise KilledError

        return run_trial(job, replace(hooks, on_result=on_epoch))

    return train


def test_a_trial_cut_off_after_an_epoch_goes_on_with_the_next_to_the_same_bit(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    undisturbed = study("undisturbed", search__trials=3)
    worker(undisturbed, folder).run()
    stored = study("cut", search__trials=3)
    with pytest.raises(KilledError):
        worker(stored, folder, train=killed_after(2)).run()
    (cut,) = trials(stored)
    assert sorted(cut.intermediate_values) == [1, 2]
    first_epochs = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: EpochResult) -> None:
            first_epochs.append((job.checkpoints.number, result.epoch))
            hooks.on_result(result)

        return run_trial(job, replace(hooks, on_result=on_epoch))

    # A dead process would be detected; this one is still alive.
    with stored.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE searchae_leases SET worker = NULL")
    heir = worker(stored, folder, train=train)
    heir.run()
    assert first_epochs[0] == (0, 3), "continues with the next epoch"
    assert [t.value for t in trials(stored)] == [t.value for t in trials(undisturbed)]
    assert [t.intermediate_values for t in trials(stored)] == [
        t.intermediate_values for t in trials(undisturbed)
    ]
    left = list((folder / "artifacts-cut").rglob("*.pt"))
    assert left == [], "checkpoints of ended trials are removed"


def test_a_stop_puts_the_trial_back(study: Callable[..., StoredStudy], folder: Path) -> None:
    stored, stop = study(), threading.Event()

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: EpochResult) -> None:
            stop.set()
            hooks.on_result(result)

        return run_trial(job, replace(hooks, on_result=on_epoch))

    counts = worker(stored, folder, stop=stop, train=train).run()
    assert counts.put_back == 1
    (trial,) = trials(stored)
    assert trial.state.name == "WAITING"
    assert sorted(trial.intermediate_values) == [1]


def test_a_worker_whose_trial_was_taken_away_ends_it_quietly(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study(search__trials=2, train__epochs=2)
    taken: list[int] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        value = run_trial(job, hooks)
        if not taken:
            taken.append(job.checkpoints.number)
            with stored.storage.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE searchae_leases SET worker = 'another'")
            (running,) = (t for t in trials(stored) if t.number == job.checkpoints.number)
            stored.storage.set_trial_state_values(running._trial_id, TrialState.COMPLETE, [99.0])
        return value

    counts = worker(stored, folder, train=train).run()
    assert counts.taken_away == 1
    assert counts.complete == 1
    assert trials(stored)[0].value == 99.0, "the first result stands"


def test_a_machine_that_keeps_failing_is_quarantined_and_its_trials_go_elsewhere(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchae.worker.loop.FAILURE_WAIT_S", 0.01)
    stored, tried = study(), []

    def broken(job: TrialJob, _hooks: TrialHooks) -> float:
        tried.append(job.checkpoints.number)
        raise DeviceError("epoch 1: the device failed (CUDA error: unspecified launch failure)")

    with pytest.raises(DeviceError, match="unspecified launch failure"):
        worker(stored, folder, train=broken).run()
    assert len(tried) == 3
    assert [t.state.name for t in trials(stored)] == ["WAITING"], (
        "put back, and not counted as a loss"
    )
    assert "launch failure" in Coordinator(stored).quarantined()[0]
    assert worker(stored, folder).run().complete == 6
    Coordinator(stored).clear_stop()
    assert Coordinator(stored).quarantined() == ()


def test_failures_that_do_not_follow_one_another_are_forgiven(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchae.worker.loop.FAILURE_WAIT_S", 0.01)
    stored, calls = study(), []

    def flaky(job: TrialJob, hooks: TrialHooks) -> float:
        calls.append(job.checkpoints.number)
        if len(calls) % 3:
            raise OSError(28, "No space left on device")
        return run_trial(job, hooks)

    assert worker(stored, folder, train=flaky).run().complete == 6
    assert len(calls) == 18
    assert {t.state.name for t in trials(stored)} == {"COMPLETE"}


def test_when_the_time_is_up_the_epoch_is_ended_and_kept(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study(train__epochs=200, search__heartbeat_s=0.2)
    coordinator = Coordinator(stored)
    coordinator.set_time_limit(2.0)
    counts = worker(stored, folder).run()
    left_s = coordinator.seconds_left()
    assert left_s is not None
    assert left_s < 0
    assert counts.put_back == 1
    (trial,) = trials(stored)
    assert trial.state.name == "WAITING"
    assert 1 <= max(trial.intermediate_values) < 200
    assert worker(stored, folder).run().put_back == 0, "no trial can be claimed"
    coordinator.set_time_limit(None)
    again = threading.Event()
    seen: list[int] = []

    def go_on(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: EpochResult) -> None:
            seen.append(result.epoch)
            again.set()
            hooks.on_result(result)

        def should_leave() -> bool:
            return again.is_set() or hooks.should_leave()

        return run_trial(job, replace(hooks, on_result=on_epoch, should_leave=should_leave))

    stop = threading.Event()
    me = worker(stored, folder, train=go_on, stop=stop)

    def stop_then() -> None:
        again.wait()
        stop.set()

    timer = threading.Timer(0, stop_then)
    timer.start()
    me.run()
    assert seen == [max(trial.intermediate_values) + 1], "continues with the next epoch"


def test_a_worker_maps_the_images_that_the_search_has_decoded(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    """The source file is not needed, and the results are bitwise equal."""
    read, mapped = study("read"), study("mapped")
    worker(read, folder).run()
    splits = data.load_splits(mapped.spec.data, data_dir=folder / "data", seed=mapped.spec.seed)
    decoded_cache.keep_decoded(splits, folder / "data")
    (folder / "data" / "tiny.npz").unlink()
    worker(mapped, folder).run()
    values = [[t.intermediate_values for t in trials(s)] for s in (read, mapped)]
    assert values[0] == values[1] != []
