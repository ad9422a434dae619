"""A study copied from database to database is the same study."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.errors import NoStudyError, UserError
from searchae.report.findings import collect_findings
from searchae.report.frame import write_csv
from searchae.storage import tables
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study.attributes import SHARES_FOLDER
from searchae.study.coordination import Coordinator
from searchae.study.copying import StudyCopy
from searchae.study.leases import leases
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import StoredStudy, load_study
from searchae.study.training_list import open_training_list
from tests.reported_study import add, make_study, make_trial

OF_TRIALS = (tables.params, tables.values, tables.reports)
ATTRIBUTES_OF_TRIALS = (tables.user_attributes, tables.system_attributes)
OF_STUDY = (tables.study_directions, tables.study_attributes, tables.study_system_attributes)
STRANGE = 'ünï "quoted" \U0001f600 \\u0000 {brace}'


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    """A study with what is hard to copy, and a list of its trainings."""
    stored = make_study(tmp_path, 6)
    for state in (TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL):
        add(stored, state)
    add(stored, outcome="diverged", error=STRANGE, value=-math.inf)
    strange = make_trial(stored.spec, random.Random(7))
    strange.values, strange.user_attrs[STRANGE] = [math.inf], [STRANGE, None, 1e-320]
    strange.system_attrs["of another program"] = {"a": [1, 2.5]}
    reported = (math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324, -0.0)
    strange.intermediate_values = dict(enumerate(reported, 1))
    stored.study.add_trial(strange)
    stored.storage.set_study_system_attr(stored.id, "dashboard:note_ver", 3)
    open_training_list(stored, data=stored.spec.data, data_hash="0" * 64, baseline_db=9.5)
    identity = ProcessIdentity("gone", host="far", pid=1, place="far away", process="1:1")
    coordinator = Coordinator(stored, identity)
    coordinator.set_budget(99)
    held = coordinator.claim()
    with stored.storage.engine.begin() as connection:
        connection.execute(sa.update(leases).values(losses=2, beat_at=17.125))
    assert isinstance(held, int)
    return stored


@pytest.fixture
def target(database: str, tmp_path: Path) -> Iterator[ResilientStorage]:
    url = database if database.startswith("postgresql") else f"sqlite:///{tmp_path / 'copy.db'}"
    storage = connect(url)
    yield storage
    storage.engine.dispose()


def content(storage: ResilientStorage) -> dict[str, Any]:
    """Everything that is stored of every study, without ids, in the stored order."""

    def rows(connection: sa.Connection, table: sa.Table, owner: str, which: int) -> list[Any]:
        shown = [c for c in table.columns if not c.primary_key and c.name != owner]
        query = sa.select(*shown).where(table.c[owner] == which).order_by(*table.primary_key)
        # By their text: 0.0 and -0.0 are equal, and differ.
        return [tuple(map(repr, row)) for row in connection.execute(query)]

    found: dict[str, Any] = {}
    with storage.engine.connect() as connection:
        for study_id, name in connection.execute(sa.select(tables.studies)).all():
            of_study = sa.select(tables.trials).where(tables.trials.c.study_id == study_id)
            heads = connection.execute(of_study.order_by(tables.trials.c.trial_id)).all()
            found[name] = {
                "study": {t.name: rows(connection, t, "study_id", study_id) for t in OF_STUDY},
                "trials": [
                    (
                        *(repr(value) for key, value in head._asdict().items() if "_id" not in key),
                        *(
                            rows(connection, t, "trial_id", head.trial_id)
                            for t in (*OF_TRIALS, *ATTRIBUTES_OF_TRIALS)
                        ),
                        [row[1:] for row in rows(connection, leases, "trial_id", head.trial_id)],
                    )
                    for head in heads
                ],
            }
            attributes = found[name]["study"]["study_user_attributes"]
            attributes[:] = sorted(row for row in attributes if SHARES_FOLDER not in row[0])
    return found


def test_nothing_changes_on_the_way_there_and_back(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    before = content(stored.storage)
    assert [len(before[name]["trials"]) for name in ("s", "s.trainings")] == [11, 0]
    back = connect(f"sqlite:///{tmp_path / 'back.db'}")
    (tmp_path / "x").mkdir()
    other = make_study(tmp_path / "x", 3, name="x")
    for source, to in ((other.storage, target), (stored.storage, target), (target, back)):
        name = "x" if source is other.storage else "s"
        done = list[tuple[int, int]]()

        def note(so_far: int, rows: int, done: list[tuple[int, int]] = done) -> None:
            done.append((so_far, rows))

        copied = StudyCopy(source, to, name, tmp_path, progress=note).run()
        assert done[-1][0] == done[-1][1] > 30
        assert [one.name for one in copied] == (["x"] if name == "x" else ["s", "s.trainings"])
    assert content(back) == before
    there = content(target)
    assert there.pop("x")
    assert there == before

    trials = load_study(back, "s").study.get_trials(deepcopy=False)
    for one, other_one in zip(trials, stored.study.get_trials(deepcopy=False), strict=True):
        assert repr(one.intermediate_values) == repr(other_one.intermediate_values)
        assert (one.params, one.distributions) == (other_one.params, other_one.distributions)
        assert (one.datetime_start, one.datetime_complete) == (
            other_one.datetime_start,
            other_one.datetime_complete,
        )


def test_the_tables_of_the_copy_are_the_same_to_the_byte(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    StudyCopy(stored.storage, target, "s", tmp_path).run()
    written = []
    for storage in (stored.storage, target):
        found = collect_findings(load_study(storage, "s"), artifacts=tmp_path)
        write_csv(tmp_path / "trials.csv", found.spec, found.runs)
        document = {k: v for k, v in found.document().items() if k != "storage"}
        written.append(((tmp_path / "trials.csv").read_bytes(), json.dumps(document, default=str)))
    assert written[0] == written[1]
    assert written[0][0].count(b"\n") == 12


def test_the_copy_is_worked_on_like_the_study(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    StudyCopy(stored.storage, target, "s", tmp_path).run()
    coordinator = Coordinator(load_study(target, "s"))
    assert coordinator.counts() == Coordinator(stored).counts()
    assert isinstance(coordinator.claim(), int)
    assert coordinator.stored.identity == stored.identity
    coordinator.stored.study.add_trial(make_trial(stored.spec, random.Random(1)))
    assert coordinator.stored.study.trials[-1].number == 11


def test_an_interrupted_copy_leaves_nothing_and_is_typed_again(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    folder = tmp_path / "artifacts" / stored.folder / "logs"
    folder.mkdir(parents=True)
    (folder / "worker-0.log").write_text("a line")

    def interrupt(done: int, rows: int) -> None:
        if done > rows / 2:
            raise KeyboardInterrupt

    to = tmp_path / "to"
    with pytest.raises(KeyboardInterrupt):
        StudyCopy(stored.storage, target, "s", tmp_path / "artifacts", to, interrupt).run()
    assert content(target) == {}
    with target.engine.connect() as connection:
        for table in (*OF_TRIALS, *ATTRIBUTES_OF_TRIALS, *OF_STUDY, tables.trials):
            assert not connection.execute(sa.select(table)).all()
    assert list(to.iterdir()) == []

    StudyCopy(stored.storage, target, "s", tmp_path / "artifacts", to).run()
    assert content(target).keys() == {"s", "s.trainings"}
    assert (to / stored.folder / "logs" / "worker-0.log").read_text() == "a line"
    assert load_study(target, "s").folder_shared_with == ""


def test_files_that_stay_are_known_to_be_of_both(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    StudyCopy(stored.storage, target, "s", tmp_path).run()
    for storage, other in ((stored.storage, target), (target, stored.storage)):
        for name in ("s", "s.trainings"):
            shared = load_study(storage, name).folder_shared_with
            assert str(other.engine.url.database) in shared


def test_files_go_to_a_folder_that_no_other_study_has(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    source, to = tmp_path / "artifacts" / stored.folder, tmp_path / "to"
    for kind in ("pictures", "records", "of-mine"):
        (source / kind).mkdir(parents=True)
        (source / kind / "1").write_text(kind)
    (source / "pictures" / "link").symlink_to(tmp_path / "searchae.db")
    (to / stored.folder).mkdir(parents=True)
    StudyCopy(stored.storage, target, "s", tmp_path / "artifacts", to).run()
    folder = load_study(target, "s").folder
    assert folder.startswith(f"{stored.folder}-")
    found = {str(p.relative_to(to / folder)) for p in (to / folder).rglob("*") if p.is_file()}
    assert found == {"pictures/1", "records/1"}, "no link, and nothing of somebody's own"


def test_what_cannot_be_copied_is_told_of(
    stored: StoredStudy, target: ResilientStorage, tmp_path: Path
) -> None:
    def copy(name: str) -> StudyCopy:
        return StudyCopy(stored.storage, target, name, tmp_path)

    with pytest.raises(NoStudyError, match="'nothing' is not in"):
        copy("nothing").run()
    with pytest.raises(UserError, match="it is copied with that one"):
        copy("s.trainings").run()
    worker = Coordinator(stored)
    worker.join("cpu")
    with pytest.raises(UserError, match=r"1 worker alive .*searchae stop -s s` first"):
        copy("s").run()
    assert content(target) == {}
    worker.leave()
    copy("s").run()
    before = content(target)
    with pytest.raises(UserError, match="study 's' exists in"):
        copy("s").run()
    assert content(target) == before
    assert load_study(target, "s").identity == stored.identity != ""
