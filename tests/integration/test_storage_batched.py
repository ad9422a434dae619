"""The storage in few round trips: Optuna reads what it writes, and it reads what Optuna writes."""

from __future__ import annotations

import importlib
import logging
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from searchae import data
from searchae.config.loader import load_study_file
from searchae.errors import StorageError
from searchae.storage import engine_settings as storage_engine
from searchae.storage import resilient, tables
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.storage.trial_batching import NoBatching
from searchae.study.coordination import Coordinator
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.training.trial_checkpoints import PrunedError
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions

SPACE = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "width": IntDistribution(8, 64, step=8),
    "act": CategoricalDistribution(("relu", "tanh", None, 3)),
}
REPORTS = 20


def a_trial(on: Any, study_id: int, *, end: TrialState | None = TrialState.COMPLETE) -> int:
    """Everything that can be written about a trial."""
    trial_id: int = on.create_new_trial(study_id)
    for name, inner in (("lr", 1e-3), ("width", 24.0), ("act", 2.0)):
        on.set_trial_param(trial_id, name, inner, SPACE[name])
    for step, value in enumerate((0.1 + 0.2, math.nan, math.inf, -math.inf, 1e-308)):
        on.set_trial_intermediate_value(trial_id, step, value)
    on.set_trial_intermediate_value(trial_id, 0, 7.25)
    on.set_trial_user_attr(trial_id, "note", {"a": [1, None, "é"]})
    on.set_trial_user_attr(trial_id, "note", "again")
    on.set_trial_system_attr(trial_id, "completed_rung_0", 0.1 + 0.2)
    if end is not None:
        on.set_trial_state_values(trial_id, end, [2 / 3] if end == TrialState.COMPLETE else None)
    return trial_id


def content(trial: FrozenTrial) -> dict[str, Any]:
    """What two trials that were written alike have in common; NaN equals itself as text."""
    return {
        "state": trial.state,
        "values": trial.values,
        "params": list(trial.params.items()),
        "distributions": trial.distributions,
        "reports": str(sorted(trial.intermediate_values.items())),
        "user": trial.user_attrs,
        "system": trial.system_attrs,
    }


@contextmanager
def counted(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that this thread executes on an engine meanwhile.

    Those of a worker's heartbeat come by the clock, so that any trial may seem to make them.
    """
    seen: list[str] = []
    thread = threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() != thread:
            return
        if not statement.startswith("BEGIN"):  # no round trip on SQLite, and not seen on the other
            seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_optuna_reads_the_same_from_both(lean: ResilientStorage, plain: RDBStorage) -> None:
    ours = optuna.create_study(storage=lean)._study_id
    theirs = optuna.create_study(storage=plain)._study_id
    for end in (TrialState.COMPLETE, TrialState.PRUNED, None):
        a_trial(lean, ours, end=end)
        a_trial(plain, theirs, end=end)
    for one, other in zip(plain.get_all_trials(ours), plain.get_all_trials(theirs), strict=True):
        assert content(one) == content(other)
        assert one.number == other.number


def test_a_worker_reads_what_optuna_reads(lean: ResilientStorage, plain: RDBStorage) -> None:
    study_id = optuna.create_study(storage=plain)._study_id
    for end in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        a_trial(plain, study_id, end=end)
    mine = lean.get_trial(lean.create_new_trial(study_id))
    with lean.exclusive_trial(mine._trial_id):
        read = lean.get_all_trials(study_id)
    assert [str(t) for t in read] == [str(t) for t in plain.get_all_trials(study_id)]
    assert str(lean.get_trial(1)) == str(plain.get_trial(1)), "times too"


def test_a_worker_sees_what_others_write_meanwhile(
    lean: ResilientStorage, plain: RDBStorage
) -> None:
    study_id = optuna.create_study(storage=plain)._study_id
    early = plain.create_new_trial(study_id)
    with lean.exclusive_trial(lean.create_new_trial(study_id)):
        assert len(lean.get_all_trials(study_id)) == 2
        late = plain.create_new_trial(study_id)
        for trial_id in (early, late):
            plain.set_trial_param(trial_id, "lr", 1e-3, SPACE["lr"])
            plain.set_trial_system_attr(trial_id, "completed_rung_0", 12.5)
        seen = {t._trial_id: t for t in lean.get_all_trials(study_id, deepcopy=False)}
        for trial_id in (early, late):
            assert seen[trial_id].params == {"lr": 1e-3}
            assert seen[trial_id].system_attrs == {"completed_rung_0": 12.5}
        plain.set_trial_state_values(early, TrialState.WAITING)
        plain.set_trial_intermediate_value(late, 1, 3.5)
        plain.set_trial_state_values(late, TrialState.COMPLETE, [4.5])
        first, _, last = lean.get_all_trials(study_id, deepcopy=False)
        assert first.state == TrialState.WAITING
        assert (last.state, last.value) == (TrialState.COMPLETE, 4.5)
        assert last.intermediate_values == {1: 3.5}
    (running,) = lean.get_all_trials(study_id, states=(TrialState.RUNNING,))
    plain.set_trial_intermediate_value(running._trial_id, 1, 2.5)
    (running,) = lean.get_all_trials(study_id, states=(TrialState.RUNNING,))
    assert running.intermediate_values == {1: 2.5}, "whoever holds no trial reads every report"


@pytest.mark.parametrize("many", [5000, 0])
def test_of_many_trials_only_those_that_may_have_changed_are_read(
    many: int, lean: ResilientStorage, plain: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the others do between two looks: the same as Optuna's own reading."""
    monkeypatch.setattr("searchae.storage.changed_trials.MANY_UNFINISHED", many)
    monkeypatch.setattr("searchae.storage.changed_trials.REREAD_ROWS", 3)
    monkeypatch.setattr("searchae.storage.changed_trials.MAX_NAMED_TRIALS", 2)
    study_id = optuna.create_study(storage=plain)._study_id
    neighbour = optuna.create_study(storage=plain)._study_id
    draw = random.Random(0)
    going: list[int] = []
    with lean.exclusive_trial(lean.create_new_trial(study_id)):
        for _ in range(40):
            for _ in range(draw.randrange(4)):
                plain.create_new_trial(neighbour)
                going.append(plain.create_new_trial(study_id))
                plain.set_trial_param(going[-1], "lr", draw.random(), SPACE["lr"])
            for trial_id in draw.sample(going, min(len(going), draw.randrange(3))):
                plain.set_trial_system_attr(trial_id, f"completed_rung_{draw.randrange(3)}", 1.5)
                plain.set_trial_param(trial_id, "width", 24.0, SPACE["width"])
                state = draw.choice([TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING])
                if state.is_finished():
                    going.remove(trial_id)
                plain.set_trial_state_values(
                    trial_id, state, [1.5] if state.name == "COMPLETE" else None
                )
            seen = lean.get_all_trials(study_id, deepcopy=False)
            there = plain.get_all_trials(study_id)
            assert [(t.number, t.state, t.params, t.values, t.system_attrs) for t in seen] == [
                (t.number, t.state, t.params, t.values, t.system_attrs) for t in there
            ]
    assert len(there) > 40


def test_a_row_committed_after_later_ones_is_seen(
    lean: ResilientStorage, plain: RDBStorage, database: str
) -> None:
    if database.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time: rows are committed in their order")
    study_id = optuna.create_study(storage=plain)._study_id
    slow, quick = plain.create_new_trial(study_id), plain.create_new_trial(study_id)
    with lean.exclusive_trial(lean.create_new_trial(study_id)):
        lean.get_all_trials(study_id)
        with plain.engine.begin() as open_still:
            row = {"trial_id": slow, "key": "completed_rung_0", "value_json": "1.5"}
            open_still.execute(sa.insert(tables.system_attributes).values(**row))
            connect(database).set_trial_system_attr(quick, "completed_rung_0", 2.5)
            seen = lean.get_all_trials(study_id)
            assert [t.system_attrs.get("completed_rung_0") for t in seen] == [None, 2.5, None]
        seen = lean.get_all_trials(study_id)
        assert [t.system_attrs.get("completed_rung_0") for t in seen] == [1.5, 2.5, None]


def test_a_trial_that_has_ended_takes_nothing_more(lean: ResilientStorage) -> None:
    study_id = optuna.create_study(storage=lean)._study_id
    ended = a_trial(lean, study_id)
    writes: list[Callable[[int], None]] = [
        lambda i: lean.set_trial_intermediate_value(i, 9, 1.0),
        lambda i: lean.set_trial_param(i, "new", 0.5, FloatDistribution(0, 1)),
        lambda i: lean.set_trial_user_attr(i, "new", 1),
        lambda i: lean.set_trial_system_attr(i, "new", 1),
    ]
    before = content(lean.get_trial(ended))
    for write in writes:
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            write(ended)
        with pytest.raises(KeyError):
            write(ended + 1)
    assert content(lean.get_trial(ended)) == before


def test_what_is_sampled_is_written_together_or_not_at_all(
    lean: ResilientStorage, plain: RDBStorage
) -> None:
    study_id = optuna.create_study(storage=lean)._study_id
    mine = lean.get_trial(lean.create_new_trial(study_id))

    def write() -> None:
        lean.set_trial_param(mine._trial_id, "lr", 1e-3, SPACE["lr"])
        lean.set_trial_user_attr(mine._trial_id, "a", 1)
        lean.set_trial_user_attr(mine._trial_id, "b", 2)

    def write_and_fail() -> None:
        with lean.batched_writes():
            write()
            raise ZeroDivisionError

    def write_too_late() -> None:
        with lean.batched_writes():
            lean.set_trial_user_attr(mine._trial_id, "late", 1)
            plain.set_trial_state_values(mine._trial_id, TrialState.FAIL)

    with lean.exclusive_trial(mine._trial_id):
        with pytest.raises(ZeroDivisionError):
            write_and_fail()
        assert plain.get_trial(mine._trial_id).user_attrs == {}
        with lean.batched_writes():
            write()
            assert plain.get_trial(mine._trial_id).params == {}
        stored = plain.get_trial(mine._trial_id)
        assert (stored.params, stored.user_attrs) == ({"lr": 1e-3}, {"a": 1, "b": 2})
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            write_too_late()
    assert "late" not in plain.get_trial(mine._trial_id).user_attrs


# -- a worker


def open_tiny(on: ResilientStorage, folder: Path, **changes: Any) -> StoredStudy:
    keys = {
        "search.pruner": "hyperband",
        "search.min_epochs": 1,
        "train.epochs": REPORTS,
        "search.heartbeat_s": 60.0,
        "search.grace_s": 600.0,
        **changes,
    }
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    return open_study(on, "tiny", spec=spec, data_hash=splits.hash, baseline_db=1.0)[0]


def statements_by_trial(stored: StoredStudy, folder: Path, trials: int) -> list[tuple[int, int]]:
    """Reports and statements of each trial of a worker, the first left out: it reads it all."""
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def train(job: TrialJob, _hooks: TrialHooks) -> float:
        trial, number = job.trial, job.checkpoints.number
        seen.append((0, len(made)))
        if len(seen) > trials + 1:
            stop.set()
            raise PrunedError
        for epoch in range(1, REPORTS + 1):
            seen[-1] = (epoch, seen[-1][1])
            trial.report(epoch + number, epoch)
            if epoch < REPORTS and trial.should_prune():
                raise PrunedError
        return float(REPORTS + number)

    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    with counted(stored.storage.engine) as made:
        Worker(stored, options, stop=stop, train=train).run()
    return [(reports, after[1] - before) for (reports, before), after in pairwise(seen[1:])]


def test_a_trial_takes_a_statement_a_report_and_few_more(
    lean: ResilientStorage, folder: Path
) -> None:
    stored = open_tiny(lean, folder, **{"search.trials": 100})
    for reports, statements in statements_by_trial(stored, folder, trials=6):
        rungs = 1 + math.floor(math.log(reports, 3))
        assert statements <= reports + 4 * rungs + 25


def test_trials_that_run_or_wait_cost_no_statement_more(database: str, folder: Path) -> None:
    # Successive halving: Hyperband's brackets, and with them its rungs, go by a trial's number.
    changes = {"search.trials": 500, "search.pruner": "successive-halving"}
    alone = connect(f"sqlite:///{folder / 'alone.db'}")
    few = statements_by_trial(open_tiny(alone, folder, **changes), folder, 5)
    crowded = connect(database)
    stored = open_tiny(crowded, folder, **changes)
    for i in range(60):
        # As claimed by others, who live and have sampled.
        claimer = Coordinator(stored, ProcessIdentity(f"far {i}", "far", 1, "far away", "1:1"))
        trial_id = claimer.claim()
        assert isinstance(trial_id, int)
        crowded.set_trial_param(trial_id, "learning_rate", 1e-3, _learning_rate(stored))
        crowded.set_trial_intermediate_value(trial_id, 1, -100.0)
    for _ in range(60):
        stored.study.enqueue_trial({}, skip_if_exists=False)
    many = statements_by_trial(stored, folder, trials=5)
    assert [r for r, _ in many] == [r for r, _ in few]
    assert all(s <= alone + 2 for (_, s), (_, alone) in zip(many, few, strict=True))


def _learning_rate(stored: StoredStudy) -> FloatDistribution:
    from searchae.search import distributions

    (found,) = (p for p in stored.spec.space if p.name == "learning_rate")
    made = distributions.to_distribution(found)
    assert isinstance(made, FloatDistribution)
    return made


def test_a_trial_put_back_meanwhile_is_not_ended_and_keeps_its_lease(
    lean: ResilientStorage, folder: Path
) -> None:
    stored = open_tiny(lean, folder)
    ledger = Coordinator(stored)
    trial_id = ledger.claim()
    assert isinstance(trial_id, int)
    lean.set_trial_state_values(trial_id, TrialState.WAITING)
    assert not ledger.finish(trial_id, TrialState.COMPLETE, 1.0)
    assert lean.get_trial(trial_id).state == TrialState.WAITING
    assert lean.get_trial(trial_id).values is None
    assert ledger.holds(trial_id)


def test_a_trial_is_ended_once_and_told_again_without_harm(
    lean: ResilientStorage, plain: RDBStorage, folder: Path
) -> None:
    stored = open_tiny(lean, folder)
    ledger = Coordinator(stored)
    trial_id = ledger.claim()
    assert isinstance(trial_id, int)
    assert ledger.finish(trial_id, TrialState.COMPLETE, 12.25)
    assert ledger.finish(trial_id, TrialState.COMPLETE, 12.25), "the first answer was lost"
    assert not ledger.finish(trial_id, TrialState.PRUNED, None)
    told = plain.get_trial(trial_id)
    assert (told.state, told.value) == (TrialState.COMPLETE, 12.25)
    assert told.datetime_complete is not None
    assert abs(datetime.now() - told.datetime_complete) < timedelta(minutes=5), "in local time"
    assert told.datetime_start is not None
    assert told.datetime_start <= told.datetime_complete


def test_tables_are_described_as_optuna_describes_them() -> None:
    models = importlib.import_module("optuna.storages._rdb.models")
    described = models.BaseModel.metadata.tables
    for table in tables.metadata.sorted_tables:
        for column in table.columns:
            other = described[table.name].columns[column.name]
            assert column.primary_key == other.primary_key
            assert column.type.python_type.__name__ == other.type.python_type.__name__
            if isinstance(column.type, sa.Enum):
                assert (column.type.name, column.type.enums) == (other.type.name, other.type.enums)
            assert {k.target_fullname for k in column.foreign_keys} == {
                k.target_fullname for k in other.foreign_keys
            }


def test_another_revision_with_the_same_columns_is_used_through_optuna(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SCHEMA", "v9.9.9.a")
    storage = connect(database)
    assert isinstance(storage.batching, NoBatching)
    study_id = optuna.create_study(storage=storage)._study_id
    assert content(storage.get_trial(a_trial(storage, study_id)))["values"] == [2 / 3]


def test_another_revision_with_other_columns_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(database).engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE trial_params RENAME COLUMN param_value TO other"))
    monkeypatch.setattr(tables, "SCHEMA", "v9.9.9.a")
    found = r"tables v9\.9\.9\.a, the installed Optuna has v.*, without trial_params\.param_value;"
    with pytest.raises(StorageError, match=found):
        connect(database)


# -- connections


def sessions(url: str) -> list[int]:
    query = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'searchae'"
    )
    with sa.create_engine(url, poolclass=sa.pool.NullPool).connect() as connection:
        return list(connection.execute(sa.text(query)).scalars())


def test_a_connection_that_idles_is_given_back(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connect(postgres_url)
    made.get_all_studies()
    made.dispose_idle_connections()
    assert len(sessions(postgres_url)) == 1, "not before it has idled for a while"
    monkeypatch.setattr(resilient, "IDLE_S", -1.0)
    made.dispose_idle_connections()
    assert sessions(postgres_url) == []
    assert made.get_all_studies() == []


def test_a_connection_that_died_in_a_pause_is_replaced_without_a_word(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = connect(postgres_url)
    made.get_all_studies()
    (session,) = sessions(postgres_url)
    admin = sa.create_engine(postgres_url, poolclass=sa.pool.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": session})
    monkeypatch.setattr(storage_engine, "PING_AFTER_S", -1.0)
    with caplog.at_level(logging.WARNING):
        assert made.get_all_studies() == []
    assert caplog.records == []


def test_a_study_deleted_and_made_again_is_found(
    lean: ResilientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchae.storage.changed_trials.REREAD_ROWS", 0)
    first = optuna.create_study(study_name="s", storage=lean)
    for _ in range(3):
        last = lean.create_new_trial(first._study_id)
    with lean.exclusive_trial(last):
        assert lean.get_study_id_from_name("s") == first._study_id
        assert len(lean.get_all_trials(first._study_id)) == 3
    lean.delete_study(first._study_id)
    again = optuna.create_study(study_name="s", storage=lean)
    mine = lean.get_trial(lean.create_new_trial(again._study_id))
    with lean.exclusive_trial(mine._trial_id):
        assert lean.get_study_id_from_name("s") == again._study_id
        assert [t.number for t in lean.get_all_trials(again._study_id)] == [0]
    with pytest.raises(StorageError):
        load_study(lean, "gone")
