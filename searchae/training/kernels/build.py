"""Builds ``winograd.c`` for the CPU at hand, once a machine, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("winograd.c")

# No -ffast-math: it would let the compiler take NaN for impossible, and a process that loads such
# a library may lose denormals everywhere.
_FLAGS = ("-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno")
_TIMEOUT_S = 120
_CPUINFO = Path("/proc/cpuinfo")


class BuildError(Exception):
    """There is no such library here; the message says why."""


def load() -> ctypes.CDLL:
    """The library, from the cache, or built now (some seconds).

    Raises:
        BuildError: There is no GNU compiler, it fails, the cache cannot be written or is open to
            others, or the library cannot be loaded.
    """
    try:
        folder, key = cache_folder(), _key()
        _check_owner(folder)
        for path in folder.glob(f"winograd-{key}-*.so"):
            if path.stem.endswith(f"-{_sha256(path)}"):  # a damaged one could kill the process
                return ctypes.CDLL(str(path))
            log.warning("%s is damaged: it is built again", path)
        compiler = _compiler()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(folder)  # others may have been quicker
        return ctypes.CDLL(str(_built(compiler, folder, key)))
    except OSError as e:
        raise BuildError(str(e)) from e


def cache_folder() -> Path:
    """Where libraries are kept: ``searchae`` in the user's cache folder.

    Raises:
        BuildError: There is no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "searchae"
    except RuntimeError as e:
        raise BuildError(str(e)) from e


def _check_owner(folder: Path) -> None:
    """What lies in the folder is run: it has to be the user's own."""
    if not folder.exists():
        return
    about = folder.stat()
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise BuildError(
            f"{folder} belongs to somebody else, or others may write to it: nothing in it is run; "
            "remove it, or set XDG_CACHE_HOME to a folder of your own"
        )


def _compiler() -> str:
    """The first GNU compiler. Clang's code is no faster than PyTorch."""
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
    """Of source, flags and CPU: a home may be shared by machines of several kinds."""
    parts = [SOURCE.read_text(), " ".join(_FLAGS), platform.machine(), _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """What tells one kind of CPU from another."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    told = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))


def _built(compiler: str, folder: Path, key: str) -> Path:
    """Compiles aside and puts the result in place whole: several workers may be at it."""
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        draft = Path(aside) / "draft.so"
        _output([compiler, *_FLAGS, "-march=native", "-o", str(draft), str(SOURCE)])
        path = folder / f"winograd-{key}-{_sha256(draft)}.so"
        # Not over one that is there: others may have mapped it. A damaged one is in nobody's use.
        if path.exists() and _sha256(path) != _sha256(draft):
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
