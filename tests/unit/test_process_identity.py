"""Detecting processes of this machine that have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchae.study.process_identity import ProcessIdentity, process_is_gone

ME = ProcessIdentity.of_this_process()


def process_of(pid: int) -> str:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{pid}:{fields[19]}"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_this_process_is_there() -> None:
    assert ME.pid == os.getpid()
    assert ME.process == process_of(os.getpid())
    assert not process_is_gone(ME.place, ME.process)


def test_each_identity_has_a_name_of_its_own_in_the_same_place() -> None:
    other = ProcessIdentity.of_this_process()
    assert other.worker != ME.worker
    assert (other.place, other.process) == (ME.place, ME.process)
    assert len(ME.worker) <= 64, "the width of the column"


def test_a_running_child_is_there_and_a_killed_one_gone(child: subprocess.Popen[bytes]) -> None:
    process = process_of(child.pid)
    assert not process_is_gone(ME.place, process)
    child.kill()
    child.wait()
    assert process_is_gone(ME.place, process)


def test_a_stopped_process_is_there(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert not process_is_gone(ME.place, process_of(child.pid))


def test_a_dead_process_that_nobody_has_waited_for_is_gone(
    child: subprocess.Popen[bytes],
) -> None:
    process = process_of(child.pid)
    child.kill()
    stat = Path(f"/proc/{child.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert process_is_gone(ME.place, process)


def test_an_id_that_came_round_again_is_another_process(child: subprocess.Popen[bytes]) -> None:
    pid, _, started = process_of(child.pid).partition(":")
    assert process_is_gone(ME.place, f"{pid}:{int(started) - 1}")


def test_of_another_machine_nothing_is_known(child: subprocess.Popen[bytes]) -> None:
    process = process_of(child.pid)
    child.kill()
    child.wait()
    assert not process_is_gone("elsewhere|boot|pid:[1]", process)
    assert not process_is_gone(None, process)
    assert not process_is_gone(ME.place, None)


def test_a_name_with_brackets_and_spaces_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            assert not process_is_gone(ME.place, f"{process.pid}:{fields[19]}")
        finally:
            process.kill()
