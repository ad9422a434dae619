"""The initial trials of a study file are run first, by whichever workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from searchae import data
from searchae.config.loader import load_study_file
from searchae.storage.connection import connect
from searchae.study.attributes import IMPORTED
from searchae.study.stored_study import StoredStudy, open_study
from searchae.study.warm_start import describe_import
from searchae.training.trainer import Interrupted
from searchae.worker.loop import Worker
from searchae.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")

FIRST = [
    {"activation": "tanh", "optimizer": "sgd", "learning_rate": 0.05, "regularizer": "clip"},
    {"regularizer": "clip+l1", "l1_weight": 1e-4},
]


def made(folder: Path, name: str, *, first: Any = FIRST, **more: Any) -> StoredStudy:
    changes = {"search.first": first, "search.trials": 4, "search.pruner": "none"}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    storage = connect(f"sqlite:///{folder / 'searchae.db'}")
    given = {"spec": spec, "data_hash": splits.hash, "baseline_db": 11.5, **more}
    return open_study(storage, name, **given)[0]


def at_work(stored: StoredStudy, folder: Path, **more: Any) -> Worker:
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    return Worker(stored, options, **more)


def trials(stored: StoredStudy) -> list[FrozenTrial]:
    return stored.study.get_trials(deepcopy=False)


def test_the_search_begins_with_them_and_samples_what_they_leave_out(folder: Path) -> None:
    stored = made(folder, "given")
    at_work(stored, folder).run()
    ran = trials(stored)
    assert [t.state.name for t in ran] == ["COMPLETE"] * 4
    assert ran[0].params == FIRST[0]
    assert FIRST[1].items() <= ran[1].params.items()
    assert set(ran[1].params) == {*FIRST[0], "l1_weight"}
    assert [bool(t.system_attrs.get("fixed_params")) for t in ran] == [True, True, False, False]
    plain = made(folder, "sampled", first=[])
    at_work(plain, folder).run()
    assert trials(plain)[0].params != FIRST[0]


def test_one_that_was_put_back_keeps_its_values(folder: Path) -> None:
    stored = made(folder, "given")
    left = []

    def leaves(*_: Any, **__: Any) -> float:
        left.append(True)
        first.stop.set()
        raise Interrupted("told to leave")

    first = at_work(stored, folder, train=leaves)
    first.run()
    assert left
    assert [t.state.name for t in trials(stored)] == ["WAITING"]
    at_work(stored, folder).run()
    assert trials(stored)[0].params == FIRST[0]


def test_imported_trials_do_not_use_them_up(folder: Path) -> None:
    source = made(folder, "old", first=[])
    at_work(source, folder).run()
    stored = made(folder, "new", warm_start=source)
    assert stored.study.user_attrs[IMPORTED] == {"complete": 4}
    assert describe_import(stored.study, source).endswith(
        "old: 4 of its 4 finished trials imported"
    )
    at_work(stored, folder).run()
    own = trials(stored)[4:]
    assert own[0].params == FIRST[0]
    assert FIRST[1].items() <= own[1].params.items()
    assert len(own) == 4


def test_what_is_not_imported_is_said(folder: Path) -> None:
    source = made(folder, "old", first=[])
    empty = made(folder, "empty", warm_start=source)
    assert "no finished trials: nothing is taken" in describe_import(empty.study, source)
    at_work(source, folder).run()
    changes = {"train.batch_size": 5, "search.trials": 4}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    other = made(folder, "new", warm_start=source, spec=spec)
    text = describe_import(other.study, source)
    assert "old: 0 of its 4 finished trials imported; they" in text
    assert "do not fit this search" in text
