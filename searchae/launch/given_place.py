"""Where a study is, as a Python program gives it, with the command line's defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.engine import URL

from searchae.config import FACTORY_VARIABLE
from searchae.errors import UserError
from searchae.files import ArtifactPath, artifact_path
from searchae.storage import storage_url

DEFAULT_STORAGE = "sqlite:///searchae.db"


@dataclass(frozen=True)
class GivenPlace:
    """Where a study and its files are, and how a Python program works on it.

    Attributes:
        storage: URL of the database.
        data_dir: Folder of the data sets.
        artifacts: Folder for checkpoints and logs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        factory: The function that builds a net of one's own; empty for none.
        quiet: Whether to show no progress.
    """

    storage: URL
    data_dir: Path
    artifacts: ArtifactPath
    device: str
    factory: str
    quiet: bool

    @classmethod
    def of(
        cls,
        storage: str | None,
        data_dir: str | Path | None,
        artifacts: str | ArtifactPath | None,
        device: str | None,
        *,
        factory: str = "",
        quiet: bool,
        create: bool = False,
    ) -> GivenPlace:
        """Takes what was given, else what the environment says, else the command line's default.

        Args:
            storage: Database URL.
            data_dir: Folder of the data sets.
            artifacts: Folder for checkpoints and logs.
            device: Where trials are trained.
            factory: The function that builds a net of one's own; empty for none.
            quiet: Whether to show no progress.
            create: Whether to make a managed server's data if there are none.

        Raises:
            StorageError: The URL is none.
            ArtifactsError: The artifact folder is a URL that cannot be used.
        """
        return cls(
            storage_url(setting(storage, "SEARCHAE_STORAGE", DEFAULT_STORAGE), create=create),
            Path(setting(data_dir, "SEARCHAE_DATA_DIR", "data")),
            artifact_path(setting(artifacts, "SEARCHAE_ARTIFACTS", "artifacts")),
            setting(device, "SEARCHAE_DEVICE", "auto"),
            factory or os.environ.get(FACTORY_VARIABLE, ""),
            quiet,
        )

    def fleet(
        self,
        *,
        max_hours: float | None = None,
        workers: int | None = None,
        workers_per_device: int | Literal["auto"] = 1,
        threads: int | None = None,
        precision: str | None = None,
    ) -> dict[str, Any]:
        """Returns the arguments of a ``FleetRequest``, which see.

        Raises:
            UserError: One of them is no number above 0.
        """
        check_counts(workers=workers, threads=threads)
        if workers_per_device != "auto":
            check_counts(workers_per_device=workers_per_device)
        return {
            "storage": self.storage,
            "data_dir": self.data_dir,
            "artifacts": self.artifacts,
            "device": self.device,
            "max_hours": max_hours,
            "workers": workers,
            "workers_per_device": None if workers_per_device == "auto" else workers_per_device,
            "threads": threads or default_threads(),
            "precision": setting(precision, "SEARCHAE_PRECISION", "auto"),
        }


def setting(given: object, variable: str, default: str) -> str:
    """Returns what was given, else an environment variable's value, else the default."""
    return str(given) if given is not None else os.environ.get(variable) or default


def default_threads() -> int | None:
    """Returns the CPU threads of a worker that the environment asks for.

    Raises:
        UserError: It is no number above 0.
    """
    text = os.environ.get("SEARCHAE_THREADS")
    if not text:
        return None
    if not (text.isdecimal() and int(text)):
        raise UserError(f"SEARCHAE_THREADS: {text}: give a whole number of 1 or more")
    return int(text)


def check_counts(least: int = 1, **counts: object) -> None:
    """Checks that options are whole numbers, or unset.

    Args:
        least: The least that is allowed.
        counts: Name -> value.

    Raises:
        UserError: One is not.
    """
    for name, value in counts.items():
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}: {value!r}: give a whole number of {least} or more")
