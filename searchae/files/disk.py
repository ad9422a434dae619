"""Files: atomic and durable writes, a user's outputs, and files in folders that others can write.

Three kinds of paths are treated differently. A file of searchae's own is replaced as a whole
(``atomic_file``). An output that the user names is written where the path leads, through links and
into pipes and devices (``output_file``). In a folder that other users may be able to write, no link
is followed, and nothing is believed to be searchae's that is not a regular file (``SharedFolder``).
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

_NO_FOLDER_SYNC = frozenset(
    {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DATABASE = b"SQLite format 3\0"
# Without O_NONBLOCK, opening a pipe would wait for its other end.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST_TEMPORARY = 200  # bytes of a file's name in that of its temporary file, which is longer


NO_REGULAR_FILE = "it is a pipe or a device, not a regular file"
READER_S = 5.0
"""Seconds in which somebody has to begin to read a pipe that is an output."""
_LOOK_S = 0.05


class UnsafeFileError(OSError):
    """Something in a shared folder is not what searchae puts there, and is not opened."""


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file that replaces ``path`` when the block ends without an error.

    The content goes to a temporary file in the same folder, which is then renamed. Content and
    rename are flushed to the disk, so that after a crash or a power cut ``path`` is the old file
    or the complete new one. A link is replaced, not followed.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: The file cannot be created, written, renamed or flushed. The temporary file is
            removed, also where the block raises anything else.
    """
    with _replacing(path) as file:
        yield file
    _sync_folder(path.parent)


@contextmanager
def _replacing(
    path: Path, *, folder: int | None = None, mode: int | None = None
) -> Iterator[IO[bytes]]:
    """Opens a temporary file that is renamed to ``path`` at the end of the block.

    Args:
        path: The file; a name in ``folder`` if that is given.
        folder: Descriptor of a folder.
        mode: Permissions of the file; those that the umask leaves if unset.
    """
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_TEMPORARY])
    temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.part")

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=folder)

    try:
        with open(temporary, "xb", opener=opener) as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's entries; without it a rename may be lost in a power cut.

    A folder that cannot be read and a file system that cannot flush one are no errors: the file
    is complete and in its place by then.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as e:
        if e.errno not in _NO_FOLDER_SYNC:
            raise


def remove_unfinished(path: Path) -> None:
    """Removes the temporary files that killed processes left of ``atomic_file(path)``.

    Call it only while no other process writes ``path``: it would lose its temporary file.
    """
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink(missing_ok=True)


def open_input(path: Path) -> IO[bytes]:
    """Opens a file that the user named, for reading; a pipe is refused instead of waited for.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, NO_REGULAR_FILE, str(path))


@contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens an output that the user named; ``path`` gets its content at the end of the block.

    A new file has the mode that the umask leaves. An existing one keeps its mode and is replaced as
    a whole, by ``atomic_file``'s rules, where nobody could tell. Elsewhere the content is written
    straight into what the path leads to: links, files with several names or of another owner, files
    in a folder that cannot be written, pipes, devices, and what standard output leads to.

    Args:
        path: The output; its folder must exist.

    Yields:
        A file open for writing, which can be sought. If the block raises, the output is unchanged.

    Raises:
        OSError: The output is a folder, is read-only, cannot be written, or is a pipe that nobody
            reads.
    """
    try:
        about = path.stat()
    except FileNotFoundError:
        about = None
    if about is not None:
        _check_writable(path, about)
    if about is None and not path.is_symlink():
        with atomic_file(path) as file:
            yield file
    elif about is not None and _can_be_replaced(path, about):
        with _replacing(path, mode=stat.S_IMODE(about.st_mode)) as file:
            yield file
        _sync_folder(path.parent)
    else:
        content = io.BytesIO()
        yield content
        with _straight(path) as file:
            file.write(content.getbuffer())


def _begins_with(path: Path, content: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(content)) == content
    except OSError:  # what cannot be read is checked for the right to write
        return False


def _check_writable(path: Path, about: os.stat_result) -> None:
    """Refuses what must not be written, also for root, who could."""
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISREG(about.st_mode) and about.st_size and _begins_with(path, _DATABASE):
        raise FileExistsError(errno.EEXIST, "it is a SQLite database", str(path))
    read_only = stat.S_ISREG(about.st_mode) and not about.st_mode & 0o222
    if read_only or not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only", str(path))


def _can_be_replaced(path: Path, about: os.stat_result) -> bool:
    """Whether a new file under the same name differs from the old one by its content only."""
    return (
        stat.S_ISREG(about.st_mode)
        and not path.is_symlink()
        and about.st_nlink == 1
        and about.st_uid == os.geteuid()
        and os.access(path.parent, os.W_OK)
        and not is_standard_output(path)
    )


def is_standard_output(path: Path) -> bool:
    """Whether a path leads to what this process has as its standard output."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # it does not exist, or standard output is closed
        return False


def _straight(path: Path) -> IO[bytes]:
    """Opens what a path leads to; standard output where it stands, with what is in it."""
    if is_standard_output(path):
        sys.stdout.flush()
        return open(os.dup(1), "wb")
    if path.is_fifo():
        return _pipe(path)
    return open(path, "wb")


def _pipe(path: Path) -> IO[bytes]:
    """Opens a pipe for writing; whoever reads it may come a little later."""
    # Looks are counted, not seconds: after a pause of the machine a reader still has its time.
    left = round(READER_S / _LOOK_S)
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            if left <= 0:
                raise OSError(e.errno, "it is a pipe that nobody reads", str(path)) from None
            left -= 1
            time.sleep(_LOOK_S)
        else:
            os.set_blocking(descriptor, True)
            return open(descriptor, "wb")


@dataclass(frozen=True)
class SharedFolder:
    """A folder that other users may be able to write: ``ROOT/STUDY/KIND``.

    The user names ROOT, which may be a link. Below it no link is followed: whoever can write there
    could lead a write, a read or a removal to any other file of the user's.

    Attributes:
        path: The folder, which need not exist.
        depth: How many folders it is below ROOT.
    """

    path: Path
    depth: int = 2

    def names(self) -> list[str]:
        """Returns the names in the folder, sorted; none if it does not exist.

        Raises:
            UnsafeFileError: A link leads to it.
            OSError: It cannot be read.
        """
        try:
            with self._opened() as folder:
                return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of each regular file by its name; none if there is no folder.

        Raises:
            UnsafeFileError: A link leads to it.
            OSError: It cannot be read.
        """
        found = {}
        with suppress(FileNotFoundError), self._opened() as folder:
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):  # removed meanwhile
                    about = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode):
                        found[name] = about.st_size
        return found

    def make_private(self) -> None:
        """Creates the folder for the user alone, or takes the rights on it from all others.

        Raises:
            UnsafeFileError: A link leads to it, or it is somebody else's.
            OSError: It cannot be created.
        """
        with self._opened(create=True, mode=0o700) as folder:
            if os.fstat(folder).st_uid != os.geteuid():
                raise UnsafeFileError(_odd(self.path, "somebody else's"))
            os.fchmod(folder, 0o700)

    def creating(self, name: str, *, mode: int) -> IO[bytes]:
        """Creates a file with these permissions from the start.

        Raises:
            UnsafeFileError: A link leads to the folder.
            OSError: It cannot be created, or exists.
        """
        with self._opened() as folder, self._named(name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
            return open(os.open(name, flags, mode, dir_fd=folder), "wb")

    def age_s(self, name: str) -> float:
        """Returns how long ago a file was last written, in seconds; a link is not followed.

        Raises:
            OSError: It cannot be read.
        """
        with self._opened() as folder, self._named(name):
            return time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a new file in the folder, which is created; else as ``atomic_file``.

        Raises:
            UnsafeFileError: A link leads to the folder.
            OSError: The file cannot be written.
        """
        with self._opened(create=True) as folder, self._named(name):
            with _replacing(Path(name), folder=folder) as file:
                yield file
            try:
                os.fsync(folder)
            except OSError as e:
                if e.errno not in _NO_FOLDER_SYNC:
                    raise

    def appending(self, name: str) -> IO[bytes]:
        """Opens a file to append to, unbuffered; it is created if it does not exist.

        Raises:
            UnsafeFileError: It is a link, a pipe, or a file that has another name as well.
            OSError: It cannot be written.
        """
        with self._opened(create=True) as folder, self._named(name):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FILE
            descriptor = os.open(name, flags, 0o666, dir_fd=folder)
            return self._checked(descriptor, "ab", folder, name)

    def reading(self, name: str, *, limit: int) -> IO[bytes]:
        """Opens a file for reading.

        Args:
            name: Its name.
            limit: The largest size that is read, in bytes.

        Raises:
            UnsafeFileError: It is a link or a pipe, belongs to somebody who neither runs this nor
                owns the folder, or is larger.
            FileNotFoundError: There is no such file.
            OSError: It cannot be read.
        """
        with self._opened() as folder, self._named(name):
            descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=folder)
            return self._checked(descriptor, "rb", folder, name, limit=limit)

    def remove(self, name: str) -> None:
        """Removes a file or a link, if it is there; a folder of that name stays.

        Raises:
            UnsafeFileError: A link leads to the folder.
            OSError: It cannot be removed.
        """
        with suppress(FileNotFoundError), self._opened() as folder, self._named(name):
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode):
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _opened(self, *, create: bool = False, mode: int = 0o777) -> Iterator[int]:
        """Opens the folder; yields its descriptor. ``mode`` is that of folders it creates."""
        below = [self.path, *self.path.parents[: self.depth - 1]][::-1]
        root = below[0].parent
        if create:
            root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, _FOLDER)
        try:
            for path in below:
                inner = _open_inner(path, folder, create=create, mode=mode)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Gives errors the whole path, and says what a link or a pipe in the way means."""
        try:
            yield
        except UnsafeFileError:
            raise
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.ENXIO):
                raise UnsafeFileError(_odd(self.path / name, "a link or a pipe")) from None
            e.filename = str(self.path / name)
            raise

    def _checked(
        self, descriptor: int, mode: str, folder: int, name: str, *, limit: int | None = None
    ) -> IO[bytes]:
        """Returns the open file if it is one of searchae's."""
        about, path = os.fstat(descriptor), self.path / name
        fault = ""
        if not stat.S_ISREG(about.st_mode):
            fault = _odd(path, "no regular file")
        elif mode == "ab" and about.st_nlink > 1:
            fault = _odd(path, "a file with a second name elsewhere")
        elif limit is not None and about.st_uid not in (os.geteuid(), os.fstat(folder).st_uid):
            fault = _odd(path, "somebody else's")
        elif limit is not None and about.st_size > limit:
            fault = f"{path}: has {about.st_size} bytes, more than searchae writes ({limit})"
        if fault:
            os.close(descriptor)
            raise UnsafeFileError(fault)
        # Unbuffered where others append too: each write reaches the file as a whole.
        return cast("IO[bytes]", open(descriptor, mode, buffering=0 if mode == "ab" else -1))


def _open_inner(path: Path, outer: int, *, create: bool, mode: int) -> int:
    """Opens a folder inside another one, without following a link."""
    try:
        if create:
            with suppress(FileExistsError):
                os.mkdir(path.name, mode, dir_fd=outer)
        return os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnsafeFileError(_odd(path, "a link or no folder")) from None
        e.filename = str(path)
        raise


def _odd(path: Path, what: str) -> str:
    return f"{path}: is {what}, which searchae does not put there and does not use; remove it"
