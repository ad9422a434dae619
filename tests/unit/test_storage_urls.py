"""Database URLs and errors: what is refused, what is worth another try, what is never shown."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import quote

import optuna
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from searchae.errors import StorageError
from searchae.files import Backoff
from searchae.storage import connection, url
from searchae.storage.connection import connect
from searchae.storage.resilient import database_error_text, is_transient
from searchae.storage.tables import foreign_tables
from searchae.storage.url import masked_url, parse_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    "scheme",
    ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "POSTGRESQL"],
)
def test_postgresql_gets_the_driver_that_searchae_comes_with(scheme: str) -> None:
    url = parse_url(f"{scheme}://me:{SECRET}@db:5433/studies")
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.database, url.password) == ("db", 5433, "studies", SECRET)


def test_sqlite_is_taken_as_it_is() -> None:
    assert parse_url("sqlite:///some/searchae.db").database == "some/searchae.db"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("searchae.db", "not a database URL; write sqlite:///searchae.db or postgresql://"),
        (f"postgresql:/me:{SECRET}@db/x", "not a database URL"),
        (f"postgresql://me:{SECRET}@db:port/x", "the port as a number"),
        (f"mysql://me:{SECRET}@db/x", "mysql is not supported; use sqlite or postgresql"),
        (f"oracle+cx://me:{SECRET}@db/x", "oracle is not supported"),
        (f"mysql://me:p@{SECRET}@db/x", "mysql is not supported; use sqlite or postgresql"),
        (f"postgresql://me:{SECRET}@a:1,b:port/x", "the port as a number"),
        (f"postgresql://me:{SECRET}/a@[::1/x", "@ / : # ? % as %40"),
        ("sqlite:///~/x.db", f"~ is not the home folder in a URL; write sqlite:///{Path.home()}/x"),
        (f"host=db password={SECRET} port=x", "not a database URL"),
        (f"host=db password={SECRET} colour=red", "not a database URL"),
        (f"postgresql://me:p@{SECRET}@db/x", "more than one @"),
        (f"postgresql://me:p@s/{SECRET}#w%d:x@db:5433/x", "more than one @"),
        (f"postgres://me:{SECRET}@db/x?password=a@{SECRET}", "in the user's name, the password"),
        ("sqlite:x.db", "write sqlite:///x.db or"),
        ("~/x.db", f"write sqlite:///{Path.home()}/x.db or"),
        ("sqlite://", "in-memory SQLite; give it a file"),
        ("sqlite://x.db", "three slashes come before the file: sqlite:///x.db"),
        ("sqlite:///\udcff.db", "holds bytes that are no UTF-8"),
        ("sqlite:///a.db?mode=ro&uri=true", "mode, uri after the ?"),
        ("sqlite:////b/a.db?mode=ro", "no such option for sqlite; write sqlite:////b/a.db"),
        ("sqlite:///:memory:", "in-memory SQLite; give it a file"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(text: str, wanted: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_url(text)
    assert wanted in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None, "its text may hold the password"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@db/studies",
        f"postgresql://me@db/studies?password={SECRET}",
        f"postgresql://me@db/studies?sslmode=require&sslpassword={SECRET}&passfile={SECRET}",
        f"postgresql://me@db/studies?passwd={SECRET}&PWD={SECRET}&auth_token={SECRET}",
    ],
)
def test_a_masked_url_names_the_database_and_no_password(text: str) -> None:
    for shown in (masked_url(text), masked_url(parse_url(text))):
        assert SECRET not in shown
        assert "me" in shown
        assert "db/studies" in shown


@pytest.mark.parametrize(
    "text",
    [
        f"host=db port=5433 user=me password={SECRET} dbname=studies",
        f"postgresql://me@db:5433/studies?password={SECRET}",
        f"postgresql://me:{SECRET}@db:5433/studies",
    ],
)
def test_a_database_is_named_as_postgresql_s_clients_do(text: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, url.username, url.database) == ("db", 5433, "me", "studies")
    assert url.password == SECRET, "so that a password file does not replace it"
    again = parse_url(url.render_as_string(hide_password=False))
    assert again == url, "as workers get it"
    assert SECRET not in masked_url(text)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@one:1,two:2/studies",
        f"host=one,two port=1,2 user=me password={SECRET} dbname=studies",
    ],
)
def test_several_hosts_reach_the_driver(text: str) -> None:
    again = parse_url(parse_url(text).render_as_string(hide_password=False))
    _, arguments = again.get_dialect()().create_connect_args(again)
    assert (arguments["host"], arguments["port"]) == ("one,two", "1,2")
    assert arguments["password"] == SECRET


@pytest.mark.parametrize("sign", list("@/:#?%"))
def test_a_password_that_was_encoded_as_advised_is_read(sign: str) -> None:
    url = parse_url(f"postgresql://me:a{quote(sign, safe='')}b@db/studies")
    assert (url.password, url.host) == (f"a{sign}b", "db")


def test_masking_leaves_a_url_without_a_password_alone() -> None:
    assert masked_url("sqlite:///a/b.db") == "sqlite:///a/b.db"


# -- errors


def operational(text: str) -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception(text))


@pytest.mark.parametrize(
    "text",
    [
        "database is locked",
        "connection to server failed: Connection refused",
        "server closed the connection unexpectedly",
        "terminating connection due to administrator command",
        "the database system is starting up",
        "canceling statement due to lock timeout",
    ],
)
def test_what_goes_away_by_itself_is_worth_another_try(text: str) -> None:
    assert is_transient(operational(text))


@pytest.mark.parametrize(
    "text",
    [
        "database or disk is full",
        "attempt to write a readonly database",
        "unable to open database file",
        "no such table: trials",
        'FATAL:  password authentication failed for user "me"',
        'FATAL:  database "x" does not exist',
        "fe_sendauth: no password supplied",
        "database disk image is malformed",
    ],
)
def test_what_stays_wrong_is_not(text: str) -> None:
    assert not is_transient(operational(text))


def test_the_cause_decides_however_deep_it_lies() -> None:
    def wrapped(cause: Exception) -> Exception:
        outer = optuna.exceptions.StorageInternalError("An exception is raised")
        outer.__cause__ = cause
        return outer

    assert is_transient(wrapped(operational("database is locked")))
    assert is_transient(wrapped(wrapped(PoolTimeoutError())))
    assert not is_transient(wrapped(ValueError("no")))


def test_a_broken_connection_and_a_full_pool_are_worth_another_try() -> None:
    cut = DatabaseError("SELECT 1", {}, Exception("cut"), connection_invalidated=True)
    whole = DatabaseError("SELECT 1", {}, Exception("whole"))
    assert is_transient(cut)
    assert not is_transient(whole)
    assert is_transient(PoolTimeoutError())
    assert is_transient(InterfaceError("SELECT 1", {}, Exception("connection already closed")))


def test_mistakes_in_a_query_are_not() -> None:
    assert not is_transient(ProgrammingError("SELEC", {}, Exception("syntax error")))
    assert not is_transient(KeyError("study"))


def test_a_reason_is_one_line_of_the_driver_s_own_words() -> None:
    error = operational('connection failed:\n  FATAL: role "me" does not exist\n')
    said = 'connection failed: FATAL: role "me" does not exist; check the user in the URL'
    assert database_error_text(error) == said
    outer = optuna.exceptions.StorageInternalError("An exception is raised")
    outer.__cause__ = error
    assert database_error_text(outer) == database_error_text(error)
    assert database_error_text(ValueError("plain")) == "plain"


# -- opening


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(StorageError, match=f"the folder {absent} does not exist"):
        connect(f"sqlite:///{absent}/s.db")
    assert not absent.exists()


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match=f"the folder {tmp_path} cannot be written"):
        connect(f"sqlite:///{tmp_path}/s.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database " * 100)
    with pytest.raises(StorageError, match=r"notes\.txt: file is not a database"):
        connect(f"sqlite:///{file}")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder, not a regular file; name another file"):
        connect(f"sqlite:///{tmp_path}")


def test_tables_of_another_optuna_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    connect(f"sqlite:///{file}").engine.dispose()
    database = sqlite3.connect(file)
    database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    database.commit()
    database.close()
    with pytest.raises(StorageError, match=r"old\.db: its tables were made by another Optuna"):
        connect(f"sqlite:///{file}")


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("CREATE TABLE studies (id INT, name TEXT)", "studies, without study_id, study_name"),
        ("CREATE TABLE trials (trial_id INT, score REAL)", "trials, without number"),
        ("CREATE TABLE alembic_version (version_num TEXT)", "alembic_version"),
        ("CREATE TABLE version_info (version TEXT)", "version_info"),
        ("CREATE TABLE patients (id INT)", "patients"),
        ("CREATE VIEW studies AS SELECT 1 AS id", "studies, without study_id"),
    ],
)
@pytest.mark.parametrize("writes", [True, False])
def test_another_program_s_tables_are_refused_and_nothing_is_added(
    tmp_path: Path, made: str, named: str, *, writes: bool
) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute(made)
        database.commit()
        before = database.execute("SELECT sql FROM sqlite_master").fetchall()
        with pytest.raises(StorageError, match=rf"other\.db: holds another .*\({named}") as caught:
            connect(f"sqlite:///{file}", patient=True, writes=writes)
        assert "choose another file" in str(caught.value)
        assert database.execute("SELECT sql FROM sqlite_master").fetchall() == before


def test_optuna_s_own_tables_in_the_making_are_not_another_program_s(tmp_path: Path) -> None:
    """Optuna's dashboard may be making them, one by one, without searchae's lock."""
    file = tmp_path / "new.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE studies (study_id INT PRIMARY KEY, study_name TEXT)")
    engine = sa.create_engine(f"sqlite:///{file}")
    assert foreign_tables(engine) == ""
    engine.dispose()


def test_a_study_s_name_that_is_no_utf_8_is_simply_not_there(tmp_path: Path) -> None:
    storage = connect(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("b\udce4r")
    storage.engine.dispose()


def test_a_statement_that_does_not_fit_the_tables_is_not_repeated(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(sa.exc.OperationalError) as caught, engine.connect() as connection:
        connection.execute(sa.text("SELECT x FROM (SELECT 1 AS y)"))
    assert not is_transient(caught.value)
    engine.dispose()


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/studies"
    with pytest.raises(StorageError) as caught:
        connect(url)
    message = str(caught.value)
    assert message.startswith("postgresql+psycopg://me:***@127.0.0.1:1/studies: ")
    assert "refused" in message
    assert SECRET not in message
    assert caught.value.__cause__ is None


def test_a_patient_connection_waits_for_the_server() -> None:
    pauses: list[float] = []

    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        connect("postgresql://me@127.0.0.1:1/studies", backoff=Backoff(sleep=sleep), patient=True)


def test_a_database_that_is_not_there_is_told_also_to_the_patient(postgres: str) -> None:
    url = sa.make_url(postgres).set(database="absent")
    with pytest.raises(StorageError, match='database "absent" does not exist'):
        connect(url, backoff=Backoff(sleep=lambda _: pytest.fail("it waits")), patient=True)


def test_a_password_with_braces_and_signs_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna formats the URL as a template."""
    given: list[object] = []

    def refuse(*_arguments: object, **named: object) -> None:
        given.append(named.get("password"))
        raise psycopg.OperationalError("password authentication failed")

    monkeypatch.setattr(psycopg, "connect", refuse)
    monkeypatch.setattr(psycopg.Connection, "connect", refuse)
    monkeypatch.setattr(connection, "exclusive_lock", lambda *_, **_named: nullcontext())
    url = sa.make_url("postgresql+psycopg://me@db/x").set(password="p{schema}@/ {}%")
    with pytest.raises(StorageError, match="authentication failed"):
        connect(url)
    assert given == ["p{schema}@/ {}%"]


def test_a_network_file_system_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(url, "_file_system", lambda folder: "nfs4")
    with caplog.at_level(logging.WARNING):
        connect(f"sqlite:///{tmp_path}/s.db").engine.dispose()
    assert "network file system (nfs4)" in caplog.text
    assert "use PostgreSQL" in caplog.text


def test_the_nearest_mount_says_what_file_system_a_folder_lies_on() -> None:
    assert url._file_system(Path("/proc/self/fd")) == "proc"


def test_a_file_s_name_may_hold_braces(tmp_path: Path) -> None:
    """Optuna formats the URL as a template."""
    connect(f"sqlite:///{tmp_path}/a{{b}}.db").engine.dispose()
    assert (tmp_path / "a{b}.db").is_file()


def test_a_pipe_is_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.db")
    with pytest.raises(StorageError, match=r"x\.db: is a pipe or a device, not a regular file"):
        connect(f"sqlite:///{tmp_path / 'x.db'}")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("database disk image is malformed", "`sqlite3 FILE .recover`"),
        ("attempt to write a readonly database", "writable for yourself"),
        ("database or disk is full", "free some space"),
        ('FATAL: password authentication failed for user "me"', "check the user and the password"),
        ('FATAL: database "x" does not exist', "create it with createdb"),
        ("FATAL: sorry, too many clients already", "run fewer workers"),
        ("permission denied for schema public", "grant this user the right"),
    ],
)
def test_a_driver_s_words_are_followed_by_what_to_do(text: str, advice: str) -> None:
    said = database_error_text(operational(text))
    assert said.startswith(f"{text}; ")
    assert advice in said
