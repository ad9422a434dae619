"""Lists of trainings: trials that are given instead of sampled, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from searchae.config.loader import spec_from_document
from searchae.errors import UserError
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study.attributes import OPEN_UNTIL
from searchae.study.budget import NoTrial
from searchae.study.coordination import Coordinator
from searchae.study.listed_training import ListedTraining, training_of
from searchae.study.overview import study_overviews
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.study.summary import summarize
from searchae.study.training_list import (
    TrainingList,
    find_training_list,
    list_name,
    open_training_list,
)

HASH = "a" * 64
MAXIMIZE = StudyDirection.MAXIMIZE
SPEC = spec_from_document(
    {
        "data": {"name": "svhn"},
        "train": {
            "epochs": 4,
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "optimizer": {"choices": ["adam", "sgd"]},
        },
    },
    source="test",
)


@pytest.fixture
def storage(database: str) -> Iterator[ResilientStorage]:
    storage = connect(database)
    yield storage
    storage.engine.dispose()


@pytest.fixture
def stored(storage: ResilientStorage) -> StoredStudy:
    return open_study(storage, "s", spec=SPEC, data_hash=HASH, baseline_db=10.0)[0]


def open_list(stored: StoredStudy) -> TrainingList:
    return open_training_list(stored, data=SPEC.data, data_hash=HASH, baseline_db=10.0)


def training(rate: float = 1e-3, seed: int = 1, **changes: Any) -> ListedTraining:
    values = {"train.learning_rate": rate, "train.optimizer": "adam"}
    made = ListedTraining(
        params=SPEC.resolve(values),
        seed=seed,
        precision="fp32",
        values={"learning_rate": rate, "optimizer": "adam"},
    )
    return replace(made, **changes)


def identity(name: str) -> ProcessIdentity:
    return replace(ProcessIdentity.of_this_process(), worker=name)


def test_what_is_listed_is_read_back_by_another_process(stored: StoredStudy, database: str) -> None:
    given = training(rate=0.5, keeps_weights=True)
    open_list(stored).add([given])
    elsewhere = find_training_list(load_study(connect(database), "s"))
    assert elsewhere is not None
    (trial,) = elsewhere.trials().values()
    read = training_of(trial)
    assert read is not None
    assert (read.params, read.seed, read.precision) == (given.params, given.seed, "fp32")
    assert (read.keeps_weights, read.is_tested, read.key) == (True, True, given.key)
    assert trial.params == {"learning_rate": 0.5, "optimizer": "adam"}, "also beyond the range"


def test_nothing_is_listed_twice_also_by_many_at_once(stored: StoredStudy, database: str) -> None:
    wanted = [training(seed=s) for s in range(6)]

    def add(turn: int) -> int:
        own = find_training_list(load_study(connect(database), "s"))
        assert own is not None
        return own.add(wanted[turn % 3 :] + wanted[: turn % 3])

    open_list(stored)
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(add, range(8)))
    assert sum(added) == 6
    listed = find_training_list(stored)
    assert listed is not None
    assert sorted(listed.trials()) == sorted(t.key for t in wanted)
    assert listed.coordinator.counts().budget == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"precision": "bf16"},
        {"is_tested": False},
        {"keeps_weights": True},
        {"is_pruned": True},
        {"params": SPEC.resolve({"train.learning_rate": 2e-3, "train.optimizer": "adam"})},
    ],
)
def test_trainings_that_may_end_otherwise_are_others(changes: dict[str, Any]) -> None:
    assert training().key != training(**changes).key
    assert training().key == training(group="another").key


def test_claims_take_what_is_listed_and_never_add_to_it(stored: StoredStudy) -> None:
    listed = open_list(stored)
    listed.add([training(seed=s) for s in (1, 2)])
    worker = Coordinator(listed.stored, identity("one"))
    other = Coordinator(listed.stored, identity("two"))
    first, second = worker.claim(), other.claim()
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert Coordinator(listed.stored, identity("three")).claim() is NoTrial.WAIT
    assert worker.finish(first, TrialState.COMPLETE, 20.0)
    assert other.finish(second, TrialState.PRUNED, 15.0)
    assert worker.claim() is NoTrial.DONE
    assert len(listed.trials()) == 2


def test_workers_wait_while_more_may_follow(stored: StoredStudy) -> None:
    listed = open_list(stored)
    listed.add([training()])
    deciding = Coordinator(listed.stored, identity("deciding"))
    deciding.keep_open(60)
    worker = Coordinator(listed.stored, identity("worker"))
    claimed = worker.claim()
    assert isinstance(claimed, int)
    worker.finish(claimed, TrialState.COMPLETE, 20.0)
    assert worker.claim() is NoTrial.WAIT
    another = Coordinator(listed.stored, identity("another"))
    another.keep_open(60)
    deciding.keep_open(0)
    assert worker.claim() is NoTrial.WAIT, "another process may still add some"
    listed.add([training(seed=9)])
    claimed = worker.claim()
    assert isinstance(claimed, int)
    worker.finish(claimed, TrialState.COMPLETE, 20.0)
    another.keep_open(0)
    assert worker.claim() is NoTrial.DONE


def test_no_time_is_foretold_while_more_may_follow(stored: StoredStudy) -> None:
    listed = open_list(stored)
    listed.add([training(seed=s) for s in (1, 2)])
    worker = Coordinator(listed.stored, identity("worker"))
    worker.join("cpu")
    claimed = worker.claim()
    assert isinstance(claimed, int)
    listed.stored.storage.set_trial_intermediate_value(claimed, 1, 20.0)
    worker.finish(claimed, TrialState.COMPLETE, 20.0)
    deciding = Coordinator(listed.stored, identity("deciding"))
    for seconds, is_known in ((60.0, False), (0.0, True)):
        deciding.keep_open(seconds)
        found = summarize(listed.stored, worker)
        assert (found.to_go_s is not None) == is_known


def test_workers_leave_when_the_process_that_decides_is_gone(stored: StoredStudy) -> None:
    listed = open_list(stored)
    Coordinator(listed.stored, identity("killed")).keep_open(1e-6)
    assert Coordinator(listed.stored, identity("worker")).claim() is NoTrial.DONE
    Coordinator(listed.stored, identity("next")).keep_open(30)
    attributes = load_study(stored.storage, "s.trainings").study.user_attrs
    assert list(attributes[OPEN_UNTIL]) == ["next"], "nothing is left of the one that is gone"


def test_a_training_that_failed_is_listed_again(stored: StoredStudy) -> None:
    listed = open_list(stored)
    listed.add([training()])
    worker = Coordinator(listed.stored, identity("worker"))
    claimed = worker.claim()
    assert isinstance(claimed, int)
    stored.storage.set_trial_state_values(claimed, TrialState.FAIL)
    assert listed.add([training()]) == 1
    (trial,) = listed.trials().values()
    assert (trial.number, trial.state) == (1, TrialState.WAITING)
    assert listed.coordinator.counts().budget == 1


def test_what_nobody_wants_any_more_is_withdrawn_and_can_be_listed_again(
    stored: StoredStudy,
) -> None:
    listed = open_list(stored)
    wanted, unwanted = training(seed=1), training(seed=2)
    listed.add([wanted, unwanted])
    other = Coordinator(listed.stored, identity("another comparison"))
    other.keep_open(60)
    assert listed.withdraw([wanted.key]) == 0, "the other one may want it"
    other.keep_open(0)
    assert listed.withdraw([wanted.key]) == 1
    assert listed.coordinator.counts().budget == 1
    summary = summarize(listed.stored, listed.coordinator)
    assert (summary.counts.failed, summary.outcomes) == (0, {}), "nothing has failed"
    assert [row.seed for row in summary.rows] == [1]
    worker = Coordinator(listed.stored, identity("worker"))
    claimed = worker.claim()
    assert isinstance(claimed, int)
    assert worker.finish(claimed, TrialState.COMPLETE, 20.0)
    assert worker.claim() is NoTrial.DONE
    assert listed.add([wanted, unwanted]) == 1
    assert isinstance(worker.claim(), int)


def test_a_time_limit_ends_the_work_on_a_list(stored: StoredStudy) -> None:
    listed = open_list(stored)
    listed.add([training()])
    listed.coordinator.set_time_limit(-1)
    assert Coordinator(listed.stored, identity("worker")).claim() is NoTrial.TIME_UP


def test_a_study_that_has_the_list_s_name_is_not_taken_for_it(
    stored: StoredStudy, storage: ResilientStorage
) -> None:
    open_study(storage, "s.trainings", spec=SPEC, data_hash=HASH, baseline_db=10.0)
    with pytest.raises(UserError, match=r"study 's\.trainings' is in the way"):
        open_list(stored)
    with pytest.raises(UserError, match=r"study 's\.trainings' is in the way"):
        find_training_list(stored)


def test_the_list_of_an_earlier_study_of_the_same_name_is_not_gone_on_with(
    stored: StoredStudy, storage: ResilientStorage
) -> None:
    open_list(stored)
    storage.delete_study(stored.id)
    other = replace(SPEC, seed=5)
    again, _ = open_study(storage, "s", spec=other, data_hash=HASH, baseline_db=10.0)
    with pytest.raises(UserError, match="lists trainings of an earlier study named 's'"):
        open_list(again)


def test_trainings_of_a_study_with_several_objectives_have_one_value(
    storage: ResilientStorage,
) -> None:
    search = SPEC.search.model_copy(
        update={"objectives": ("psnr", "sparsity"), "sampler": "nsga2", "max_parameters": 10**7}
    )
    spec = replace(SPEC, search=search)
    stored, _ = open_study(storage, "front", spec=spec, data_hash=HASH, baseline_db=10.0)
    listed = open_training_list(stored, data=spec.data, data_hash=HASH, baseline_db=10.0)
    listed.add([training()])
    worker = Coordinator(load_study(storage, "front.trainings"), identity("worker"))
    claimed = worker.claim()
    assert isinstance(claimed, int)
    assert worker.finish(claimed, TrialState.COMPLETE, 20.0)
    (trial,) = listed.trials().values()
    assert trial.values == [20.0]


def test_other_images_have_a_list_of_their_own(stored: StoredStudy) -> None:
    open_list(stored).add([training()])
    data = SPEC.data.model_copy(update={"train_images": 100})
    other = open_training_list(stored, data=data, data_hash="b" * 64, baseline_db=10.0)
    assert other.stored.name == "s.trainings-bbbbbbbb"
    assert other.trials() == {}


# -- all studies in a few lines


def test_studies_are_told_with_progress_and_best(
    storage: ResilientStorage, stored: StoredStudy
) -> None:
    for value, state in ((21.5, TrialState.COMPLETE), (25.0, TrialState.PRUNED)):
        stored.study.add_trial(create_trial(state=state, value=value))
    listed = open_list(stored)
    listed.add([training(seed=1), training(seed=2)])
    storage.set_study_user_attr(storage.create_new_study([MAXIMIZE], "other"), "theirs", 1)
    overviews = {o.name: o for o in study_overviews(storage)}
    assert overviews["s"].finished == 2
    assert overviews["s"].best_db == 21.5
    assert overviews["s"].budget == SPEC.search.trials
    trainings = overviews[list_name(stored)]
    assert (trainings.trainings_of, trainings.budget, trainings.best_db) == ("s", 2, None)
    assert "not by searchae" in overviews["other"].fault
