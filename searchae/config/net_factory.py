"""The function that builds a net of one's own: found and hashed, but not run.

The database and bundles hold the function's name and the SHA-256 of its file, never code. Which
file is run is said on each machine by whoever types a command there: with ``tune`` by the study
file, otherwise by ``--factory`` or ``SEARCHAE_FACTORY``. So nobody who can write to the database
can make a worker run anything else.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from searchae.errors import SpecError

FACTORY_VARIABLE = "SEARCHAE_FACTORY"
"""The environment variable with the function that this process and its workers may run."""

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class NetFactory:
    """A function in a Python file.

    Attributes:
        path: The file, absolute.
        module: Its name as a module; empty for a file that is given by its path.
        function: The function's name.
        source: The file's content.
    """

    path: Path
    module: str
    function: str
    source: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def text(self) -> str:
        """The function as ``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION``, for any folder."""
        return f"{self.module or self.path}:{self.function}"


def find_factory(text: str, folders: Sequence[Path] = ()) -> NetFactory:
    """Finds a function by its name; a module's packages are imported, the module itself is not.

    Args:
        text: ``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION``.
        folders: Where a relative path is looked for, in this order, before the current folder.

    Raises:
        SpecError: It is written otherwise, or there is no such file.
    """
    where, _, function = text.rpartition(":")
    if not where or not function.isidentifier():
        raise SpecError(
            f"model.factory: {text!r}: write it as mynets.py:build, or package.module:build"
        )
    is_file = where.endswith(".py")
    path = _file(where, folders) if is_file else _module_file(where)
    try:
        source = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else None
    except OSError as e:
        raise SpecError(f"model.factory: {path}: cannot be read: {e.strerror or e}") from e
    if source is None:
        raise SpecError(f"model.factory: {path}: larger than {_MOST_BYTES >> 20} MiB")
    return NetFactory(path, "" if is_file else where, function, source)


def factory_hint(name: str, sha256: str, *, known: str = "") -> str:
    """Returns what ``--factory`` may name for a study's or a bundle's net, quoted for a shell.

    Args:
        name: The function as the study names it: a file may be meant from the study file's folder.
        sha256: SHA-256 of its file.
        known: Where the file was when the study was made.

    Returns:
        The file where it is on this machine, from the current folder if it is below that;
        ``FOLDER/FILE.py:FUNCTION`` if it is not found.
    """
    where, _, function = name.rpartition(":")
    if not where.endswith(".py"):
        return shlex.quote(name)
    found = factory_here(name, sha256, known=known)
    return shlex.quote(found or f"FOLDER/{Path(where).name}:{function}")


def factory_here(name: str, sha256: str, *, known: str = "") -> str:
    """Returns the file and function of ``factory_hint``; empty if it is not found here."""
    function = name.rpartition(":")[2]
    for text in (name, known):
        # A module's packages would be imported to find it.
        if not text.rpartition(":")[0].endswith(".py"):
            continue
        try:
            found = find_factory(text)
        except SpecError:
            continue
        if found.sha256 == sha256 and found.function == function:
            return below_here(found.text)
    return ""


def below_here(path: str) -> str:
    """Returns a path below the current folder without it, any other text as it is."""
    return path.removeprefix(f"{Path().absolute()}{os.sep}")


def allow_factory(factory: NetFactory) -> None:
    """Lets this process and the workers that it starts run a function."""
    os.environ[FACTORY_VARIABLE] = factory.text


def _file(name: str, folders: Sequence[Path]) -> Path:
    looked = list(dict.fromkeys(f.absolute() / Path(name).expanduser() for f in (*folders, Path())))
    found = next((path for path in looked if path.is_file()), None)
    if found is None:
        places = " or ".join(str(path.parent) for path in looked)
        raise SpecError(f"model.factory: there is no file {Path(name).name} in {places}")
    return found


def _module_file(name: str) -> Path:
    try:
        found = find_spec(name)
    except (ImportError, ValueError) as e:
        raise SpecError(f"model.factory: no module {name!r} is installed here: {e}") from e
    if found is None or not str(found.origin).endswith(".py"):
        what = "is no Python file" if found else "is not installed here; a file is mynets.py:build"
        raise SpecError(f"model.factory: module {name!r} {what}")
    return Path(str(found.origin))
