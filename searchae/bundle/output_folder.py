"""The output folder of ``searchae train``: its lock, and what is being trained for it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from searchae.bundle.config import CONFIG, read_config, write_json
from searchae.errors import BundleError, UserError
from searchae.files import open_input

CHECKPOINTS_FOLDER, IDENTITY_FILE, METRICS_FILE = ".checkpoint", "training.json", "metrics.json"


@dataclass(frozen=True)
class Workspace:
    """An output folder, locked for one training; a context manager that releases the lock.

    Attributes:
        folder: The bundle's folder.
    """

    folder: Path
    _lock: IO[bytes]

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any], *, seeds: int = 1) -> Workspace:
        """Opens and locks a folder for a training.

        Args:
            folder: A folder that is new, empty, or has the bundle of the same training, finished
                or not.
            identity: What identifies the training; JSON values.
            seeds: Number of seeds; a bundle over more seeds is not overwritten.

        Raises:
            UserError: The folder has other contents, cannot be written, or is used by another
                process.
        """
        checkpoints = folder / CHECKPOINTS_FOLDER
        _check_contents(folder, identity, seeds)
        try:
            checkpoints.mkdir(parents=True, exist_ok=True)
            lock = (checkpoints / "lock").open("ab")
        except OSError as e:
            raise UserError(f"--out {folder}: cannot be written: {e.strerror or e}") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(f"--out {folder}: another searchae train is at work in it") from None
        except OSError:  # the file system has no locks: proceed without one
            pass
        write_json(checkpoints / IDENTITY_FILE, identity)
        return cls(folder, lock)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()


def _check_contents(folder: Path, identity: Mapping[str, Any], seeds: int) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; give a folder")
    unfinished = folder / CHECKPOINTS_FOLDER / IDENTITY_FILE
    if unfinished.exists():
        begun = {k: v for k, v in _read_json(unfinished).items() if k in identity}
        _require_same(folder, begun, identity, what="another unfinished training")
    if (folder / CONFIG).exists():
        _check_bundle(folder, identity, seeds)
    elif (
        not unfinished.exists()
        and folder.is_dir()
        and any(p.name != CHECKPOINTS_FOLDER for p in folder.iterdir())
    ):
        raise UserError(f"--out {folder}: is not empty, and not a bundle; give a new folder")


def _check_bundle(folder: Path, identity: Mapping[str, Any], seeds: int) -> None:
    """Requires that the folder's bundle is of the same training, with no more seeds."""
    try:
        config = read_config(folder)
    except BundleError as e:
        raise UserError(f"--out {folder}: holds something else: {e.args[0]}", *e.args[1:]) from e
    bundle = config.model_dump(mode="json", include=set(identity))
    metrics = _read_json(folder / METRICS_FILE) if (folder / METRICS_FILE).exists() else {}
    wanted = {k: identity[k] for k in bundle}
    _require_same(folder, bundle, wanted, what="the bundle of another training")
    had = metrics.get("seeds", {}).get("count", 0)
    if had > seeds:
        raise UserError(
            f"--out {folder}: holds a bundle over {had} seeds, here are {seeds}: give --seeds "
            f"{had} or more, or another folder"
        )


def _require_same(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str
) -> None:
    there, here = _flatten(found), _flatten(wanted)
    lines = [
        f"  {k}: {json.dumps(there.get(k))} -> {json.dumps(here.get(k))}"
        for k in {**there, **here}
        if there.get(k) != here.get(k)
    ]
    if lines:
        raise UserError(
            f"--out {folder}: holds {what} (there -> now):",
            *lines,
            "Give another folder, or remove this one.",
        )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with open_input(path) as file:
            found = json.load(file)
    except ValueError as e:
        raise UserError(f"{path}: is damaged ({e}); remove {path.parent} to start over") from e
    return found if isinstance(found, dict) else {}


def _flatten(document: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": v for name, v in value.items()}
        else:
            flat[key] = value
    return flat
