"""The data folder: paths are found, writers exclude each other, no half-written file stays."""

import errno
import fcntl
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from searchae.config.data_spec import DataSpec
from searchae.data.disk import (
    absolute_paths,
    disk_errors,
    exclusive_preparation,
    find_data_file,
    is_disk_error,
    moved_paths,
)
from searchae.errors import DataError


def silent(message: str) -> None: ...


def test_a_relative_path_is_looked_for_here_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = tmp_path / "here", tmp_path / "data"
    for folder in (here, data):
        folder.mkdir()
        (folder / "both").touch()
    (data / "one").touch()
    monkeypatch.chdir(here)
    assert find_data_file("both", data_dir=data, key="k") == here / "both"
    assert find_data_file("one", data_dir=data, key="k") == data / "one"


def test_an_absolute_path_and_a_home_path_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").touch()
    assert find_data_file(str(tmp_path / "x"), data_dir=Path("no"), key="k") == tmp_path / "x"
    assert find_data_file("~/x", data_dir=Path("no"), key="k") == tmp_path / "x"
    with pytest.raises(DataError, match=r"^k: '/no/y' was not found: nothing is at /no/y$"):
        find_data_file("/no/y", data_dir=tmp_path, key="k")
    monkeypatch.chdir(tmp_path)
    wanted = (
        f"at {tmp_path}/y.npz nor at {tmp_path}/data/y.npz. A relative path begins in the folder "
        "where the command is typed, in --data-dir"
    )
    with pytest.raises(DataError, match=wanted):
        find_data_file("y.npz", data_dir=Path("data"), key="k")


def test_a_study_s_paths_are_absolute_and_found_in_another_machine_s_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = tmp_path / "here", tmp_path / "there" / "data"
    (here / "photos" / "small").mkdir(parents=True)
    monkeypatch.chdir(here)
    typed = DataSpec(name="folder", path="photos/small")
    stored = absolute_paths(typed, data_dir=data)
    assert stored.path == str(here / "photos" / "small")
    assert absolute_paths(stored, data_dir=data) == moved_paths(stored, data_dir=data) == stored
    (here / "photos").rename(here / "other")
    assert moved_paths(stored, data_dir=data) == stored
    for moved in ("small", "photos/small"):
        (data / moved).mkdir(parents=True)
        assert moved_paths(stored, data_dir=data).path == str(data / moved)
    (data / "in.csv").touch()
    kept = DataSpec(name="csv", path="in.csv")
    assert absolute_paths(kept, data_dir=data) == kept, "machines have different data folders"
    none = DataSpec(name="svhn")
    assert absolute_paths(none, data_dir=data) == moved_paths(none, data_dir=data) == none


def test_a_relative_path_is_looked_for_beside_the_study_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data, study = (tmp_path / name for name in ("here", "data", "study"))
    for folder in (here, data, study):
        folder.mkdir()
    monkeypatch.chdir(here)
    typed = DataSpec(name="csv", path="in.csv")
    said: list[str] = []

    def taken() -> str | None:
        said.clear()
        found = absolute_paths(typed, data_dir=data, study_folder=study, progress=said.append)
        return found.path

    with pytest.raises(DataError, match=f"nothing is at {here}.* nor at {data}.* nor at {study}"):
        taken()
    (study / "in.csv").touch()
    assert (taken(), said) == (str(study / "in.csv"), [])
    (data / "in.csv").touch()
    assert taken() == "in.csv"
    assert said == [f"data.path: {data / 'in.csv'} is taken; in.csv is also at {study / 'in.csv'}"]
    (here / "in.csv").touch()
    assert taken() == str(here / "in.csv")
    assert f"also at {data / 'in.csv'} and {study / 'in.csv'}" in said[0]


def test_a_path_that_no_study_can_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b\udce4r").mkdir()
    with pytest.raises(DataError, match=r"data\.path: '.*b\\udce4r' holds bytes that are no UTF-8"):
        absolute_paths(DataSpec(name="folder", path="b\udce4r"), data_dir=tmp_path)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "permission denied; make it accessible"),
        (errno.EROFS, "read-only; choose another folder with --data-dir"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_disk_errors_say_what_to_do(code: int, advice: str) -> None:
    error = OSError(code, os.strerror(code))

    def fail() -> None:
        with disk_errors("cannot write", Path("/d")):
            raise error

    with pytest.raises(DataError, match=rf"cannot write /d: .*{advice}") as caught:
        fail()
    assert caught.value.__cause__ is error
    assert is_disk_error(error) == (code != errno.EIO)


def test_an_array_on_a_full_disk_is_no_riddle() -> None:
    with (
        pytest.raises(DataError, match="cannot write /dev/full: the disk is full; free some space"),
        disk_errors("cannot write", Path("/dev/full")),
    ):
        np.zeros(1 << 20).tofile("/dev/full")


def test_one_at_a_time_is_let_in_and_the_other_is_told(tmp_path: Path) -> None:
    inside = threading.Semaphore(1)
    overlaps: list[bool] = []
    said: list[str] = []

    def enter() -> None:
        with exclusive_preparation("x", data_dir=tmp_path / "d", progress=said.append) as held:
            overlaps.append(not (held and inside.acquire(blocking=False)))
            time.sleep(0.05)
            inside.release()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [False] * 4
    assert any("waiting for another process" in line for line in said)


def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        caplog.at_level(logging.WARNING),
        exclusive_preparation("x", data_dir=tmp_path, progress=silent) as held,
    ):
        assert not held
    assert "has no locks" in caplog.text


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / below
    entered = exclusive_preparation("x", data_dir=folder, progress=silent)
    with pytest.raises(DataError, match=r"cannot write to the data folder .*not a folder"):
        entered.__enter__()


@pytest.mark.parametrize("url", ["https://example.org/x.npz", "s3://x/y", "file:///tmp/x.npz"])
def test_a_url_is_no_path(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=f"k: '{url}' is a URL: fetch it"):
        find_data_file(url, data_dir=tmp_path, key="k")
