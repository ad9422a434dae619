"""What the dashboard tells of a study is what Optuna's own tells, read another way."""

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from optuna_dashboard import save_note
from optuna_dashboard._note import save_note_with_version

from searchae.dashboard.added_content import Overlay
from searchae.dashboard.server import ServerOptions, application
from searchae.dashboard.trial_details import BEST_CURVES, MOST_CURVES, StudyDetails, call_wsgi
from searchae.files import Backoff
from searchae.report.findings import collect_findings
from searchae.storage.connection import connect
from searchae.storage.reader_storage import ReaderStorage
from searchae.storage.resilient import ResilientStorage
from searchae.study.stored_study import load_study
from searchae.study.uploads import UPLOADS
from tests.dashboard_server import draw_picture, make_study

SPACE = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "width": IntDistribution(1, 64, log=True),
    "flag": CategoricalDistribution([True, False, None]),
    "name": CategoricalDistribution(["a", 'quoted "b"', "ü"]),
}
sqlite_only = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def storage(database: str) -> Iterator[ResilientStorage]:
    storage = connect(database, backoff=Backoff(limit_s=0.3))
    yield storage
    storage.engine.dispose()


def quick(storage: ResilientStorage) -> ReaderStorage:
    return ReaderStorage(storage)


def get(app: Any, path: str, query: str = "", method: str = "GET", **more: Any) -> Any:
    """Status and body of one request."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        **more,
    }
    return call_wsgi(app, environ)


def note(study: optuna.Study, number: int, body: str, version: int = 1) -> None:
    """A note on a trial that has ended, as the page saves it."""
    trial_id = study.trials[number]._trial_id
    save_note_with_version(study._storage, study._study_id, trial_id, version, body)


def everything(storage: ResilientStorage, folder: Path) -> optuna.Study:
    """A study with one of all that a trial may hold."""
    study = optuna.create_study(storage=storage, study_name="all", direction="maximize")
    study.set_metric_names(["psnr_db"])
    study.set_user_attr("about", {"n": [1, 2.5, None]})
    study.set_user_attr("trap", '"trials": [] "intermediate_values": [')
    params = {"rate": 3e-4, "width": 7, "flag": None, "name": 'quoted "b"'}
    for value in (20.5, math.inf, -math.inf, 1e-300):
        study.add_trial(
            create_trial(
                value=value,
                params=params,
                distributions=SPACE,
                intermediate_values={3: 1.5, 1: math.nan, 2: math.inf, 10: -math.inf, 4: -0.0},
                user_attrs={"text": 'a "quoted" text\nü', "list": [1, {"x": None}], "n": 3},
                system_attrs={"completed_rung_0": 1.5, "fixed_params": {"rate": 3e-4}},
            )
        )
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: 1.0}))
    study.enqueue_trial({"rate": 1e-3})
    study.ask(SPACE)
    running = study.ask(SPACE)
    running.report(2.0, 1)
    store = FileSystemArtifactStore(folder)
    (folder / "x.png").write_bytes(b"png")
    for owner in (study, running):
        upload_artifact(artifact_store=store, file_path=str(folder / "x.png"), study_or_trial=owner)
    save_note(study, "the study's")
    save_note(running, "a **long** note " * 300)
    for number in (1, 0):
        note(study, number, f"trial {number}")
    return study


def test_trials_are_read_as_optuna_reads_them(storage: ResilientStorage, tmp_path: Path) -> None:
    study = everything(storage, tmp_path)
    backend = connect(storage.engine.url)
    theirs = optuna.storages.RDBStorage.get_all_trials(backend.rdb, study._study_id)
    ours = quick(storage).get_all_trials(study._study_id)
    assert len(ours) == 8
    assert [repr(t) for t in ours] == [repr(t) for t in theirs]  # repr: NaN is not itself
    assert quick(storage).trial_ids(study._study_id) == {t.number: t._trial_id for t in theirs}
    pruned = quick(storage).get_all_trials(study._study_id, states=(TrialState.PRUNED,))
    assert [t.number for t in pruned] == [5]
    backend.engine.dispose()


def test_a_study_is_told_as_optuna_s_dashboard_tells_it(
    storage: ResilientStorage, tmp_path: Path
) -> None:
    study = everything(storage, tmp_path)
    inner = optuna_dashboard.wsgi(quick(storage), artifact_store=FileSystemArtifactStore(tmp_path))
    detail = StudyDetails(inner, quick(storage), Overlay(quick(storage), tmp_path))
    path = f"/api/studies/{study._study_id}"
    for query in ("", "after=0", "after=3", "after=8", "after=99", "after=-1", "after=x"):
        theirs, ours = get(inner, path, query), get(detail, path, query)
        assert ours[0] == theirs[0]
        assert (ours[0] == "200 OK") == (query not in ("after=-1", "after=x"))
        assert json.loads(ours[2]) == json.loads(theirs[2]), query
        assert dict(ours[1])["Content-Length"] == str(len(ours[2]))
    assert get(detail, path, method="HEAD")[2] == b""
    assert get(detail, "/api/studies/999")[0] == "404 Not Found"


def test_studies_are_read_as_optuna_reads_them(storage: ResilientStorage, tmp_path: Path) -> None:
    everything(storage, tmp_path)
    optuna.create_study(storage=storage, study_name="two", directions=["minimize", "maximize"])
    backend = connect(storage.engine.url)
    theirs = backend.backend.get_all_studies()
    ours = quick(storage).get_all_studies()
    fields = ("_study_id", "study_name", "directions", "user_attrs", "system_attrs")
    assert [[getattr(s, f) for f in fields] for s in ours] == [
        [getattr(s, f) for f in fields] for s in theirs
    ]
    for study in theirs:
        found = quick(storage).get_study_system_attrs(study._study_id)
        assert found == study.system_attrs
    with pytest.raises(KeyError):
        quick(storage).get_study_system_attrs(999)
    backend.engine.dispose()


def test_what_changes_is_told_anew(storage: ResilientStorage, tmp_path: Path) -> None:
    study = everything(storage, tmp_path)
    drawn = Overlay(quick(storage), tmp_path)
    detail = StudyDetails(optuna_dashboard.wsgi(quick(storage)), quick(storage), drawn)

    def told() -> dict[int, Any]:
        body = get(detail, f"/api/studies/{study._study_id}")[2]
        return {t["number"]: t for t in json.loads(body)["trials"]}

    before = told()
    running = next(n for n, t in before.items() if t["state"] == "Running")
    note(study, 0, "another", version=2)
    study.tell(running, 33.0)
    study.add_trial(create_trial(value=1.0))
    after = told()
    assert after[0]["note"]["body"] == "another"
    assert (after[running]["state"], after[running]["values"]) == ("Complete", [33.0])
    assert len(after) == len(before) + 1
    assert after[1] == before[1]


@sqlite_only
def test_a_finished_trial_is_read_once(storage: ResilientStorage, tmp_path: Path) -> None:
    study = everything(storage, tmp_path)
    looking = quick(storage)
    first = looking.get_all_trials(study._study_id)
    again = looking.get_all_trials(study._study_id)
    for old, new in zip(first, again, strict=True):
        assert (old is new) == old.state.is_finished()


@sqlite_only
def test_a_deleted_study_s_ids_used_again_show_the_new_trials(storage: ResilientStorage) -> None:
    """SQLite gives a deleted row's id to the next one."""
    looking = quick(storage)
    ids = []
    for value in (1.0, 2.0):
        study = optuna.create_study(storage=storage, study_name="same")
        study.add_trial(create_trial(value=value))
        (trial,) = looking.get_all_trials(study._study_id)
        ids.append((study._study_id, trial._trial_id))
        assert trial.value == value
        optuna.delete_study(study_name="same", storage=storage)
        with pytest.raises(KeyError):
            looking.get_all_trials(study._study_id)
    assert ids[0] == ids[1], "the case that this is about"


@sqlite_only
def test_a_large_study_s_curves_are_those_of_its_best(
    storage: ResilientStorage, tmp_path: Path
) -> None:
    count = MOST_CURVES + 1
    study = optuna.create_study(storage=storage, study_name="large", direction="maximize")
    for number in range(count):
        curve = {k: 15.0 + k + number % 7 for k in range(1, 6)}
        study.add_trial(create_trial(value=20.0 + number % 7, intermediate_values=curve))
    study.ask().report(1.0, 1)
    looking = quick(storage)
    detail = StudyDetails(optuna_dashboard.wsgi(looking), looking, Overlay(looking, tmp_path))
    told = json.loads(get(detail, f"/api/studies/{study._study_id}")[2])
    assert told["has_intermediate_values"] is False, "a browser would draw each"
    assert all(len(t["intermediate_values"]) == 5 for t in told["trials"][:count])
    (figure,) = told["plotly_graph_objects"]
    drawn = json.loads(figure["graph_object"])
    assert drawn["layout"]["title"]["text"] == (
        f"Intermediate values of the {BEST_CURVES} best of {count + 1} trials, and of 1 running"
    )
    values = {t["number"]: t.get("values", [0])[0] for t in told["trials"]}
    numbers = [int(line["name"].removeprefix("trial #")) for line in drawn["data"]]
    assert numbers[-1] == count
    best = max(values.values())
    assert {values[n] for n in numbers[:-1]} <= {best, best - 1}
    assert drawn["data"][0]["x"] == [1, 2, 3, 4, 5]


@sqlite_only
def test_notes_and_pictures_are_added_without_being_stored(database: str, tmp_path: Path) -> None:
    made = make_study(database, tmp_path, "told", note="")
    png = draw_picture(database, tmp_path, "told", 6, 26.0)
    draw_picture(database, tmp_path, "told", 5, 99.0)  # of an older study of that name
    storage = connect(database)
    app = application(storage, ServerOptions("127.0.0.1", 0, tmp_path))
    path = f"/api/studies/{made.study_id}"
    study = json.loads(get(app, path)[2])
    assert study["note"]["version"] == 0, "a person's first note is saved as version 1"
    assert "26.00 dB: trial 6 is the best so far" in study["note"]["body"]
    plots = {p["id"]: json.loads(p["graph_object"]) for p in study["plotly_graph_objects"]}
    assert {"searchae:history", "searchae:curves"} <= plots.keys()
    assert not [a for a in study["user_attrs"] if a["value"].startswith(("{", "["))], "no raw JSON"
    names = {line["name"] for line in plots["searchae:history"]["data"]}
    assert {"baseline", "pruned", "best"} <= names
    for trial in study["trials"]:
        assert f"--trial {trial['number']} " in trial["note"]["body"] or trial["number"] == 8
        files = [f["filename"] for f in trial["artifacts"]]
        drawn = ["curves.svg"] if trial["number"] < 8 else ["page.html"]
        assert files == (["reconstructions.png", "curves.svg"] if trial["number"] == 6 else drawn)
    best = study["trials"][6]
    where = f"/artifacts/{made.study_id}/{best['trial_id']}"
    assert get(app, f"{where}/reconstructions")[2] == png
    for name, kind in (("reconstructions", "image/png"), ("curves", "image/svg+xml")):
        status, headers, _ = get(app, f"{where}/{name}")
        assert (status, dict(headers)["Content-Type"]) == ("200 OK", kind)
        assert dict(headers)["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in dict(headers)["Content-Security-Policy"]
        assert get(app, f"{where}/{name}", method="DELETE")[0] == "403 Forbidden"
    for gone in (f"/artifacts/{made.study_id}/999", "/artifacts/999/1", f"{where}/../1"):
        assert get(app, f"{gone}/reconstructions")[0] == "404 Not Found"
        assert get(app, f"{gone}/curves")[0] == "404 Not Found"
    stored = storage.get_study_system_attrs(made.study_id)
    assert not [key for key in stored if key.startswith("dashboard:")]
    storage.engine.dispose()


@sqlite_only
def test_a_person_s_note_stands_until_it_is_emptied(database: str, tmp_path: Path) -> None:
    made = make_study(database, tmp_path, "told", note="")
    app = application(connect(database), ServerOptions("127.0.0.1", 0, tmp_path, writes=True))
    path = f"/api/studies/{made.study_id}"

    def said() -> tuple[dict[str, Any], dict[str, Any]]:
        study = json.loads(get(app, path)[2])
        return study["note"], study["trials"][1]["note"]

    ours = said()
    trial_id = json.loads(get(app, path)[2])["trials"][1]["trial_id"]
    for version, body in ((1, "by **hand**"), (2, "")):
        for place in (f"{path}/note", f"{path}/{trial_id}/note"):
            text = json.dumps({"version": version, "body": body}).encode()
            body_of: dict[str, Any] = {
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(text)),
                "wsgi.input": io.BytesIO(text),
            }
            status, _, answer = get(app, place, method="PUT", **body_of)
            assert (status, answer) == ("200 OK", b"{}"), "the page takes no body for a failure"
        bodies = [body or note["body"] for note in ours]
        assert said() == tuple({"version": version, "body": b} for b in bodies)


@sqlite_only
def test_answers_are_compressed_for_who_can_read_it(database: str, tmp_path: Path) -> None:
    made = make_study(database, tmp_path)
    app = application(connect(database), ServerOptions("127.0.0.1", 0, tmp_path))
    path = f"/api/studies/{made.study_id}"
    plain, packed = get(app, path), get(app, path, HTTP_ACCEPT_ENCODING="gzip, br")
    assert dict(packed[1])["Content-Encoding"] == "gzip"
    assert dict(packed[1])["Content-Length"] == str(len(packed[2]))
    assert gzip.decompress(packed[2]) == plain[2]
    assert len(packed[2]) < len(plain[2]) / 2


def test_an_outage_is_told_and_ends(
    storage: ResilientStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = everything(storage, tmp_path)
    app = application(storage, ServerOptions("127.0.0.1", 0, tmp_path))
    path = f"/api/studies/{study._study_id}"
    assert get(app, path)[0] == "200 OK"

    def gone(*_: Any) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("server closed the connection"))

    # Between the real engine and the real driver: what a database that restarts looks like.
    sa.event.listen(storage.engine, "before_cursor_execute", gone)
    started = datetime.now()
    for asked in (path, "/api/studies", f"/csv/{study._study_id}"):
        status, headers, body = get(app, asked)
        assert status == "503 Service Unavailable", asked
        assert dict(headers)["Retry-After"] == "10"
        assert json.loads(body)["reason"].startswith("the database is away")
    assert (datetime.now() - started).total_seconds() < 60
    assert get(app, "/dashboard")[0] == "200 OK", "the page itself needs no database"
    sa.event.remove(storage.engine, "before_cursor_execute", gone)
    assert get(app, path)[0] == "200 OK"
    assert UPLOADS not in {p.name for p in tmp_path.iterdir()}


@sqlite_only
def test_importances_are_those_of_the_report(database: str, tmp_path: Path) -> None:
    make_study(database, tmp_path, "told", trials=20, note="")
    storage = connect(database)
    app = application(storage, ServerOptions("127.0.0.1", 0, tmp_path))
    study_id = storage.get_study_id_from_name("told")
    told = json.loads(get(app, f"/api/studies/{study_id}/param_importances")[2])
    found = collect_findings(load_study(storage, "told"), artifacts=tmp_path).importances
    assert found.shares
    assert [{e["name"]: e["importance"] for e in told["param_importances"][0]}] == [found.shares]
    assert {e["distribution"] for e in told["param_importances"][0]} == {"FloatDistribution"}
    assert get(app, "/api/studies/99/param_importances")[0].startswith("404")


@sqlite_only
def test_reading_neither_waits_for_a_writer_nor_holds_one_up(storage: ResilientStorage) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    study.add_trial(create_trial(value=1.0))
    reader = quick(storage)
    with storage.engine.begin():  # with the write lock
        assert [s.study_name for s in reader.get_all_studies()] == ["s"]
        assert [t.value for t in reader.get_all_trials(study._study_id)] == [1.0]
        assert reader.trial_ids(study._study_id) == {0: 1}
