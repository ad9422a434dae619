"""The artifact folder: a folder that all workers see, or a place in an object store."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

from searchae.errors import ArtifactsError, nearest
from searchae.files.disk import SharedFolder
from searchae.files.remote import LIBRARIES, RemoteFolder, RemotePath

ArtifactPath: TypeAlias = Path | RemotePath
"""The artifact folder, a folder below it, or a file in one."""
ArtifactFolder: TypeAlias = SharedFolder | RemoteFolder
"""Reads and writes the files of a folder below the artifact folder."""

AnyPath = TypeVar("AnyPath", bound=ArtifactPath)

_HERE = Path("artifacts")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def artifact_path(text: str | ArtifactPath) -> ArtifactPath:
    """Returns what ``--artifacts`` names.

    Args:
        text: A folder, or ``s3://BUCKET/PREFIX``, ``gs://...`` or ``az://...``.

    Raises:
        ArtifactsError: A URL is none of those, holds a secret, or its library is not installed.
    """
    if not isinstance(text, str):
        return text
    if not (match := _URL.fullmatch(text)):
        kind, colon, rest = text.partition(":/")
        if colon and kind in LIBRARIES:  # what a Path makes of a URL
            raise ArtifactsError(f"--artifacts {text}: write {kind}://{rest}, as a text")
        return Path(text)
    kind, rest = match[1].lower(), match[2]
    account, at, place = rest.rpartition("@")
    if at and ":" in account:
        user, where = account.partition(":")[0], place.partition("?")[0]
        raise ArtifactsError(
            f"--artifacts {kind}://{user}:***@{where}: a password in a URL is shown to others; "
            "give it in the environment variables of the store's own library"
        )
    if re.search(r"[?#\s\x00-\x1f\x7f]", rest):
        shown = re.split(r"[?#\s\x00-\x1f\x7f]", rest)[0]
        raise ArtifactsError(
            f"--artifacts {kind}://{shown}...: spaces, ? and # cannot stand in the URL of a store"
        )
    if kind not in LIBRARIES:
        raise ArtifactsError(f"--artifacts {kind}://{rest}: {nearest(kind, LIBRARIES)}")
    parts = [part for part in rest.split("/") if part]
    if not parts or rest.startswith("/") or {".", ".."} & set(parts):
        raise ArtifactsError(f"--artifacts {kind}://{rest}: write {kind}://BUCKET/PREFIX")
    library = LIBRARIES[kind]
    if find_spec(library.module) is None:
        raise ArtifactsError(
            f"--artifacts {kind}://{rest}: {library.module} is not installed; {library.hint}"
        )
    return RemotePath(f"{kind}://{'/'.join(parts)}")


def below(path: AnyPath, *names: str) -> AnyPath:
    """Returns a place below another one, of the same kind.

    Args:
        path: The artifact folder, or a folder below it.
        names: The names that lead there.
    """
    found: ArtifactPath = path
    for name in names:
        found = found / name
    return cast("AnyPath", found)


def artifact_folder(path: ArtifactPath, *, patience_s: float | None = None) -> ArtifactFolder:
    """Returns what reads and writes the files of a folder.

    Args:
        path: The folder, two below the artifact folder: ``ROOT/STUDY/KIND``.
        patience_s: See ``RemoteFolder``; on a disk nothing is waited for.
    """
    if isinstance(path, RemotePath):
        return RemoteFolder(path, patience_s=patience_s)
    return SharedFolder(path)


def files_here(artifacts: ArtifactPath) -> Path:
    """Returns the folder of what is never put into an object store: logs, job scripts, pages.

    Args:
        artifacts: The artifact folder; instead of one in an object store, ``artifacts`` in the
            current folder is used.
    """
    return _HERE if isinstance(artifacts, RemotePath) else artifacts
