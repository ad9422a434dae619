"""Waiting for what is away for a while."""

from __future__ import annotations

import pytest

from searchae.files import Backoff


class AwayError(Exception):
    pass


def is_away(error: Exception) -> bool:
    return isinstance(error, AwayError)


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._failures, self._error = failures, error or AwayError()

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "here"


def test_calls_again_until_it_returns() -> None:
    pauses: list[float] = []
    flaky = Flaky(4)
    assert Backoff(sleep=pauses.append).call(flaky, again=is_away) == "here"
    assert (flaky.calls, len(pauses)) == (5, 4)


def test_a_first_success_does_not_wait() -> None:
    pauses: list[float] = []
    assert Backoff(sleep=pauses.append).call(Flaky(0), again=is_away) == "here"
    assert pauses == []


def test_pauses_double_up_to_the_longest_and_are_jittered() -> None:
    pauses: list[float] = []
    backoff = Backoff(first_s=1.0, longest_s=5.0, sleep=pauses.append)
    backoff.call(Flaky(200), again=is_away)
    bounds = [1.0, 2.0, 4.0] + [5.0] * 197
    assert all(b / 2 <= p <= b for p, b in zip(pauses, bounds, strict=True))
    assert len({round(p, 3) for p in pauses[3:]}) > 50, "a fleet must not come back in step"


def test_what_is_not_worth_another_try_is_raised_at_once() -> None:
    flaky = Flaky(1, ValueError("wrong password"))
    with pytest.raises(ValueError, match="wrong password"):
        Backoff(sleep=lambda _: pytest.fail("it waits")).call(flaky, again=is_away)
    assert flaky.calls == 1


def test_gives_up_with_the_last_error_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("searchae.files.backoff.time.monotonic", lambda: now[0])
    flaky = Flaky(10_000)
    with pytest.raises(AwayError):
        Backoff(first_s=1, longest_s=1, limit_s=10, sleep=sleep).call(flaky, again=is_away)
    assert 10 < now[0] <= 11
    assert 11 <= flaky.calls <= 23


def test_an_error_raised_by_the_sleep_ends_the_waiting() -> None:
    """A worker that is told to stop leaves from here."""

    class StoppedError(Exception):
        pass

    def sleep(_seconds: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        Backoff(sleep=sleep).call(Flaky(3), again=is_away)


def test_a_call_that_takes_longer_than_the_limit_is_made_again_where_that_is_asked_for() -> None:
    flaky = Flaky(9)
    backoff = Backoff(limit_s=-1.0, least_calls=3, sleep=lambda _: None)
    with pytest.raises(AwayError):
        backoff.call(flaky, again=is_away)
    assert flaky.calls == 3
