"""A study is renamed and deleted with its lists and files, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from searchae.errors import NoStudyError, StorageError, UserError
from searchae.storage import tables
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study.attributes import CREATING, FOLDER, SHARES_FOLDER
from searchae.study.coordination import Coordinator
from searchae.study.copying import StudyCopy
from searchae.study.gallery import gallery_folder, picture_owner, trials_with_picture
from searchae.study.leases import leases
from searchae.study.removal import plan_removal, removal_text
from searchae.study.renaming import rename_study
from searchae.study.results import result_db
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.study.training_list import find_training_list, open_training_list
from tests import dashboard_server
from tests.integration import finished_studies
from tests.reported_study import make_study
from tests.stored_trials import trials

pytestmark = pytest.mark.usefixtures("keeps_threads")


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    return make_study(tmp_path, 4)


def remove(storage: ResilientStorage, name: str, artifacts: Path) -> list[str]:
    """Deletes a study as the command does; returns what is left in folders."""
    left = []
    for removal in plan_removal(storage, name, artifacts):
        removal.delete_rows()
        left += removal.delete_files()
    return left


def list_of(stored: StoredStudy, data_hash: str = "") -> str:
    listed = open_training_list(
        stored, data=stored.spec.data, data_hash=data_hash or stored.data_hash, baseline_db=9.0
    )
    return listed.stored.name


def test_pictures_and_trials_go_along_with_the_new_name(tmp_path: Path) -> None:
    stored = finished_studies.search(tmp_path)
    before = stored.study.get_trials(deepcopy=False)
    list_of(stored)
    names = rename_study(stored.storage, "tiny", "mine")
    assert names == {"tiny": "mine", "tiny.trainings": "mine.trainings"}
    assert stored.storage.study_names() == ["mine", "mine.trainings"]

    renamed = load_study(connect(f"sqlite:///{tmp_path / 'searchae.db'}"), "mine")
    assert trials(f"sqlite:///{tmp_path / 'searchae.db'}", "mine") == before
    psnrs = {t.number: db for t in before if (db := result_db(t)) is not None}
    folder = gallery_folder(tmp_path / "artifacts", renamed.folder)
    assert trials_with_picture(folder, psnrs, owner=picture_owner(renamed)) == set(psnrs)
    assert psnrs
    listed = find_training_list(renamed)
    assert listed is not None
    assert listed.stored.folder == "tiny.trainings"


def test_both_databases_rename_all_lists_or_none(database: str, tmp_path: Path) -> None:
    storage = connect(database)
    made = make_study(tmp_path)
    stored, _ = open_study(storage, "s", spec=made.spec, data_hash="0" * 64, baseline_db=1.0)
    lists = [list_of(stored), list_of(stored, "f" * 64)]
    assert lists == ["s.trainings", "s.trainings-ffffffff"]
    open_study(storage, "t.trainings", spec=made.spec, data_hash="0" * 64, baseline_db=1.0)
    with pytest.raises(UserError, match=r"study 't\.trainings' exists"):
        rename_study(storage, "s", "t")
    assert storage.study_names() == ["s", *lists, "t.trainings"]
    rename_study(storage, "s", "u")
    assert storage.study_names() == [
        "t.trainings",
        "u",
        "u.trainings",
        "u.trainings-ffffffff",
    ]
    remove(storage, "u", tmp_path)
    assert storage.study_names() == ["t.trainings"]


def test_a_study_of_an_earlier_version_keeps_its_folder(stored: StoredStudy) -> None:
    with stored.storage.engine.begin() as connection:
        table = tables.study_attributes
        connection.execute(sa.delete(table).where(table.c.key == FOLDER))
    rename_study(stored.storage, "s", "t")
    assert load_study(stored.storage, "t").folder == "s"


def test_what_cannot_be_renamed_is_told_of(stored: StoredStudy) -> None:
    storage = stored.storage
    name = list_of(stored)
    with pytest.raises(UserError, match=r"NEW '\.\./x': it is a path"):
        rename_study(storage, "s", "../x")
    with pytest.raises(NoStudyError, match="'nothing' is not in"):
        rename_study(storage, "nothing", "x")
    with pytest.raises(UserError, match="renamed with that one"):
        rename_study(storage, name, "x")
    worker = Coordinator(stored)
    worker.join("cpu")
    with pytest.raises(UserError, match=r"1 worker alive .*searchae stop -s s` first"):
        rename_study(storage, "s", "x")
    worker.leave()
    assert storage.study_names() == ["s", name]


def test_a_study_is_deleted_with_its_own_files_only(stored: StoredStudy, tmp_path: Path) -> None:
    storage, artifacts = stored.storage, tmp_path / "artifacts"
    other = make_study(tmp_path, 2, name="other")
    stored.study.set_user_attr(FOLDER, "s")
    other.study.set_user_attr(FOLDER, "other")
    name = list_of(stored)
    for folder in ("s", name, "other"):
        for kind in ("checkpoints", "records", "logs"):
            (artifacts / folder / kind).mkdir(parents=True)
            (artifacts / folder / kind / "file").write_text("12345")
    (artifacts / "s" / "notes.txt").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (artifacts / "s" / "pictures").symlink_to(outside)
    Coordinator(stored).set_budget(9)
    Coordinator(stored).claim()

    planned = plan_removal(storage, "s", artifacts)
    assert [r.study.name for r in planned] == [name, "s"], "the study last: typed again it is found"
    assert "5 trials, 0.0 MB of files in" in removal_text(planned[1])
    assert remove(storage, "s", artifacts) == ["notes.txt", "pictures"]
    assert sorted(p.name for p in artifacts.iterdir()) == ["other", "s"]
    assert (outside / "file").read_text() == "mine"
    assert len(list((artifacts / "other").rglob("file"))) == 3
    assert storage.study_names() == ["other"]
    assert len(load_study(storage, "other").study.get_trials(deepcopy=False)) == 2
    with storage.engine.connect() as connection:
        assert connection.execute(sa.select(leases)).all() == []


def test_what_was_uploaded_to_a_study_is_copied_and_deleted_with_it(
    database: str, tmp_path: Path
) -> None:
    storage, artifacts, to = connect(database), tmp_path / "artifacts", tmp_path / "to"
    artifacts.mkdir()
    of_one = dashboard_server.make_study(database, artifacts, "one", trials=1).artifact_id
    of_two = dashboard_server.make_study(database, artifacts, "two", trials=1).artifact_id
    uploads = artifacts / "pictures"
    assert {p.name for p in uploads.iterdir()} == {of_one, of_two}

    copied = connect(f"sqlite:///{tmp_path / 'copy.db'}")
    StudyCopy(storage, copied, "one", artifacts, to).run()
    assert [p.name for p in (to / "pictures").iterdir()] == [of_one]
    assert (to / "pictures" / of_one).read_text() == (uploads / of_one).read_text()
    remove(storage, "one", artifacts)
    assert [p.name for p in uploads.iterdir()] == [of_two]


def test_files_that_a_copy_has_too_stay(stored: StoredStudy, tmp_path: Path) -> None:
    stored.study.set_user_attr(FOLDER, "s")
    stored.study.set_user_attr(SHARES_FOLDER, "sqlite:///other.db")
    (tmp_path / "s" / "pictures").mkdir(parents=True)
    (planned,) = plan_removal(stored.storage, "s", tmp_path)
    assert "stay: a copy of the study in sqlite:///other.db has the same" in removal_text(planned)
    assert remove(stored.storage, "s", tmp_path) == []
    assert (tmp_path / "s" / "pictures").is_dir()


def test_a_study_on_which_somebody_works_is_not_deleted(
    stored: StoredStudy, tmp_path: Path
) -> None:
    listed = find_training_list(stored) or open_training_list(
        stored, data=stored.spec.data, data_hash=stored.data_hash, baseline_db=9.0
    )
    listed.coordinator.join("cpu")
    with pytest.raises(UserError, match=r"'s\.trainings': 1 worker alive"):
        plan_removal(stored.storage, "s", tmp_path)
    listed.coordinator.leave()
    (_, planned) = plan_removal(stored.storage, "s", tmp_path)
    Coordinator(stored).join("cpu")  # after the question
    with pytest.raises(UserError, match="1 worker alive"):
        planned.delete_rows()


def test_a_damaged_or_half_made_study_can_be_deleted_and_no_other_program_s(
    stored: StoredStudy, tmp_path: Path
) -> None:
    storage = stored.storage
    with storage.engine.begin() as connection:
        table = tables.study_attributes
        connection.execute(sa.update(table).values(value_json="{no json"))
    directions = storage.get_study_directions(stored.id)
    half = storage.create_new_study(directions, "half")
    storage.set_study_user_attr(half, CREATING, True)
    storage.create_new_study(directions, "foreign")
    with pytest.raises(StorageError, match="made by another program"):
        plan_removal(storage, "foreign", tmp_path)
    for name in ("s", "half"):
        remove(storage, name, tmp_path)
    assert storage.study_names() == ["foreign"]
