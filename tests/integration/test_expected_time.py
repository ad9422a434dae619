"""How long a search is expected to take: one measurement, one calculation, whoever says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from searchae.launch import Fleet, LocalLauncher, Request
from searchae.training import EpochResult, Trainer
from searchae.tuning import duration
from searchae.tuning.duration import Duration, estimate_duration
from searchae.tuning.preflight import preflight
from tests.conftest import RunCommand

pytestmark = pytest.mark.usefixtures("keeps_threads")


class DisturbedTrainer(Trainer):
    """A trainer on a machine that does something else for ten seconds of every other epoch."""

    def epochs(self) -> Iterator[EpochResult]:
        for result in super().epochs():
            yield replace(result, seconds=result.seconds + 10 * (result.epoch % 2))


class TrainerByTheClock(Trainer):
    """A trainer whose every epoch takes a fifth of a second."""

    def epochs(self) -> Iterator[EpochResult]:
        return (replace(result, seconds=0.2) for result in super().epochs())


def test_the_dry_run_and_the_search_say_the_same(
    command_line: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "Trainer", TrainerByTheClock)
    words = ("tune", "-s", "tiny", "--device", "cpu", "--workers", "2")
    planned = command_line(*words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    (text,) = re.findall(r"^ {11}(.* for \d+ trials.*)$", planned.stdout, re.MULTILINE)
    told = command_line(*words)
    assert told.returncode == 0, told.stderr
    assert f"expected: {text}, by a training step measured now" in told.stderr


def test_what_else_the_machine_does_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(duration, "Trainer", DisturbedTrainer)
    storage = sa.make_url("sqlite:///none.db")
    request = Request(study="tiny", storage=storage, device="cpu", data_dir=Path("data"))
    prepared = preflight(request, LocalLauncher(), lambda _: None, dry_run=True)
    fleet: Fleet = prepared.fleet
    found: Duration | None = estimate_duration(prepared, prepared.spec, fleet, left=6)
    assert found is not None
    assert found.step_s < 1
