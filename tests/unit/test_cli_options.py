"""What the commands have in common."""

from __future__ import annotations

import gc
import io
from pathlib import Path

import pytest

from searchae.cli import console
from searchae.cli.app import run
from searchae.cli.lazy_imports import importing
from searchae.cli.typed_options import has_password
from searchae.storage.connection import connect
from searchae.storage.url import masked_url


def test_imports_are_not_searched_for_garbage_and_what_runs_then_is() -> None:
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_imports_need_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stderr in (None, closed):
        monkeypatch.setattr("sys.stderr", stderr)
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled()


@pytest.mark.parametrize("stderr", [io.StringIO(), _Terminal()], ids=["file", "terminal"])
def test_who_waits_at_a_terminal_sees_that_it_loads(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stderr)
    with importing():
        during = stderr.getvalue()
    assert during == ("loading ..." if stderr.isatty() else "")
    blank = stderr.getvalue().removeprefix(during)
    assert blank.strip() == ""
    assert len(blank.strip("\r")) == len(during)  # all of the word is wiped


def test_a_collector_that_somebody_has_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_page_is_not_written_under_the_name_of_another_format(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([command, "-s", "tiny", "--out", "page.pdf"]) == 2
    assert "--out page.pdf: writes an HTML page: name it page.html" in capsys.readouterr().err
    assert run([command, "-s", "tiny", "--out", "page"]) == 2
    assert "there is no database" in capsys.readouterr().err, "the name was taken"


def test_tables_are_not_written_under_the_name_of_another_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (("--csv", "x.xlsx"), "--csv x.xlsx: writes a CSV file: name it x.csv"),
        (("--parquet", "x.csv"), "--parquet x.csv: writes a Parquet file: name it x.parquet"),
        (("--csv", "-"), "--csv -: for standard output write /dev/stdout"),
    ):
        assert run(["report", "-s", "tiny", *words]) == 2
        assert said in capsys.readouterr().err


def test_absurdly_many_threads_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("tune", "worker", "compare"):
        assert run([command, "-s", "tiny", "--threads", "100000"]) == 2
        assert "less than or equal to 1024" in capsys.readouterr().err


def test_a_file_of_images_in_the_place_of_a_study_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, name in (("x.npz", "npz"), ("x.csv.gz", "csv")):
        (tmp_path / file).touch()
        for named in (file, f"./{file}"):
            for command in (["data"], ["tune", "-s"]):
                assert run([*command, named]) == 2
                said = capsys.readouterr().err
                assert f'name = "{name}", path = "{named}"' in said
                assert f"`searchae init --images {named}` writes one" in said


def test_a_folder_of_images_in_the_place_of_a_study_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    for command in (["data", "my photos"], ["data", "./my photos"], ["tune", "-s", "./my photos"]):
        assert run(command) == 2
        assert "`searchae init --images './my photos'` writes one" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npz", "csv", "folder"])
def test_a_kind_of_images_in_the_place_of_a_data_set_says_what_to_write(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", kind, "--set", "data.path=x"]) == 2
    assert "`searchae init --images PATH` writes a study file" in capsys.readouterr().err


def test_a_search_that_has_not_begun_is_no_unknown_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCHAE_STORAGE", f"sqlite:///{tmp_path / 's.db'}")
    connect(f"sqlite:///{tmp_path / 's.db'}")
    assert run(["status", "-s", "quickstart"]) == 2
    assert "`searchae tune --study quickstart` begins it" in capsys.readouterr().err


def test_the_next_command_can_be_typed_where_the_storage_has_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEARCHAE_STORAGE", raising=False)
    shown = masked_url("postgresql://me:hunter2@db/studies")
    places = console.places_elsewhere(shown, Path("data"), Path("else where"))
    console.note_next("s", places, (), compared=["activation"])
    console.note_next_of_compare("s", places, ())
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("first: export SEARCHAE_STORAGE=URL ") for line in lines) == 2
    commands = [line for line in lines if "searchae " in line]
    assert len(commands) == 4
    for line in commands:
        assert "***" not in line
        assert "--artifacts 'else where'" in line
    monkeypatch.setenv("SEARCHAE_STORAGE", "postgresql://me:hunter2@db/studies")
    console.note_next("s", places, (), compared=[])
    assert "export" not in capsys.readouterr().err, "the shell has it already"
    without = console.places_elsewhere("postgresql://me@db/studies", Path("data"), Path("x"))
    console.note_next("s", without, (), compared=[])
    assert "--storage postgresql://me@db/studies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage", "has"),
    [
        ("postgresql://me:hunter2@db/studies", True),
        ("host=db user=me password=hunter2 dbname=studies", True),
        ("postgresql://me@db/studies", False),
        ("sqlite:///x.db", False),
        ("managed", False),
        ("managed:folder", False),
    ],
)
def test_a_storage_with_a_password_is_not_repeated(storage: str, has: bool) -> None:
    assert has_password(storage) == has
