"""Compiles ``winograd.c`` for this machine's CPU, once for all processes, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("winograd.c")

# No -ffast-math: the compiler could then assume that there are no NaNs, and loading such a library
# may switch off denormals in the whole process.
_FLAGS = ("-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno")
_TIMEOUT_S = 120
_CPUINFO = Path("/proc/cpuinfo")


class BuildError(Exception):
    """The library cannot be built or loaded on this machine; the message says why."""


def load() -> ctypes.CDLL:
    """Returns the library from the cache, or compiles it first, which takes seconds.

    Raises:
        BuildError: There is no GNU C compiler, compiling fails, the cache folder cannot be written
            or can be written by other users, or the library cannot be loaded.
    """
    try:
        folder, key = cache_folder(), _key()
        _check_owner(folder)
        for path in folder.glob(f"winograd-{key}-*.so"):
            if not _is_own(path):
                log.warning("%s is no file of this user's: it is not run, and built again", path)
            elif not path.stem.endswith(f"-{_sha256(path)}"):  # it could crash the process
                log.warning("%s is damaged: it is built again", path)
            else:
                return ctypes.CDLL(str(path))
        compiler = _compiler()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(folder)  # again: another process may have created it
        return ctypes.CDLL(str(_compile(compiler, folder, key)))
    except OSError as e:
        raise BuildError(str(e)) from e


def cache_folder() -> Path:
    """Returns the folder of compiled libraries: ``searchae`` in the user's cache folder.

    Raises:
        BuildError: The user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "searchae"
    except RuntimeError as e:
        raise BuildError(str(e)) from e


def _check_owner(folder: Path) -> None:
    """Checks that only the user can write to the folder, whose files are executed."""
    if not folder.exists():
        return
    about = folder.stat()
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise BuildError(
            f"{folder} belongs to somebody else, or others may write to it: nothing in it is run; "
            "remove it, or set XDG_CACHE_HOME to a folder of your own"
        )


def _is_own(path: Path) -> bool:
    """Whether a file is the user's, and nobody else can write to it; not for a link or a pipe.

    Others can put a file into the folder before it becomes the user's alone.
    """
    about = path.lstat()
    own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid()
    return own and not about.st_mode & 0o022


def _compiler() -> str:
    """Returns the first GNU compiler found. Clang's code is no faster than PyTorch's."""
    names = [n for n in (os.environ.get("CC"), "gcc", "cc") if n]
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        try:
            version = _output([path, "--version"])
        except BuildError as e:
            log.info("%s is passed over: %s", name, e)
            continue
        if "Free Software Foundation" in version:
            return path
    raise BuildError(f"no GNU C compiler: looked for {', '.join(names)}")


def _key() -> str:
    """Returns a hash of source, flags and CPU: machines may share a home folder."""
    parts = [SOURCE.read_text(), " ".join(_FLAGS), platform.machine(), _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """Returns a text that identifies the kind of CPU."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    fields = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(fields)}))


def _compile(compiler: str, folder: Path, key: str) -> Path:
    """Compiles in a temporary folder and links the result into place, safely with other workers."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        draft = Path(temporary) / "draft.so"
        _output([compiler, *_FLAGS, "-march=native", "-o", str(draft), str(SOURCE)])
        draft.chmod(0o700)  # whatever the umask leaves to others
        path = folder / f"winograd-{key}-{_sha256(draft)}.so"
        # An existing good file is kept: other processes may have mapped it. No process uses a
        # damaged one.
        if os.path.lexists(path) and not (_is_own(path) and _sha256(path) == _sha256(draft)):
            path.unlink()
        with suppress(FileExistsError):
            os.link(draft, path)
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise BuildError(f"{command[0]}: {e}") from e
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
