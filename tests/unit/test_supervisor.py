"""Which jobs are started again, when, and which are given up; no process and no second passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchae.launch.base import Job
from searchae.launch.supervisor import STABLE_AFTER_S, Supervisor
from tests.fake_launcher import FakeLauncher

LOG = Path("unused.log")
ONE, TWO = (Job(name=name, argv=("worker",), log=LOG) for name in ("one", "two"))


class Scene:
    """A supervisor with two jobs, and the hand on its clock."""

    def __init__(self, *jobs: Job, max_failures: int = 5) -> None:
        self.now = 100.0
        self.launcher = FakeLauncher()
        self.supervisor = Supervisor(
            self.launcher, jobs, max_failures=max_failures, clock=lambda: self.now
        )
        self.supervisor.start()

    def poll(self, after_s: float = 0.0) -> bool:
        self.now += after_s
        return self.supervisor.poll()

    def die(self, code: int = -9, alive_s: float = 1.0) -> None:
        self.launcher.end("one", code, alive_s)

    @property
    def given_up(self) -> list[tuple[str, int]]:
        return [(e.job.name, e.code) for e in self.supervisor.given_up]


def test_starts_every_job_once_and_says_that_they_run() -> None:
    scene = Scene(ONE, TWO)
    assert scene.poll(10)
    assert scene.launcher.started == ["one", "two"]


def test_a_job_that_ended_well_is_not_started_again() -> None:
    scene = Scene(ONE, TWO)
    scene.launcher.end("one", 0)
    assert scene.poll(), "the other one runs"
    scene.launcher.end("two", 0)
    assert not scene.poll(1000)
    assert scene.launcher.started == ["one", "two"]
    assert scene.given_up == []


@pytest.mark.parametrize("code", [-9, -11, 137, 143])
def test_a_killed_job_is_started_again_after_a_pause(code: int) -> None:
    scene = Scene(ONE)
    scene.die(code)
    assert scene.poll(), "it will run again"
    assert scene.launcher.started == ["one"]
    assert scene.poll(0.49)
    assert scene.launcher.started == ["one"]
    assert scene.poll(0.02)
    assert scene.launcher.started == ["one", "one"]


@pytest.mark.parametrize("code", [1, 2, 127])
def test_a_job_that_left_by_itself_and_said_why_is_given_up(code: int) -> None:
    scene = Scene(ONE)
    scene.die(code)
    assert not scene.poll()
    assert not scene.poll(1000)
    assert scene.launcher.started == ["one"]
    assert scene.given_up == [("one", code)]


def test_pauses_double_up_to_half_a_minute() -> None:
    scene = Scene(ONE, max_failures=12)
    pauses = []
    for _ in range(10):
        scene.die()
        scene.poll()
        died, starts = scene.now, len(scene.launcher.started)
        while len(scene.launcher.started) == starts:
            scene.poll(0.25)
        pauses.append(scene.now - died)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_a_job_that_dies_again_and_again_is_given_up() -> None:
    scene = Scene(ONE, TWO, max_failures=3)
    for _ in range(3):
        scene.die()
        scene.poll()
        assert scene.poll(60), "the other one runs"
    assert scene.launcher.started == ["one", "two", "one", "one"]
    assert scene.given_up == [("one", -9)]


def test_a_long_life_is_forgiven_the_deaths_before() -> None:
    scene = Scene(ONE, max_failures=3)
    for alive_s in (1.0, 1.0, STABLE_AFTER_S + 1, 1.0):
        scene.die(alive_s=alive_s)
        scene.poll()
        scene.poll(60)
    assert scene.given_up == []
    scene.die()
    scene.poll()
    assert scene.given_up == [("one", -9)]


def test_nothing_runs_once_all_are_given_up() -> None:
    scene = Scene(ONE, TWO)
    scene.launcher.end("one", 2)
    scene.launcher.end("two", 1)
    assert not scene.poll()
    assert scene.given_up == [("one", 2), ("two", 1)]
