"""Who only looks at studies needs no right to write: on PostgreSQL a role that may only read."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from searchae.config.loader import spec_from_document
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import open_study
from tests.forked_commands import run_command
from tests.reported_study import DOCUMENT


def test_a_role_that_may_only_read_may_look(postgres_url: str, tmp_path: Path) -> None:
    storage = connect(postgres_url)
    spec = spec_from_document(DOCUMENT, source="test")
    stored, _ = open_study(storage, "s", spec=spec, data_hash="0" * 64, baseline_db=11.5)
    Coordinator(stored)
    with storage.engine.begin() as connection:
        for statement in (
            "DROP ROLE IF EXISTS looker",
            "CREATE ROLE looker LOGIN",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker",
            "ALTER ROLE looker SET default_transaction_read_only = on",
        ):
            connection.execute(sa.text(statement))
    url = sa.make_url(postgres_url).set(username="looker")
    environment = {
        **os.environ,
        "SEARCHAE_STORAGE": url.render_as_string(hide_password=False),
    }
    try:
        for words in (
            ("studies",),
            ("status", "-s", "s"),
            ("report", "-s", "s", "--csv", "trials.csv"),
        ):
            done = run_command(*words, cwd=tmp_path, env=environment)
            assert done.returncode == 0, done.stderr
    finally:
        with storage.engine.begin() as connection:
            connection.execute(sa.text("DROP OWNED BY looker"))
            connection.execute(sa.text("DROP ROLE looker"))
