"""Claims, leases, live workers and the exact budget, on both databases."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from searchae.config.loader import spec_from_document
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study.attributes import RUNTIME
from searchae.study.budget import NoTrial
from searchae.study.coordination import Coordinator
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import StoredStudy, open_study


@pytest.fixture
def storage(database: str) -> ResilientStorage:
    return connect(database)


def make(storage: ResilientStorage, *, budget: int = 3, grace_s: float = 0.6) -> StoredStudy:
    document = {
        "data": {"name": "svhn"},
        "train": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "search": {
            "trials": budget,
            "heartbeat_s": grace_s / 3,
            "grace_s": grace_s,
            "max_attempts": 2,
        },
    }
    spec = spec_from_document(document, source="test")
    return open_study(storage, "s", spec=spec, data_hash="0" * 64, baseline_db=10.0)[0]


def worker(stored: StoredStudy, name: str, *, process: str = "1:elsewhere") -> Coordinator:
    """Returns a coordinator for a worker on another machine."""
    return Coordinator(
        stored, ProcessIdentity(worker=name, host="far", pid=1, place="far away", process=process)
    )


def finish(stored: StoredStudy, trial_id: int, value: float = 1.0) -> None:
    """Ends a trial as one of searchae's own workers, whose trials have a runtime."""
    with suppress(UpdateFinishedTrialError):
        stored.storage.set_trial_user_attr(trial_id, RUNTIME, {})
    stored.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])


def states(stored: StoredStudy) -> list[str]:
    return [t.state.name for t in stored.study.get_trials(deepcopy=False)]


def test_hands_out_the_budget_then_waits_then_is_done(storage: ResilientStorage) -> None:
    stored = make(storage, budget=2)
    one, other = worker(stored, "one"), worker(stored, "other")
    first, second = one.claim(), other.claim()
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first != second
    third = worker(stored, "third")
    assert third.claim() is NoTrial.WAIT
    finish(stored, first)
    assert third.claim() is NoTrial.WAIT
    finish(stored, second)
    assert third.claim() is NoTrial.DONE
    assert states(stored) == ["COMPLETE", "COMPLETE"]


def test_a_larger_budget_goes_on_where_the_smaller_ended(storage: ResilientStorage) -> None:
    stored = make(storage, budget=1)
    coordinator = worker(stored, "one")
    finish(stored, _claimed(coordinator))
    assert coordinator.claim() is NoTrial.DONE
    coordinator.set_budget(2)
    finish(stored, _claimed(coordinator))
    assert coordinator.claim() is NoTrial.DONE


def test_a_claim_whose_answer_was_lost_is_answered_with_the_same_trial(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=3)
    coordinator = worker(stored, "one")
    first = _claimed(coordinator)
    assert coordinator.claim() == first, "repeated, as after a broken connection"
    assert states(stored) == ["RUNNING"]


def test_a_machine_that_kills_every_worker_stops_the_study(storage: ResilientStorage) -> None:
    stored = make(storage, budget=9, grace_s=0.2)
    for i in range(10):  # a trial is given up after two deaths
        _claimed(worker(stored, f"doomed {i}"))
        time.sleep(0.25)
    worker(stored, "last").reap()
    assert states(stored) == ["FAIL"] * 5
    assert "5 trials were given up" in worker(stored, "last").stopped()
    assert worker(stored, "another").claim() is NoTrial.STOPPED


def test_a_study_stopped_just_before_a_claim_gives_out_no_trial(storage: ResilientStorage) -> None:
    stored = make(storage, budget=3)
    one, other = worker(stored, "one"), worker(stored, "other")
    put_back = _claimed(one)
    one.release(put_back)
    assert one.stopped() == "", "not stopped when the worker last looked"
    other.stop("trial 7 met a bug")
    assert one.claim() is NoTrial.STOPPED
    assert states(stored) == ["WAITING"], "neither an old trial nor a new one"
    other.clear_stop()
    assert one.claim() == put_back


def test_a_snapshot_is_what_the_single_questions_are_answered_with(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=3)
    one = worker(stored, "one")
    one.join("cpu")
    finish(stored, _claimed(one))
    one.set_time_limit(100.0)
    one.quarantine("its disk is full")
    one.stop("a bug")
    found = one.snapshot()
    assert [t.state.name for t in found.trials] == ["COMPLETE"]
    assert found.counts == one.counts()
    assert (found.counts.budget, found.counts.finished) == (3, 1)
    assert [w.worker for w in found.workers] == ["one"]
    assert found.stopped == one.stopped() == "a bug"
    assert found.quarantined == one.quarantined() == ("far, pid 1: its disk is full",)
    assert found.seconds_left == pytest.approx(100.0, abs=20.0)


def test_a_trial_put_back_comes_before_a_new_one_and_keeps_its_number(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=3)
    one, other = worker(stored, "one"), worker(stored, "other")
    first = _claimed(one)
    storage.set_trial_intermediate_value(first, 1, 12.5)
    began = storage.get_trial(first).datetime_start
    one.release(first)
    assert states(stored) == ["WAITING"]
    assert other.claim() == first
    assert storage.get_trial(first).intermediate_values == {1: 12.5}
    assert storage.get_trial(first).datetime_start == began, "the start of the first attempt"
    assert not one.holds(first)
    assert other.holds(first)


def test_releasing_a_trial_that_another_worker_has_changes_nothing(
    storage: ResilientStorage,
) -> None:
    stored = make(storage)
    one, other = worker(stored, "one"), worker(stored, "other")
    first = _claimed(one)
    one.release(first)
    assert other.claim() == first
    one.release(first)
    assert states(stored) == ["RUNNING"]


def test_a_silent_worker_s_trial_is_put_back_after_the_grace(storage: ResilientStorage) -> None:
    stored = make(storage, grace_s=0.6)
    dead, heir = worker(stored, "dead"), worker(stored, "heir")
    first = _claimed(dead)
    assert heir.reap() == 0
    time.sleep(0.7)
    assert heir.reap(trust_silence=False) == 0, "after an outage every lease is old"
    assert heir.claim() == first
    assert dead.beat(first, number=0, epoch=1) is False, "its lease has another owner"


def test_a_beating_worker_keeps_its_trial(storage: ResilientStorage) -> None:
    stored = make(storage, grace_s=3)  # a busy machine may stop for a second
    alive, other = worker(stored, "alive"), worker(stored, "other")
    first = _claimed(alive)
    for _ in range(4):
        time.sleep(1)
        assert alive.beat(first, number=0, epoch=1)
    assert other.reap() == 0
    assert alive.holds(first)


def test_a_process_seen_to_be_gone_is_not_waited_for(storage: ResilientStorage) -> None:
    stored = make(storage, grace_s=60)
    child = subprocess.Popen(["sleep", "60"])
    me = ProcessIdentity.of_this_process()
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    dying = Coordinator(
        stored, ProcessIdentity("dying", me.host, child.pid, me.place, f"{child.pid}:{started}")
    )
    first = _claimed(dying)
    heir = worker(stored, "heir")
    assert heir.reap() == 0
    child.kill()
    child.wait()
    assert heir.reap(trust_silence=False) == 1
    assert heir.claim() == first


def test_a_claimer_that_died_inside_the_lock_leaves_nothing_running(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=1)

    class DiedError(Exception):
        pass

    def die() -> None:
        raise DiedError

    victim = Coordinator(stored, ProcessIdentity("v", "far", 1, "far away", "1:1"), created=die)
    with pytest.raises(DiedError):
        victim.claim()
    assert states(stored) == [], "the claim was rolled back"
    heir = worker(stored, "heir")
    finish(stored, _claimed(heir))
    assert heir.claim() is NoTrial.DONE
    assert states(stored) == ["COMPLETE"]


def test_a_trial_that_kills_its_workers_is_given_up_and_not_counted(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=1, grace_s=0.3)
    for name in ("first", "second"):
        _claimed(worker(stored, name))
        time.sleep(0.4)
    coordinator = worker(stored, "third")
    finish(stored, _claimed(coordinator))
    assert coordinator.claim() is NoTrial.DONE
    assert states(stored) == ["FAIL", "COMPLETE"]
    assert stored.study.trials[0].user_attrs["searchae:outcome"] == "lost"


def test_a_trial_finished_by_a_worker_thought_dead_is_finished_once(
    storage: ResilientStorage,
) -> None:
    stored = make(storage, budget=1, grace_s=0.3)
    slow, heir = worker(stored, "slow"), worker(stored, "heir")
    first = _claimed(slow)
    time.sleep(0.4)
    assert heir.claim() == first
    finish(stored, first, 2.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        finish(stored, first, 3.0)
    assert heir.counts().finished == 1
    assert stored.study.trials[0].value == 2.0


def test_workers_are_listed_while_they_live(storage: ResilientStorage) -> None:
    stored = make(storage, grace_s=0.6)
    coordinator = worker(stored, "one")
    coordinator.join("cuda:1")
    first = _claimed(coordinator)
    coordinator.beat(first, number=7, epoch=3)
    (row,) = coordinator.workers()
    assert (row.host, row.device, row.trial, row.epoch) == ("far", "cuda:1", 7, 3)
    time.sleep(0.7)
    assert coordinator.workers() == []
    coordinator.beat(None, number=None, epoch=None)
    assert len(coordinator.workers()) == 1
    coordinator.leave()
    assert coordinator.workers() == []


def test_a_lock_session_that_was_cut_off_takes_no_trial_too_many(postgres_url: str) -> None:
    storage = connect(postgres_url)
    stored = make(storage, budget=1)
    cuts: list[Any] = []

    def cut() -> None:
        if not cuts:
            with sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT").connect() as c:
                cuts.extend(
                    c.execute(
                        sa.text(
                            "SELECT pg_terminate_backend(pid) FROM pg_locks "
                            "WHERE locktype = 'advisory' AND granted"
                        )
                    ).all()
                )

    coordinator = Coordinator(
        stored, ProcessIdentity("v", "far", 1, "far away", "1:1"), created=cut
    )
    first = _claimed(coordinator)
    assert len(cuts) == 1
    finish(stored, first)
    assert coordinator.claim() is NoTrial.DONE
    assert states(stored) == ["COMPLETE"]


def test_a_worker_holds_at_most_two_connections(postgres_url: str) -> None:
    storage = connect(postgres_url)
    coordinator = worker(make(storage), "one")
    _claimed(coordinator)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'searchae'"
    with sa.create_engine(postgres_url).connect() as c:
        assert 1 <= c.execute(sa.text(query)).scalar_one() <= 2


@pytest.mark.fleet
def test_chaos_leaves_the_budget_exact(tmp_path: Path) -> None:
    """Six workers, killed and suspended at random for six seconds."""
    outcome = chaos("--url", f"sqlite:///{tmp_path}/chaos.db", trials=40, seconds=6, seed=1)
    check_exact(outcome, 40)
    assert outcome["killed"] >= 3


@pytest.mark.fleet
def test_chaos_leaves_no_trial_paused(tmp_path: Path) -> None:
    """The same with trials that are paused and go on, on whichever worker."""
    where = ("--pruner", "asha", "--url", f"sqlite:///{tmp_path}/chaos.db")
    outcome = chaos(*where, trials=40, seconds=6, seed=2)
    check_exact(outcome, 40)
    assert outcome["killed"] >= 3


@pytest.mark.fleet
def test_chaos_with_a_database_that_goes_away_leaves_the_budget_exact() -> None:
    """The same, while lock sessions are terminated and the server is restarted."""
    outcome = chaos("--postgres", trials=40, seconds=12, seed=7)
    check_exact(outcome, 40)
    assert outcome["killed"] >= 3
    assert outcome["database stopped"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_chaos_over_many_seeds(kind: str, pruner: str, seed: int, tmp_path: Path) -> None:
    url = ("--url", f"sqlite:///{tmp_path}/chaos.db")
    where = url if kind == "sqlite" else ("--postgres",)
    check_exact(chaos("--pruner", pruner, *where, trials=40, seconds=8, seed=seed), 40)


def check_exact(outcome: dict[str, Any], budget: int) -> None:
    assert outcome["finished"] == outcome["budget"] == budget
    lost = ("running", "waiting", "failed", "stuck_workers", "wrong_values")
    assert {k: outcome[k] for k in lost} == dict.fromkeys(lost, 0)
    assert outcome["numbers_unique"]
    assert outcome["params_unique"], "no trial was run twice"
    assert outcome["reports"] == [4], "every complete trial has each epoch's report once"


def chaos(*where: str, **options: float) -> dict[str, Any]:
    words = [w for name, value in options.items() for w in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *where, *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def _claimed(coordinator: Coordinator) -> int:
    claimed = coordinator.claim()
    assert isinstance(claimed, int), claimed
    return claimed


def test_after_the_time_limit_nobody_claims_and_without_one_they_do_again(
    storage: ResilientStorage,
) -> None:
    stored = make(storage)
    coordinator = worker(stored, "one")
    assert coordinator.seconds_left() is None
    coordinator.set_time_limit(3600)
    left_s = coordinator.seconds_left()
    assert left_s is not None
    assert 3590 < left_s <= 3600
    assert isinstance(coordinator.claim(), int)
    coordinator.set_time_limit(-1)
    assert worker(stored, "two").claim() is NoTrial.TIME_UP
    coordinator.set_time_limit(None)
    assert isinstance(worker(stored, "two").claim(), int)


def test_a_spent_budget_is_done_also_after_the_time_limit(storage: ResilientStorage) -> None:
    stored = make(storage, budget=1)
    coordinator = worker(stored, "one")
    trial_id = coordinator.claim()
    assert isinstance(trial_id, int)
    finish(stored, trial_id)
    coordinator.set_time_limit(-1)
    assert coordinator.claim() is NoTrial.DONE


def test_the_reason_of_a_stop_outlives_the_next_claim(storage: ResilientStorage) -> None:
    """A claim that reaped first could store that workers keep dying in its place."""
    stored = make(storage, grace_s=0.3)
    one, two = worker(stored, "one"), worker(stored, "two")
    trial_id = one.claim()
    assert isinstance(trial_id, int)
    time.sleep(0.5)
    two.stop("trial 0 met a bug")
    assert two.claim(trust_silence=True) is NoTrial.STOPPED
    assert states(stored) == ["RUNNING"], "nothing was reaped"
    two.clear_stop()
    assert two.claim(trust_silence=True) == trial_id, "now it was"
