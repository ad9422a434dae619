"""Notices: what is told of, how often, and that a service that fails stops nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from searchae.errors import SearchaeError, StopAskedError, StudyStoppedError, UserError
from searchae.tuning import notices
from searchae.tuning.notices import Notices, NoticeWatcher, notifying
from tests.notice_service import Service
from tests.thread_launcher import Recorder
from tests.unit.test_cli_console import ROW, SUMMARY


@pytest.fixture
def service() -> Iterator[Service]:
    pytest.importorskip("apprise", reason="install apprise")
    made = Service()
    yield made
    made.close()


def summary(finished: int, best_db: float | None, **more: Any) -> Any:
    counts = replace(SUMMARY.counts, complete=finished, pruned=0, budget=100)
    best = None if best_db is None else replace(ROW, psnr_db=best_db)
    return replace(SUMMARY, counts=counts, best=best, **more)


def told(*steps: tuple[float, Any]) -> list[str]:
    """The titles of the notices, where a study is in these states at these times."""
    sent: list[str] = []
    now = 0.0
    watcher = NoticeWatcher(
        Recorder(), lambda title, _text: sent.append(title), "svhn", clock=lambda: now
    )
    for at, state in steps:
        now = at
        watcher.progress(state)
    return sent


def test_a_new_best_is_told_of_rarely_and_not_at_the_beginning() -> None:
    assert told(
        (0, summary(0, None)),
        (10, summary(5, 20.0)),
        (20, summary(9, 21.0)),
        (30, summary(10, 21.0)),  # the first after a tenth
        (40, summary(11, 22.0)),
        (50, summary(12, 23.0)),
        (629, summary(20, 24.0)),
        (631, summary(21, 24.0)),
        (9999, summary(22, 24.0)),
    ) == ["svhn: a new best, 21.00 dB", "svhn: a new best, 24.00 dB"]


def test_the_best_of_an_earlier_run_is_no_news() -> None:
    steps = [(0.0, summary(50, 24.0)), (1.0, summary(51, 24.0)), (2.0, summary(52, 24.5))]
    assert told(*steps) == ["svhn: a new best, 24.50 dB"]


def test_each_worker_that_left_for_good_is_told_of_once() -> None:
    one, two = "host a, pid 1: the disk is full", "host b, pid 2: no such device"
    states = [(), (one,), (one,), (one, two)]
    steps = [(float(i), summary(1, None, quarantined=q)) for i, q in enumerate(states)]
    assert told(*steps) == ["svhn: a worker left"] * 2


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (None, "svhn: tune has ended"),
        (StudyStoppedError("trial 7 met a bug:", "Traceback"), "svhn: tune was ended by a bug"),
        (StopAskedError("stopped by ann"), "svhn: tune was stopped"),
        (SearchaeError("every worker died"), "svhn: tune failed"),
        (ZeroDivisionError("of our own"), "svhn: tune was ended by a bug"),
    ],
)
def test_the_end_is_told_of(service: Service, error: Exception | None, title: str) -> None:
    shown = Recorder()

    def run() -> None:
        with notifying([service.url], "tune", "svhn", shown) as watcher:
            watcher.note("a line")
            watcher.progress(summary(30, 21.345))
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert shown.notes == ["a line"]
    (notice,) = service.received
    assert notice["title"] == title
    text = "30 of 100 trials" if error is None else str(error)
    assert text in notice["message"]


@pytest.mark.parametrize("error", [UserError("no such file"), KeyboardInterrupt()])
def test_who_sits_in_front_of_it_is_not_told(service: Service, error: BaseException) -> None:
    def run() -> None:
        with notifying([service.url], "tune", "svhn", Recorder()) as watcher:
            if isinstance(error, KeyboardInterrupt):
                watcher.progress(summary(30, 21.0))
            raise error

    with pytest.raises(type(error)):
        run()
    assert service.received == []


@pytest.mark.parametrize("kind", ["refuses", "is away"])
def test_a_service_that_fails_is_one_warning_without_its_url(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise", reason="install apprise")
    service = Service(status=500)
    if kind == "is away":
        service.close()
    with caplog.at_level(logging.DEBUG):
        sender = Notices([f"{service.url}?retry=0"])
        for number in range(3):
            sender.send(f"number {number}", "a text")
        sender.close()
    if kind == "refuses":
        assert len(service.received) == 3
        service.close()
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [
        "a notice could not be sent (JSON): check --notify or SEARCHAE_NOTIFY; the work goes on"
    ]
    assert "s3cret" not in caplog.text


def test_nothing_waits_for_a_slow_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise", reason="install apprise")
    monkeypatch.setattr(notices, "CLOSE_S", 0.5)
    service = Service(delay_s=3.0)
    sender = Notices([service.url])
    began = time.monotonic()
    sender.send("one", "a text")
    assert time.monotonic() - began < 1.0
    sender.close()
    assert "a notice was not sent within 0.5 s" in caplog.text
    service.close()


def test_a_url_that_is_none_is_refused_and_not_shown() -> None:
    pytest.importorskip("apprise", reason="install apprise")
    with pytest.raises(UserError, match=r"the 2\. URL is not one that apprise knows") as caught:
        Notices(["json://localhost", "s3cret"])
    assert "s3cret" not in str(caught.value)
