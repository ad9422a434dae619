"""What the user asked for, and the workers that follow from it. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from searchae.config import (
    FACTORY_VARIABLE,
    NetFactory,
    StudySpec,
    check_study_name,
    find_factory,
    find_study_file,
    load_study_file,
    load_study_tables,
)
from searchae.errors import UserError
from searchae.files import ArtifactPath
from searchae.launch import fleet_plan
from searchae.launch.base import Job, Launcher
from searchae.launch.local import LocalLauncher
from searchae.storage import is_sqlite

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True, kw_only=True)
class FleetRequest:
    """The workers that the user asked for.

    Attributes:
        storage: URL of the database.
        max_hours: Hours from now after which no worker begins another epoch; no limit if unset.
        workers: Number of workers at once; depends on the launcher's resources if unset.
        workers_per_device: Number of workers that share a GPU; measured on this machine if unset.
        threads: CPU threads of each worker; the cores divided by the workers if unset.
        precision: ``auto``, ``fp32`` or ``bf16``; each worker resolves ``auto`` for itself.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_dir: Folder of the data sets.
        artifacts: Folder for checkpoints and logs, shared by all workers.
    """

    storage: URL
    max_hours: float | None = None
    workers: int | None = None
    workers_per_device: int | None = 1
    threads: int | None = None
    precision: str = "auto"
    device: str = "auto"
    data_dir: Path = Path("data")
    artifacts: ArtifactPath = Path("artifacts")

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that the workers get besides this process's."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Request(FleetRequest):
    """The arguments of a search.

    Attributes:
        study: Name or path of a study file; with ``tables``, what errors call it.
        name: The study's name in the database; the file's name if empty.
        trials: Trials to end complete or pruned; the study file's number if unset.
        seed: Overrides the study file's seed.
        overrides: Overrides of the study file, each ``section.key=value``.
        warm_start: Name of a study whose trials a new study starts from; none if empty.
        environment: Variables that may override the study file.
        tables: What a study file would hold, section -> key -> value, where there is none.
        folder: With ``tables``, where relative paths in them are looked for; the current folder
            if unset.
    """

    study: str
    name: str = ""
    trials: int | None = None
    seed: int | None = None
    overrides: Sequence[str] = ()
    warm_start: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    tables: Mapping[str, Any] | None = field(default=None, repr=False)
    folder: Path | None = None

    @cached_property
    def resolved(self) -> tuple[str, StudySpec]:
        """The study's name and its spec with every override; the file is read at first use.

        Raises:
            SpecError: The study file is missing or invalid.
            UserError: No study can have the name.
        """
        changes = {"search.trials": self.trials, "seed": self.seed}
        given = {k: v for k, v in changes.items() if v is not None}
        if self.tables is not None:
            check_study_name(self.name)
            return self.name, load_study_tables(
                self.tables,
                source=self.study,
                folder=self.study_folder,
                overrides=self.overrides,
                environment=self.environment,
                changes=given,
            )
        path = find_study_file(self.study)
        check_study_name(name := self.name or path.stem)
        return name, load_study_file(
            path, overrides=self.overrides, environment=self.environment, changes=given
        )

    @property
    def study_folder(self) -> Path:
        """Where the study file lies.

        Raises:
            SpecError: There is no such file.
        """
        if self.tables is not None:
            return self.folder or Path.cwd()
        return find_study_file(self.study).parent

    @cached_property
    def factory(self) -> NetFactory | None:
        """The function that builds the study's net, if it is one's own.

        Raises:
            SpecError: There is no such file.
        """
        _, spec = self.resolved
        text = spec.fixed["model"].get("factory")
        return find_factory(text, [self.study_folder]) if text else None

    @property
    def variables(self) -> Mapping[str, str]:
        """As of ``FleetRequest``: the workers may run the function that builds the net."""
        return {FACTORY_VARIABLE: self.factory.text} if self.factory else {}

    @property
    def asks_for_trials(self) -> bool:
        """Whether an option or a variable names the number of trials, not only the study file."""
        overridden = (text.partition("=")[0].strip() for text in self.overrides)
        variables = (name.lower() for name in self.environment)
        return (
            self.trials is not None
            or "search.trials" in overridden
            or "searchae_search__trials" in variables
        )


def sized_fleet(request: FleetRequest, launcher: Launcher) -> fleet_plan.Fleet:
    """Returns the number and size of the workers that a launcher is to run.

    Raises:
        UserError: The launcher cannot run what the request asks for.
    """
    if request.workers_per_device is None and not launcher.is_local:
        raise UserError(
            "--workers-per-device auto: measured on this machine's GPUs only; give a number for "
            "a cluster's"
        )
    available = launcher.resources()
    if is_sqlite(request.storage) and (available is None or available.machines > 1):
        raise UserError(
            "--storage: SQLite serves the workers of one machine; for several use "
            "postgresql://user@host/database"
        )
    return fleet_plan.plan_fleet(
        launcher,
        device=request.device,
        workers=request.workers,
        workers_per_device=request.workers_per_device or 1,
        threads=request.threads,
        precision=request.precision,
    )


def study_jobs(
    fleet: fleet_plan.Fleet, request: FleetRequest, study: str, *, at_most: int, folder: str = ""
) -> list[Job]:
    """Returns one job per worker of a study.

    Args:
        fleet: Number and size of the workers.
        request: Where the study's database and files are.
        study: The study's name.
        at_most: Upper limit of the number of workers.
        folder: The name of the study's folder below the artifact folder; as the study's if empty.
    """
    return fleet_plan.worker_jobs(
        fleet,
        study,
        storage=_absolute_url(request.storage).render_as_string(hide_password=False),
        data_dir=request.data_dir,
        artifacts=request.artifacts,
        at_most=at_most,
        environment={**os.environ, **request.variables},
        folder=folder,
    )


@contextmanager
def prestarted_workers(request: Request, launcher: Launcher) -> Iterator[Callable[[], None]]:
    """Within the block, workers import torch while the caller imports and checks.

    Applies to local workers on a CPU, whose jobs are known before the checks; elsewhere it does
    nothing. At the end of the block, workers that were not started are ended. One core is left to
    the caller until it has done its imports.

    Yields:
        A function to call when the caller has done its imports.

    Raises:
        SpecError: The study file is missing or invalid.
        UserError: The launcher cannot run what the request asks for.
    """
    # Whether torch sees a GPU is known only after importing it.
    no_gpu = not any(map(os.path.exists, _GPU_FILES))
    on_cpu = request.device == "cpu" or (request.device == "auto" and no_gpu)
    if not (on_cpu and isinstance(launcher, LocalLauncher)):
        yield lambda: None
        return
    name, spec = request.resolved
    fleet = sized_fleet(request, LocalLauncher(gpus=0))
    cores = fleet_plan.available_cores()
    jobs = study_jobs(fleet, request, name, at_most=min(cores, spec.search.trials))

    def prepare(some: Sequence[Job]) -> None:
        with suppress(OSError):  # no more processes possible now: ``start`` tries again
            launcher.prepare(some)

    try:
        prepare(jobs[: cores - 1])
        yield lambda: prepare(jobs[cores - 1 :])
    finally:
        launcher.discard()


def _absolute_url(url: URL) -> URL:
    """Returns the URL with a SQLite file's path made absolute, for any working directory."""
    if is_sqlite(url):
        return url.set(database=os.path.abspath(str(url.database)))
    return url
