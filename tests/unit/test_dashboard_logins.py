"""Hashed passwords and the limit on wrong ones."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from searchae.dashboard import logins as logins_module
from searchae.dashboard.logins import Logins, PasswordHash, login_line
from searchae.errors import UserError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logins(clock: Clock) -> Logins:
    return Logins({"ann": PasswordHash.of("correct horse")}, clock=clock)


def test_a_hash_is_read_back_and_matches_its_password_only() -> None:
    made = PasswordHash.of("pässword: with a colon")
    read = PasswordHash.parse(str(made))
    assert read == made
    assert read.matches("pässword: with a colon")
    assert not read.matches("pässword")
    assert str(PasswordHash.of("same password")) != str(PasswordHash.of("same password")), (
        "the salt differs"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "md5$1$1$1$AA==$AA==",
        "scrypt$32768$8$3$AA==$AA==",
        "scrypt$1000$8$1$AAAA$" + "A" * 43 + "=",
        "scrypt$1073741824$8$1$AAAA$" + "A" * 43 + "=",
        "scrypt$1024$8$1000$AAAA$" + "A" * 43 + "=",
        "scrypt$-2$8$1$AAAA$" + "A" * 43 + "=",
        "scrypt$1024$8$1$!$" + "A" * 43 + "=",
    ],
)
def test_what_is_no_hash_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Logins.parse(f"ann:{text}", source="login.txt")
    assert "login.txt, line 1: no login" in str(caught.value)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("user", ["", "a:b", " ann", "#ann"])
def test_a_name_that_cannot_be_read_back_is_refused(user: str) -> None:
    with pytest.raises(UserError, match="a user's name"):
        login_line(user, "long enough")


def test_a_short_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="shorter than 8") as caught:
        login_line("ann", "short")
    assert "'short'" not in str(caught.value)


def test_right_and_wrong(logins: Logins) -> None:
    assert logins.check("ann", "correct horse", "a") is True
    assert logins.check("ann", "wrong", "a") is False
    assert logins.check("bob", "correct horse", "a") is False
    assert logins.check("", "", "a") is False


def test_wrong_logins_hold_up_their_address_for_a_minute(logins: Logins, clock: Clock) -> None:
    for _ in range(Logins.MAX_WRONG):
        assert logins.check("ann", "wrong", "a") is False
        clock.now += 1
    wait = logins.check("ann", "correct horse", "a")
    assert wait is not True
    assert 50 < wait <= 60
    assert logins.check("ann", "correct horse", "b") is True, "another address"
    assert logins.check("ann", "correct horse", "a") is True, "right once, right again"
    assert logins.check("ann", "wrong", "a") not in (True, False), "a guess still waits"
    clock.now += 61
    assert logins.check("ann", "wrong", "a") is False


def test_addresses_are_forgotten(logins: Logins, clock: Clock) -> None:
    for number in range(3):
        logins.check("ann", "wrong", f"address {number}")
    clock.now += 61
    logins.check("ann", "wrong", "another")
    assert set(logins._wrong) == {"another"}


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    file = tmp_path / "login.txt"
    file.write_text(login_line("ann", "correct horse"))
    file.chmod(0o600)
    logins = Logins.load(file)
    assert logins.check("ann", "correct horse", "1.2.3.4") is True
    file.write_text(f"# changed\n{login_line('ann', 'battery staple')}")
    assert logins.check("ann", "correct horse", "1.2.3.4") is False
    assert logins.check("ann", "battery staple", "1.2.3.4") is True


def test_a_file_that_is_broken_or_gone_leaves_the_logins_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "login.txt"
    file.write_text(login_line("ann", "correct horse"))
    logins = Logins.load(file)
    file.write_text("half a li")
    assert logins.check("ann", "correct horse", "1.2.3.4") is True
    assert "the logins read before stay" in caplog.text
    file.unlink()
    assert logins.check("ann", "correct horse", "1.2.3.4") is True


@pytest.mark.parametrize(("is_secret", "warned"), [(True, False), (False, True)])
def test_only_a_container_engine_may_let_others_read_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_secret: bool,
    warned: bool,
) -> None:
    file = tmp_path / "login"
    file.write_text(login_line("ann", "correct horse"))
    file.chmod(0o440)
    if is_secret:
        monkeypatch.setattr(logins_module, "SECRETS", f"{tmp_path}/")
    Logins.load(file)
    assert ("may be read by others" in caplog.text) is warned


def test_guesses_from_many_addresses_do_not_queue_up(logins: Logins) -> None:
    results: list[bool | float] = []
    guesses = [
        threading.Thread(
            target=lambda i=i: results.append(logins.check("ann", f"guess {i}", f"1.2.3.{i}"))
        )
        for i in range(12)
    ]
    for guess in guesses:
        guess.start()
    for guess in guesses:
        guess.join()
    assert results.count(1.0) >= 12 - 2 * Logins.MAX_WAITING, "told to come again"
    assert False in results
    assert logins.check("ann", "correct horse", "9.9.9.9") is True


def test_a_pipe_is_no_login_file(tmp_path: Path) -> None:
    """It could not be read again after a change of it."""
    os.mkfifo(tmp_path / "login")
    with pytest.raises(UserError, match=r"--login .*: it is a pipe or a device"):
        Logins.load(tmp_path / "login")
