"""The password of the database from a file: where it serves, and who may read it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from searchae.storage.password_file import storage_url

SECRET = "hunter2"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "the password"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    monkeypatch.setenv("SEARCHAE_STORAGE_PASSWORD_FILE", str(path))
    return path


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@db:5433/studies",
        "postgres://me@db:5433/studies",
        "POSTGRES://me@db:5433/studies",
        "postgresql+psycopg://me@db:5433/studies",
        "postgresql+psycopg2://me@db:5433/studies",
        "postgresql+asyncpg://me@db:5433/studies",
        "postgresql://db:5433/studies?user=me",
        "postgresql:///studies?host=db&port=5433&user=me",
        "host=db port=5433 user=me dbname=studies",
        "user=me dbname=studies host=db port=5433",
    ],
)
def test_it_serves_every_way_to_name_the_database(text: str) -> None:
    url = storage_url(text)
    assert url.password == SECRET
    _, arguments = url.get_dialect()().create_connect_args(url)
    assert str(arguments["password"]) == SECRET
    assert (arguments["host"], arguments["user"], arguments["dbname"]) == ("db", "me", "studies")


@pytest.mark.usefixtures("file")
def test_a_password_in_the_url_comes_first_and_sqlite_needs_none() -> None:
    assert storage_url("postgresql://me:mine@db/studies").password == "mine"
    assert storage_url("postgresql://me@db/studies?password=mine").password == "mine"
    assert storage_url("sqlite:///x.db").password is None


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 1), (0o644, 1), (0o604, 1)])
def test_one_that_others_can_read_is_warned_of(
    file: Path, mode: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        storage_url("postgresql://me@db/studies")
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == warned
    for line in said:
        assert f"others can read {file}; type: chmod 600 '{file}'" in line
        assert SECRET not in line
