"""Files in object stores, through fsspec and the library of each store.

A store is used over a network by many workers, so each call may fail for a while: it is repeated
with pauses. What fails for longer is an ``OSError``, as on a disk.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any, TypeVar

from searchae.errors import install_text
from searchae.files.backoff import Backoff

T = TypeVar("T")

BRIEF_S = 20.0
"""Seconds that a call is repeated for, unless its caller is more patient: fewer than workers get to
leave when a search ends."""
PATIENT_S = 60.0
"""Seconds that are worth waiting where epochs would otherwise be trained again."""
_CHECK_S, _CHECK_CALLS = 5.0, 3
_LONGEST_REASON = 200

# By name, because the libraries need not be installed. A pause mends none of them.
_FINAL = frozenset(
    {
        "ConfigNotFound",
        "DefaultCredentialsError",
        "InvalidConfigError",
        "InvalidRegionError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ParamValidationError",
        "PermissionError",
        "ProfileNotFound",
    }
)


@dataclass(frozen=True)
class Library:
    """The library that reaches a kind of store.

    Attributes:
        module: What is imported.
        hint: How to install it.
        variables: Environment variables that hold credentials or say where the store is. Files that
            others name lie on one machine only.
        options: Arguments of the file system.
        writing: Arguments of its method ``pipe_file``.
    """

    module: str
    hint: str
    variables: frozenset[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    writing: Mapping[str, Any] = field(default_factory=dict)


_S3 = Library(
    "s3fs",
    install_text("s3"),
    frozenset(
        {
            "AWS_ACCESS_KEY_ID",
            "AWS_DEFAULT_REGION",
            "AWS_EC2_METADATA_DISABLED",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_S3",
            "AWS_REGION",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        }
    ),
    # Calls are repeated here: botocore would do it without saying so.
    {"config_kwargs": {"connect_timeout": 10, "retries": {"total_max_attempts": 1}}},
    # One request at any size that is read: a killed process leaves no parts of an upload.
    {"chunksize": 2**32},
)
_AZURE = Library(
    "adlfs",
    "pip install adlfs",
    frozenset(
        {
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_CLIENT_ID",
            "AZURE_STORAGE_CLIENT_SECRET",
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_TENANT_ID",
        }
    ),
)
LIBRARIES = {
    "abfs": _AZURE,
    "az": _AZURE,
    "gs": Library("gcsfs", "pip install gcsfs", frozenset({"GOOGLE_CLOUD_PROJECT"})),
    "s3": _S3,
}
"""The library of each kind of URL."""


class RemoteError(OSError):
    """An object store cannot be reached, or refuses something.

    Attributes:
        is_final: Whether the same call would fail again.
    """

    is_final = False


@dataclass(frozen=True, order=True)
class RemotePath:
    """A place in an object store, with the part of ``Path`` that artifacts need.

    Attributes:
        url: ``KIND://BUCKET/PREFIX``, without a secret and without a slash at its end.
    """

    url: str

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without what follows its last dot."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in."""
        return RemotePath(self.url.rpartition("/")[0])

    def resolve(self) -> RemotePath:
        """Returns itself: it is absolute."""
        return self

    @property
    def kind(self) -> str:
        """The part before ``://``."""
        return self.url.partition("://")[0]

    @property
    def key(self) -> str:
        """The part after ``://``, as fsspec names it."""
        return self.url.partition("://")[2]


@dataclass
class _Store:
    """One bucket, as this process reaches it.

    Attributes:
        library: Its library.
        files: fsspec's file system.
        is_away: Whether calls have been given up since the last one that was answered.
    """

    library: Library
    files: Any
    is_away: bool = False


def _store(path: RemotePath) -> _Store:
    """Returns the store of a path.

    Raises:
        RemoteError: Its library cannot be imported.
    """
    try:
        return _opened(path.kind, path.key.partition("/")[0], os.getpid())
    except ImportError as e:
        library = LIBRARIES[path.kind]
        error = _error(path, f"{library.module} cannot be imported ({e}); {library.hint}")
        error.is_final = True
        raise error from e


@cache
def _opened(kind: str, _bucket: str, _process: int) -> _Store:
    """Opens a store; a connection must not be used by two processes."""
    import fsspec

    library = LIBRARIES[kind]
    options = {"use_listings_cache": False, "skip_instance_cache": True, **library.options}
    return _Store(library, fsspec.filesystem(kind, **options))


@dataclass(frozen=True)
class RemoteFolder:
    """The files of a folder in an object store; the methods are those of ``SharedFolder``.

    Attributes:
        path: The folder, which exists if it has a file.
        patience_s: Seconds that a call is repeated for. If None, ``BRIEF_S``, and once only after
            another call was given up: then what does not matter much delays nothing.
        least_calls: How often a call is made, however long each takes.
    """

    path: RemotePath
    patience_s: float | None = None
    least_calls: int = 1

    def names(self) -> list[str]:
        """Returns the names in the folder, sorted; none if it does not exist.

        Raises:
            RemoteError: The store cannot be read.
        """
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of each file by its name; none if there is no folder.

        Raises:
            RemoteError: The store cannot be read.
        """
        try:
            found = self._call(self.path, lambda s: s.files.ls(self.path.key, detail=True))
        except FileNotFoundError:
            return {}
        files = (about for about in found if about["type"] == "file")
        return {about["name"].rpartition("/")[2]: int(about["size"]) for about in files}

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a new file that replaces another one as a whole when the block ends.

        Raises:
            OSError: The store cannot be written.
        """
        buffer = io.BytesIO()
        yield buffer
        content, path = buffer.getvalue(), self.path / name
        self._call(
            path, lambda store: store.files.pipe_file(path.key, content, **store.library.writing)
        )

    def reading(self, name: str, *, limit: int) -> IO[bytes]:
        """Reads a file.

        Args:
            name: Its name.
            limit: The largest size that is read, in bytes.

        Raises:
            FileNotFoundError: There is no such file.
            RemoteError: It cannot be read, or is larger.
        """
        path = self.path / name

        def read(store: _Store) -> bytes:
            size = int(store.files.info(path.key)["size"])
            if size > limit:
                error = _error(path, f"has {size} bytes, more than searchae writes ({limit})")
                error.is_final = True
                raise error
            content: bytes = store.files.cat_file(path.key)
            if len(content) != size:
                raise _error(path, f"{len(content)} of {size} bytes came")
            return content

        return io.BytesIO(self._call(path, read))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            RemoteError: It cannot be removed.
        """
        path = self.path / name
        with suppress(FileNotFoundError):
            self._call(path, lambda store: store.files.rm_file(path.key))

    def check(self) -> None:
        """Writes a file and removes it.

        Raises:
            OSError: That is not possible.
        """
        # The first call may take longer than all others: it loads the library's tables.
        brief = RemoteFolder(self.path, _CHECK_S, _CHECK_CALLS)
        name = f".check-{secrets.token_hex(8)}"
        with brief.writing(name):
            pass
        brief.remove(name)

    def _call(self, path: RemotePath, function: Callable[[_Store], T]) -> T:
        """Calls a function until the store answers.

        Raises:
            FileNotFoundError: The store says that there is no such file, or no such bucket.
            RemoteError: It was given up.
        """
        store, patience_s = _store(self.path), self.patience_s
        if patience_s is None:
            patience_s = 0.0 if store.is_away else BRIEF_S
        try:
            backoff = Backoff(
                limit_s=patience_s,
                least_calls=self.least_calls,
                name=f"{path.kind} store",
                level=logging.INFO,
            )
            found = backoff.call(
                lambda: _attempt(path, lambda: function(store)),
                again=lambda e: isinstance(e, RemoteError) and not e.is_final,
                explain=lambda e: str(getattr(e, "strerror", e)),
            )
        except RemoteError as e:
            store.is_away = not e.is_final
            raise
        except FileNotFoundError:
            store.is_away = False
            raise
        store.is_away = False
        return found


def _attempt(path: RemotePath, function: Callable[[], T]) -> T:
    """Calls a function; what its library raises becomes an ``OSError`` of one line."""
    try:
        return function()
    except RemoteError:
        raise
    except FileNotFoundError as e:
        text = "there is no such bucket" if "bucket" in str(e).lower() else "there is no such file"
        raise FileNotFoundError(errno.ENOENT, text, str(path)) from None
    except Exception as e:  # each library has errors of its own
        text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        error = _error(path, " ".join(text.split()) or type(e).__name__)
        error.is_final = type(e).__name__ in _FINAL
        raise error from e


def _error(path: RemotePath, reason: str) -> RemoteError:
    return RemoteError(errno.EIO, reason[:_LONGEST_REASON], str(path))


def library_of(path: object) -> str:
    """Returns the module that reaches an artifact folder; empty for one on a disk."""
    return LIBRARIES[path.kind].module if isinstance(path, RemotePath) else ""


def credentials(path: object, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that workers on other machines need to reach an artifact folder.

    Args:
        path: The artifact folder.
        environment: Variables of this process.
    """
    if not isinstance(path, RemotePath):
        return {}
    return {k: environment[k] for k in LIBRARIES[path.kind].variables if k in environment}
