"""Users and their hashed passwords, with constant-time checks and a limit on wrong logins."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from searchae.errors import UserError
from searchae.files import open_input
from searchae.storage import SECRETS

log = logging.getLogger(__name__)

# OWASP's recommendation for scrypt: 32 MiB and a fifth of a second for each check.
_N, _R, _P = 2**15, 8, 3
_FORMAT = "USER:scrypt$N$R$P$SALT$HASH, as `searchae dashboard --hash-password USER` prints it"


@dataclass(frozen=True)
class PasswordHash:
    """A password's scrypt hash, with its parameters (RFC 7914).

    Attributes:
        n: Cost, a power of two.
        r: Block size.
        p: Parallelization.
        salt: The salt.
        digest: The hash, 32 bytes.
    """

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hashes a password with a new random salt."""
        salt = secrets.token_bytes(16)
        return cls(_N, _R, _P, salt, _scrypt(password, _N, _R, _P, salt))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Reads ``scrypt$N$R$P$SALT$HASH``.

        Raises:
            ValueError: The text has another format, or checking it would take over 256 MiB.
        """
        scheme, n, r, p, salt, digest = text.split("$")
        parsed = cls(
            int(n),
            int(r),
            int(p),
            base64.b64decode(salt, validate=True),
            base64.b64decode(digest, validate=True),
        )
        power_of_two = parsed.n > 1 and parsed.n & (parsed.n - 1) == 0
        bounded = 1 <= parsed.r <= 32 and 1 <= parsed.p <= 16 and parsed.n * parsed.r <= 2**21
        if scheme != "scrypt" or not power_of_two or not bounded or len(parsed.digest) != 32:
            raise ValueError
        return parsed

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(b).decode() for b in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def matches(self, password: str) -> bool:
        """Whether this is the hash of ``password``."""
        digest = _scrypt(password, self.n, self.r, self.p, self.salt)
        return hmac.compare_digest(digest, self.digest)


def login_line(user: str, password: str) -> str:
    """Returns the line of a login file for a user: the name and the hashed password.

    Raises:
        UserError: The name is not valid, or the password is shorter than 8 characters.
    """
    if not user or ":" in user or user != user.strip() or user.startswith("#"):
        raise UserError(
            f"--hash-password {user!r}: a user's name is not empty, has no colon, no space at "
            "its ends and no # at its start"
        )
    if len(password) < 8:
        raise UserError("the password is shorter than 8 characters; take a longer one")
    return f"{user}:{PasswordHash.of(password)}"


class Logins:
    """The users that may log in, with a limit on wrong logins from each address.

    A correct login is remembered by a keyed digest, so that the many requests of one page cost
    one scrypt hash. A remembered login is accepted even while its address is blocked because of
    other users' mistakes.
    """

    MAX_WRONG, PERIOD_S = 5, 60.0
    """Wrong logins that are checked from one address within a period, and its seconds."""
    MAX_WAITING = 3
    """Requests that wait for a hash at once: a flood of guesses must not hold every thread of the
    server. Further ones are told to come again."""

    def __init__(
        self,
        hashes: dict[str, PasswordHash],
        *,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hashes = hashes
        self._file, self._seen = file, file and _version(file)
        self._clock = clock
        self._waiting = threading.BoundedSemaphore(self.MAX_WAITING)
        self._unknown_user = PasswordHash.of(secrets.token_urlsafe())
        self._key = secrets.token_bytes(32)
        self._correct: set[bytes] = set()
        self._wrong: dict[str, list[float]] = {}
        # One hash at a time: a flood of guesses uses one core and 32 MiB, not every core.
        self._hashing = threading.Lock()

    @classmethod
    def parse(cls, text: str, *, source: str) -> Logins:
        """Parses one user per line; empty lines and lines that start with # are skipped.

        Args:
            text: The lines, as ``login_line`` returns them.
            source: Where the text comes from, for error messages.

        Raises:
            UserError: A line is not valid, or there is none. The message does not repeat the line.
        """
        return cls(_parse(text, source=source))

    @classmethod
    def load(cls, path: Path) -> Logins:
        """Reads a login file, and again whenever it has changed.

        Logs a warning if other users may read it.

        Raises:
            UserError: The file cannot be read, or is not valid.
        """
        return cls(_read(path), file=path)

    def check(self, user: str, password: str, address: str) -> bool | float:
        """Checks a login.

        Args:
            user: The name given.
            password: The password given.
            address: The client's address.

        Returns:
            Whether the login is correct; or the seconds to wait, without a check, if there were
            too many wrong logins from the address.
        """
        self._reload()
        token = hmac.digest(self._key, f"{user}:{password}".encode(), "sha256")
        if token in self._correct:
            return True
        if not self._waiting.acquire(blocking=False):
            return 1.0
        try:
            return self._check_hash(user, password, address, token)
        finally:
            self._waiting.release()

    def _reload(self) -> None:
        """Reads the file again if it has changed; what it held before stays if it is not valid."""
        if self._file is None or (version := _version(self._file)) == self._seen:
            return
        self._seen = version
        try:
            self._hashes = _read(self._file)
        except UserError as e:
            log.warning("%s; the logins read before stay", e)
            return
        self._correct = set()  # their passwords may have changed

    def _check_hash(self, user: str, password: str, address: str, token: bytes) -> bool | float:
        with self._hashing:
            wait = self._blocked_for(address)
            if wait > 0:
                return wait
            known = self._hashes.get(user)
            # Hash for an unknown user too: the response time must not tell which users exist.
            if (known or self._unknown_user).matches(password) and known is not None:
                self._correct.add(token)
                self._wrong.pop(address, None)
                return True
            self._wrong.setdefault(address, []).append(self._clock())
        log.warning("a wrong login from %s", address)
        return False

    def _blocked_for(self, address: str) -> float:
        """Returns for how many seconds logins from the address are not checked; 0 if they are."""
        since = self._clock() - self.PERIOD_S
        self._wrong = {a: t for a, t in self._wrong.items() if t[-1] > since}
        recent = [t for t in self._wrong.get(address, ()) if t > since]
        return recent[-self.MAX_WRONG] - since if len(recent) >= self.MAX_WRONG else 0.0


def _version(file: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file is written or replaced; None if it cannot be looked at."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> dict[str, PasswordHash]:
    try:
        with open_input(path) as file:
            text = file.read().decode()
        others = os.stat(path).st_mode & 0o077
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "not a text file"
        made = "searchae dashboard --hash-password NAME > FILE"
        hint = f"; make one with: {made}" if isinstance(e, FileNotFoundError) else ""
        raise UserError(f"--login {path}: {why}{hint}") from None
    if others and not str(path).startswith(SECRETS):
        log.warning("%s may be read by others; mend it with: chmod 600 %s", path, path)
    return _parse(text, source=str(path))


def _parse(text: str, *, source: str) -> dict[str, PasswordHash]:
    hashes: dict[str, PasswordHash] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, hashed = line.strip().partition(":")
        try:
            if not user:
                raise ValueError
            hashes[user] = PasswordHash.parse(hashed)
        except (ValueError, binascii.Error):
            raise UserError(f"{source}, line {number}: no login; write {_FORMAT}") from None
    if not hashes:
        raise UserError(f"{source}: holds no login; write {_FORMAT}")
    return hashes


def _scrypt(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    needed = 128 * r * (n + p + 2)
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=needed + 2**20, dklen=32
    )
