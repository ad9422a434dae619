"""Files that are replaced atomically and durably."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from searchae.files import atomic_file, disk, open_input, output_file, remove_unfinished


def test_an_atomic_file_appears_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["x"]


def test_an_interrupted_atomic_file_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")

    def interrupt() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


def test_content_and_rename_are_flushed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, list[str]]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append((is_folder, [p.name for p in tmp_path.iterdir() if p.suffix != ".part"]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(tmp_path / "x", b"whole")
    assert flushed == [(False, []), (True, ["x"])], "the folder after the rename"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_that_cannot_flush_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EIO:
        with pytest.raises(OSError, match="no"):
            write(tmp_path / "x", b"whole")
    else:
        write(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_files_have_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_file(path):
        (left,) = tmp_path.iterdir()
        kept = left.read_bytes()
    left.write_bytes(kept)
    other = tmp_path / ".y.12345678.part"
    other.touch()
    remove_unfinished(path)
    assert set(tmp_path.iterdir()) == {path, other}


def test_a_database_is_never_an_output(tmp_path: Path) -> None:
    path = tmp_path / "searchae.db"
    sqlite3.connect(path).execute("CREATE TABLE studies (id INTEGER)").connection.close()
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="it is a SQLite database"), output_file(path) as file:
        file.write(b"number,state")
    assert path.read_bytes() == before


def test_a_pipe_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe or a device, not a regular file"):
        open_input(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)
    (tmp_path / "x").write_bytes(b"whole")
    with open_input(tmp_path / "x") as file:
        assert file.read() == b"whole"


def test_a_pipe_that_nobody_reads_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "READER_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe that nobody reads"), output_file(tmp_path / "pipe"):
        pass


def test_whoever_reads_a_pipe_may_come_later_and_read_slowly(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe", bytes(1 << 20)  # more than a pipe holds
    os.mkfifo(pipe)

    def read_late() -> bytes:
        time.sleep(0.3)
        with pipe.open("rb") as file:
            time.sleep(0.3)
            return file.read()

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(read_late)
        try:
            with output_file(pipe) as file:
                file.write(content)
        except OSError:
            os.close(os.open(pipe, os.O_RDWR))  # the reader would wait for ever
            raise
        assert found.result() == content
