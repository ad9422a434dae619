"""The dashboard's first page: how far each study is, read without its trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from searchae.dashboard import home_page
from searchae.dashboard.server import ServerOptions, application
from searchae.files import Backoff
from searchae.storage.connection import connect
from searchae.storage.reader_storage import TrialReader
from searchae.storage.resilient import ResilientStorage
from searchae.study.overview import study_overviews
from tests.dashboard_server import make_study
from tests.integration.test_dashboard_reading import get, sqlite_only


@pytest.fixture
def storage(database: str) -> Iterator[ResilientStorage]:
    storage = connect(database, backoff=Backoff(limit_s=0.3))
    yield storage
    storage.engine.dispose()


@pytest.fixture
def app(storage: ResilientStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(home_page, "_SHORTEST_REREAD_S", 0.0)
    monkeypatch.setattr(home_page, "_REREAD_INTERVAL", 0)
    return application(storage, ServerOptions("localhost", 0, tmp_path, writes=True))


def progress(app: Any) -> dict[str, str]:
    status, _, body = get(app, home_page.PROGRESS_PATH)
    assert status == "200 OK", body
    found: dict[str, str] = json.loads(body)
    return found


def test_it_tells_how_far_each_study_is_and_goes_along(
    storage: ResilientStorage, app: Any, database: str, tmp_path: Path
) -> None:
    assert progress(app) == {}
    first = make_study(database, tmp_path, "first", trials=8)
    second = make_study(database, tmp_path, "second", trials=3)
    optuna.create_study(storage=storage, study_name="another program's")
    assert progress(app) == {
        f"{first.study_id}. first": "8 of 100 trials, 1 running, best 26.00 dB",
        f"{second.study_id}. second": "3 of 100 trials, 1 running, best 22.00 dB",
    }
    assert get(app, f"/api/studies/{first.study_id}", method="DELETE")[0].startswith("2")
    assert list(progress(app)) == [f"{second.study_id}. second"]
    storage.set_trial_state_values(second.best_id, optuna.trial.TrialState.COMPLETE, [30.5])
    assert list(progress(app).values()) == ["4 of 100 trials, best 30.50 dB"]


@sqlite_only
def test_a_study_that_is_deleted_while_it_is_read_hides_no_other(
    storage: ResilientStorage, database: str, tmp_path: Path
) -> None:
    make_study(database, tmp_path, "gone")
    make_study(database, tmp_path, "kept")

    class DeletedMeanwhile(ResilientStorage):
        def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
            if study_id == 1:
                self.delete_study(1)
            return super().get_study_user_attrs(study_id)

    read = DeletedMeanwhile(
        storage.backend, storage.rdb, batching=storage.batching, backoff=storage.backoff
    )
    gone, kept = study_overviews(read)
    assert gone.fault == "it has just been deleted"
    assert kept.text.startswith("8 of 100 trials")


@sqlite_only
def test_no_trial_is_read_for_it(
    storage: ResilientStorage,
    app: Any,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_study(database, tmp_path, "large")

    def fail(self: TrialReader, study_id: int) -> Any:
        raise AssertionError("20,000 trials take seconds")

    monkeypatch.setattr(TrialReader, "trials", fail)
    assert list(progress(app).values()) == ["8 of 100 trials, 1 running, best 26.00 dB"]
    assert get(app, "/api/studies")[0] == "200 OK"


@sqlite_only
def test_the_pages_load_the_script_and_nothing_else_changes(app: Any) -> None:
    page = get(app, "/dashboard")[2]
    tag = f'<script defer src="{home_page.SCRIPT_PATH}"></script></head>'.encode()
    assert page.count(tag) == 1
    assert get(app, "/dashboard/studies/1")[2] == page
    # A copy from before is not taken for this page.
    later = {"HTTP_IF_MODIFIED_SINCE": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert get(app, "/dashboard", **later)[2] == page
    status, headers, body = get(app, "/dashboard", method="HEAD")
    assert (status, dict(headers)["Content-Length"], body) == ("200 OK", str(len(page)), b"")
    kind = dict(get(app, home_page.SCRIPT_PATH)[1])["Content-Type"]
    assert kind == "text/javascript"
    plain = {"HTTP_ACCEPT_ENCODING": "identity"}
    assert get(app, "/static/bundle.js", **plain)[2].startswith(b"/*! For license")


@sqlite_only
def test_the_list_has_no_attributes_that_hold_json(
    storage: ResilientStorage, app: Any, database: str, tmp_path: Path
) -> None:
    """The page of a study shows those of the list, if it came from there."""
    make_study(database, tmp_path, "told")
    stored = optuna.load_study(study_name="told", storage=storage)
    stored.set_user_attr("about", {"by": "a person"})
    (study,) = json.loads(get(app, "/api/studies")[2])["study_summaries"]
    keys = {a["key"] for a in study["user_attrs"]}
    assert {"searchae:baseline_db", "about"} <= keys
    assert not keys & {"searchae:spec", "searchae:versions"}
