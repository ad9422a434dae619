"""Who may look: users and hashed passwords, checked in constant time, wrong ones slowed down."""

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

log = logging.getLogger(__name__)

# 32 MiB and a fifth of a second a guess: OWASP's advice for scrypt.
_N, _R, _P = 2**15, 8, 3
_FORM = "USER:scrypt$N$R$P$SALT$HASH, as `searchae dashboard --hash-password USER` prints it"


@dataclass(frozen=True)
class Hash:
    """A password's scrypt hash with what it takes to make it again."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> Hash:
        """Hashes a new password with a new salt."""
        salt = secrets.token_bytes(16)
        return cls(_N, _R, _P, salt, _scrypt(password, _N, _R, _P, salt))

    @classmethod
    def parse(cls, text: str) -> Hash:
        """Reads ``scrypt$N$R$P$SALT$HASH``.

        Raises:
            ValueError: It has another form, or would take more than 256 MiB to check.
        """
        scheme, n, r, p, salt, digest = text.split("$")
        made = cls(
            int(n),
            int(r),
            int(p),
            base64.b64decode(salt, validate=True),
            base64.b64decode(digest, validate=True),
        )
        power_of_two = made.n > 1 and made.n & (made.n - 1) == 0
        bounded = 1 <= made.r <= 32 and 1 <= made.p <= 16 and made.n * made.r <= 2**21
        if scheme != "scrypt" or not power_of_two or not bounded or len(made.digest) != 32:
            raise ValueError
        return made

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(b).decode() for b in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def matches(self, password: str) -> bool:
        """Whether this is the password's hash."""
        made = _scrypt(password, self.n, self.r, self.p, self.salt)
        return hmac.compare_digest(made, self.digest)


def hashed_line(user: str, password: str) -> str:
    """The line that lets ``user`` in.

    Raises:
        UserError: The name or the password cannot be used.
    """
    if not user or ":" in user or user != user.strip() or user.startswith("#"):
        raise UserError(
            f"--hash-password {user!r}: a user's name is not empty, has no colon, no space at "
            "its ends and no # at its start"
        )
    if len(password) < 8:
        raise UserError("the password is shorter than 8 characters; take a longer one")
    return f"{user}:{Hash.of(password)}"


class Logins:
    """Who may log in, and how often they may be wrong.

    A login that was right once is remembered, by a keyed digest, so that a page's many requests
    cost one hash; it also passes while its address is held up for other people's mistakes.
    """

    WRONG, PERIOD_S = 5, 60.0
    """So many wrong logins in so many seconds are heard from one address."""

    def __init__(
        self, hashes: dict[str, Hash], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hashes = hashes
        self._clock = clock
        self._nobody = Hash.of(secrets.token_urlsafe())
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._wrong: dict[str, list[float]] = {}
        # One hash at a time: a flood of guesses takes one core and 32 MiB, not all of them.
        self._hashing = threading.Lock()

    @classmethod
    def parse(cls, text: str, *, source: str) -> Logins:
        """Reads a line a user; empty lines and those that start with # are skipped.

        Args:
            text: The lines.
            source: Where they stand, for errors.

        Raises:
            UserError: A line cannot be read, or there is none. It does not repeat the line.
        """
        hashes: dict[str, Hash] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            user, _, hashed = line.strip().partition(":")
            try:
                if not user:
                    raise ValueError
                hashes[user] = Hash.parse(hashed)
            except (ValueError, binascii.Error):
                raise UserError(f"{source}, line {number}: no login; write {_FORM}") from None
        if not hashes:
            raise UserError(f"{source}: holds no login; write {_FORM}")
        return cls(hashes)

    @classmethod
    def load(cls, path: Path) -> Logins:
        """Reads a file of logins; warns if others may read it.

        Raises:
            UserError: It cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
            others = os.stat(path).st_mode & 0o077
        except (OSError, UnicodeDecodeError) as e:
            why = e.strerror if isinstance(e, OSError) else "not a text file"
            raise UserError(f"--login {path}: {why}") from None
        if others:
            log.warning("%s may be read by others; mend it with: chmod 600 %s", path, path)
        return cls.parse(text, source=str(path))

    def check(self, user: str, password: str, address: str) -> bool | float:
        """Whether a login is right.

        Args:
            user: As typed.
            password: As typed.
            address: Where it comes from.

        Returns:
            True or False; or, too many from this address having been wrong, unheard, the
            seconds to wait.
        """
        mark = hmac.digest(self._key, f"{user}:{password}".encode(), "sha256")
        if mark in self._right:
            return True
        with self._hashing:
            wait = self._held_up(address)
            if wait > 0:
                return wait
            known = self._hashes.get(user)
            # An unknown user takes as long as a known one.
            if (known or self._nobody).matches(password) and known is not None:
                self._right.add(mark)
                self._wrong.pop(address, None)
                return True
            self._wrong.setdefault(address, []).append(self._clock())
        log.warning("a wrong login from %s", address)
        return False

    def _held_up(self, address: str) -> float:
        since = self._clock() - self.PERIOD_S
        self._wrong = {a: t for a, t in self._wrong.items() if t[-1] > since}
        recent = [t for t in self._wrong.get(address, ()) if t > since]
        return recent[-self.WRONG] - since if len(recent) >= self.WRONG else 0.0


def _scrypt(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    needed = 128 * r * (n + p + 2)
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=needed + 2**20, dklen=32
    )
