"""The folder that a bundle is made in: whose it is, and what an interrupted training left."""

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

HIDDEN, IDENTITY, METRICS = ".checkpoint", "training.json", "metrics.json"


@dataclass(frozen=True)
class Workspace:
    """A folder that one training has to itself. Use it in a ``with`` block.

    Attributes:
        folder: Where the bundle goes.
        checkpoints: Where its checkpoints are.
    """

    folder: Path
    checkpoints: Path
    _lock: IO[bytes]

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any], *, seeds: int = 1) -> Workspace:
        """Takes a folder for a training.

        Args:
            folder: New, empty, or with what the same training left: checkpoints, or a bundle.
            identity: What makes it the same, as JSON can hold it.
            seeds: How many trainings it is; of a bundle over more nothing may be lost.

        Raises:
            UserError: It holds something else, or another process is at work in it.
        """
        hidden = folder / HIDDEN
        _check(folder, identity, seeds)
        try:
            (hidden / "epochs").mkdir(parents=True, exist_ok=True)
            lock = (hidden / "lock").open("ab")
        except OSError as e:
            raise UserError(f"--out {folder}: cannot be written: {e.strerror or e}") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(f"--out {folder}: another searchae train is at work in it") from None
        except OSError:  # a file system without locks
            pass
        write_json(hidden / IDENTITY, identity)
        return cls(folder, hidden / "epochs", lock)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()


def _check(folder: Path, identity: Mapping[str, Any], seeds: int) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; give a folder")
    unfinished = folder / HIDDEN / IDENTITY
    if unfinished.exists():
        _same(folder, _read(unfinished), identity, what="another unfinished training")
    if (folder / CONFIG).exists():
        _check_bundle(folder, identity, seeds)
    elif (
        not unfinished.exists()
        and folder.is_dir()
        and any(p.name != HIDDEN for p in folder.iterdir())
    ):
        raise UserError(f"--out {folder}: holds something that is no bundle; give a new folder")


def _check_bundle(folder: Path, identity: Mapping[str, Any], seeds: int) -> None:
    """Only the training that a bundle comes of may make it again, over no fewer seeds."""
    try:
        config = read_config(folder)
    except BundleError as e:
        raise UserError(f"--out {folder}: holds something else: {e}") from e
    bundle = config.model_dump(mode="json", include=set(identity))
    metrics = _read(folder / METRICS) if (folder / METRICS).exists() else {}
    kernels = metrics.get("machine", {}).get("kernels")
    if kernels:
        bundle["kernels"] = kernels
    wanted = {k: identity[k] for k in bundle}
    _same(folder, bundle, wanted, what="the bundle of another training")
    had = metrics.get("seeds", {}).get("count", 0)
    if had > seeds:
        raise UserError(
            f"--out {folder}: holds a bundle over {had} seeds, here are {seeds}: give --seeds "
            f"{had} or more, or another folder"
        )


def _same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str) -> None:
    there, here = _flat(found), _flat(wanted)
    lines = [
        f"  {k}: {json.dumps(there.get(k))} -> {json.dumps(here.get(k))}"
        for k in {**there, **here}
        if there.get(k) != here.get(k)
    ]
    if lines:
        raise UserError(
            f"--out {folder}: holds {what} (there -> now):\n"
            + "\n".join(lines)
            + "\nGive another folder, or remove this one."
        )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path}: is damaged ({e}); remove {path.parent} to start over") from e
    return found if isinstance(found, dict) else {}


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": v for name, v in value.items()}
        else:
            flat[key] = value
    return flat
