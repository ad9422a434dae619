"""Where outputs go: through links and pipes, into any terminal, never out of the folders."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from searchae.config.study_names import LONGEST_NAME
from tests.conftest import RunCommand
from tests.forked_commands import run_command, start_command
from tests.reported_study import make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study."""
    folder = tmp_path_factory.mktemp("outputs")
    make_study(folder, 4)
    (database,) = folder.glob("*.db")
    database.rename(folder / "searchae.db")
    return folder


def report(folder: Path, *words: str) -> str:
    """Writes a report, or its table; returns what is said of a failure."""
    done = run_command("report", "-s", "s", *words, cwd=folder)
    assert done.returncode in (0, 2), done.stderr
    return str(done.stderr) if done.returncode else ""


# -- outputs


@pytest.mark.parametrize("option", ["--csv", "--out", "--parquet"])
def test_an_output_is_written_through_a_link(made: Path, tmp_path: Path, option: str) -> None:
    real, link, dangling = tmp_path / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "new")
    for path in (link, dangling):
        assert report(made, option, str(path)) == ""
        assert path.is_symlink()
    assert len(real.read_bytes()) > 100
    assert len((tmp_path / "new").read_bytes()) > 100


def test_an_output_is_written_into_a_pipe(made: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert report(made, "--csv", str(pipe)) == ""
    reader.join(timeout=20)
    assert read[0].startswith("number,state")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("words", [("studies",), ("status", "-s", "s"), ("best", "-s", "s")])
def test_a_standard_output_that_is_full_or_closed_is_no_traceback(
    made: Path, words: tuple[str, ...]
) -> None:
    how = {"cwd": made, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with Path("/dev/full").open("w") as full:
        process = start_command(*words, stdout=full, **how)
        _, said = process.communicate(timeout=120)
    assert said.splitlines()[-1] == "searchae: standard output: No space left on device"
    assert process.wait() == 2
    reads, writes = os.pipe()
    os.close(reads)
    process = start_command(*words, stdout=writes, **how)
    os.close(writes)
    _, said = process.communicate(timeout=120)
    assert process.wait() == 1
    for words_of_python in ("Traceback", "Exception ignored", "Errno"):
        assert words_of_python not in said


def test_an_output_is_written_to_a_terminal(made: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        assert report(made, "--csv", os.ttyname(theirs)) == ""
        assert os.read(ours, 100).startswith(b"number,state")
    finally:
        os.close(ours)
        os.close(theirs)


def test_standard_output_holds_the_output_and_nothing_else(made: Path, tmp_path: Path) -> None:
    """Also where it is a file that has other lines before and after it."""
    with (tmp_path / "all").open("w") as all_of_it:
        print("before", file=all_of_it, flush=True)
        words = ("report", "-s", "s", "--csv", "/dev/stdout")
        process = start_command(*words, cwd=made, stdout=all_of_it, stderr=subprocess.PIPE)
        assert process.wait(60) == 0
        print("after", file=all_of_it, flush=True)
    lines = (tmp_path / "all").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[1].startswith("number,state")
    assert len(lines) == 3 + 4


def test_an_existing_file_keeps_its_mode_and_its_other_names(made: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "trials.csv", tmp_path / "other.csv"
    path.touch()
    path.chmod(0o640)
    assert report(made, "--csv", str(path)) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    os.link(path, other)
    other.write_text("old")
    assert report(made, "--csv", str(path)) == ""
    assert other.read_text().startswith("number,state")


def test_a_read_only_file_is_not_replaced(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("kept")
    path.chmod(0o444)
    assert "it is read-only" in report(made, "--csv", str(path))
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "it is read-only" in report(made, "--csv", str(link))
    assert path.read_text() == "kept"
    assert "Is a directory" in report(made, "--csv", str(tmp_path))


def test_a_long_name_that_the_file_system_can_hold_is_written(made: Path, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    assert report(made, "--csv", str(path)) == ""
    assert path.exists()


# -- names


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../out", "it is a path"),
        ("..", "it is a path"),
        ("x/../../up", "it is a path"),
        ("{folder}/absolute", "it is a path"),
        (" ", "it is empty"),
        ("a\nb", "not shown"),
        ("\x1b[31mred", "not shown"),
        ("画" * LONGEST_NAME, f"longer than {LONGEST_NAME} bytes"),
    ],
)
def test_a_name_that_cannot_be_a_folder_is_refused_before_anything_is_made(
    searchae: RunCommand, folder: Path, name: str, why: str
) -> None:
    def there() -> list[Path]:  # beside it only names: other tests' processes may still end
        return sorted([*folder.parent.iterdir(), *folder.rglob("*")])

    before = there()
    done = searchae("tune", "-s", "tiny", "--name", name.format(folder=folder), "--workers", "1")
    assert done.returncode == 2
    assert "--name" in done.stderr
    assert why in done.stderr
    assert there() == before


def test_a_name_from_a_database_leads_nowhere(searchae: RunCommand, folder: Path) -> None:
    """An earlier version, or another program, took any name."""
    words = ("tune", "-s", "tiny", "--workers", "1", "--trials", "1")
    assert searchae(*words).returncode == 0
    with sqlite3.connect(folder / "searchae.db") as connection:
        connection.execute("UPDATE studies SET study_name = '../../up'")
        for key in ("folder", "identity"):
            connection.execute(
                "UPDATE study_user_attributes SET value_json = '\"../../up\"' WHERE key = ?",
                (f"searchae:{key}",),
            )
    out = folder / "inner" / "bundle"
    done = searchae("train", "-s", "../../up", "--epochs", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert not (folder.parent / "up").exists()
    assert not list(folder.parent.glob("up*"))
    assert not list(folder.glob("up*"))


# -- the terminal


@pytest.mark.fleet
def test_a_search_ends_well_in_an_encoding_that_lacks_its_name(
    new_process: RunCommand,
) -> None:
    words = ("tune", "-s", "tiny", "--name", "画2", "--workers", "1", "--trials", "1")
    done = new_process(*words, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert "study      \\u753b2" in done.stdout


EVIL = "\x1b[31m[bold]x\nline[/oops]\x07"


@pytest.mark.parametrize("command", ["studies", "status", "best", "report"])
def test_no_text_of_a_database_acts_on_a_terminal(made: Path, tmp_path: Path, command: str) -> None:
    connection = sqlite3.connect(tmp_path / "searchae.db")
    connection.executescript("\n".join(sqlite3.connect(made / "searchae.db").iterdump()))
    with connection:
        connection.execute("UPDATE studies SET study_name = ?", (EVIL,))
        connection.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, ?, ?)",
            ("searchae:outcome", json.dumps(EVIL)),
        )
    connection.close()
    words = {
        "studies": (),
        "report": ("-s", EVIL, "--csv", f"{EVIL[-4:]}.csv"),
    }.get(command, ("-s", EVIL))
    done = run_command(command, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x07" not in done.stdout + done.stderr
    escaped = {"studies": "\\x1b[31m", "status": "\\x1b[31m", "report": "ps]\\x07.csv", "best": ""}
    assert escaped[command] in done.stdout
    assert "\nline" not in done.stdout + done.stderr
    refused = run_command("status", "-s", EVIL + "y", cwd=tmp_path)
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


# -- a damaged study


def test_a_value_that_is_not_json_stops_its_own_study_only(made: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "searchae.db")
    connection.executescript("\n".join(sqlite3.connect(made / "searchae.db").iterdump()))
    with connection:
        connection.execute("INSERT INTO studies (study_id, study_name) VALUES (9, 'bad')")
        connection.execute(
            "INSERT INTO study_directions (direction, study_id, objective) "
            "VALUES ('MAXIMIZE', 9, 0)"
        )
        for table in ("study_user_attributes", "study_system_attributes"):
            connection.execute(
                f"INSERT INTO {table} (study_id, key, value_json) VALUES (9, 'searchae:spec', '{{')"
            )
    connection.close()
    for words in (("studies",), ("status", "-s", "s"), ("best", "-s", "s")):
        done = run_command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    bad = run_command("status", "-s", "bad", cwd=tmp_path)
    assert bad.returncode == 2
    assert "a value that is stored there is not JSON" in bad.stderr
    missing = run_command("status", "-s", "nosuch", cwd=tmp_path)
    assert "Valid: bad, s" in missing.stderr
