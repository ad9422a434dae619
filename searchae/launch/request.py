"""What the user asked for, and the workers that follow from it; nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL

from searchae.config import StudySpec, find_study_file, load_study_file
from searchae.errors import UserError
from searchae.launch import sizing
from searchae.launch.base import Job, Launcher
from searchae.launch.local import LocalLauncher
from searchae.storage import is_sqlite, parse_url

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        study: Name or path of a study file.
        name: The study's name in the storage; the file's name if empty.
        storage: Database URL.
        trials: The budget; the file's if unset.
        max_hours: The whole fleet ends its last epoch this long from now; never if unset.
        workers: How many at once; by the machine if unset.
        workers_per_device: How many share a GPU; measured on this machine's if unset.
        threads: CPU threads of each worker; the cores shared out among them if unset.
        precision: ``auto``, ``fp32`` or ``bf16``; each worker sees for itself what ``auto`` is.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: The file's if unset.
        data_dir: Where data sets lie.
        artifacts: Where checkpoints and logs go.
        overrides: ``section.key=value`` texts.
        warm_start: Name of a study whose trials a new one starts from.
        environment: Variables that may override the file.
    """

    study: str
    name: str = ""
    storage: str = "sqlite:///searchae.db"
    trials: int | None = None
    max_hours: float | None = None
    workers: int | None = None
    workers_per_device: int | None = 1
    threads: int | None = None
    precision: str = "auto"
    device: str = "auto"
    seed: int | None = None
    data_dir: Path = Path("data")
    artifacts: Path = Path("artifacts")
    overrides: Sequence[str] = ()
    warm_start: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)


def resolve_study(request: Request) -> tuple[str, StudySpec]:
    """The study's name and its spec, with every override in place.

    Raises:
        SpecError: The study file is missing or wrong.
    """
    path = find_study_file(request.study)
    changes = {"search.trials": request.trials, "seed": request.seed}
    spec = load_study_file(
        path,
        overrides=request.overrides,
        environment=request.environment,
        changes={k: v for k, v in changes.items() if v is not None},
    )
    return request.name or path.stem, spec


def sized_fleet(request: Request, launcher: Launcher) -> sizing.Fleet:
    """How many workers a launcher shall run, and with what.

    Raises:
        UserError: It cannot be had so.
    """
    has = launcher.resources()
    if is_sqlite(request.storage) and (has is None or has.machines > 1):
        raise UserError(
            "--storage: SQLite serves the workers of one machine; for several use "
            "postgresql://user@host/database"
        )
    if request.workers_per_device is None and not launcher.nearby:
        raise UserError(
            "--workers-per-device auto: measured on this machine's GPUs only; give a number for "
            "a cluster's"
        )
    return sizing.plan_fleet(
        launcher,
        device=request.device,
        workers=request.workers,
        workers_per_device=request.workers_per_device or 1,
        threads=request.threads,
        precision=request.precision,
    )


def study_jobs(crew: sizing.Fleet, request: Request, study: str, *, at_most: int) -> list[Job]:
    """The workers of a study, at most so many."""
    return sizing.worker_jobs(
        crew,
        study,
        storage=_whole_url(parse_url(request.storage)),
        data_dir=request.data_dir,
        artifacts=request.artifacts,
        at_most=at_most,
        environment=os.environ,
    )


@contextmanager
def prestarted_workers(request: Request, launcher: Launcher) -> Iterator[Callable[[], None]]:
    """Within the block, the workers that will be wanted import torch while the caller does.

    Only workers on a CPU, of which it is clear what they will be told; those that turn out not to
    be wanted are ended. The caller has a core to itself: until it says that it has imported, one
    worker fewer is started than there are cores.

    Yields:
        To be called when the caller has imported.

    Raises:
        UserError: The study file is missing or wrong, or the workers cannot be had so.
    """
    no_gpu = not any(map(os.path.exists, _GPU_FILES))
    on_cpu = request.device == "cpu" or (request.device == "auto" and no_gpu)
    if not (on_cpu and isinstance(launcher, LocalLauncher)):
        yield lambda: None
        return
    name, spec = resolve_study(request)
    crew = sized_fleet(request, LocalLauncher(gpus=0))
    cores = sizing.available_cores()
    wanted = study_jobs(crew, request, name, at_most=min(cores, spec.search.trials))

    def prepare(some: Sequence[Job]) -> None:
        with suppress(OSError):  # no process to be had now: they are started when they are wanted
            launcher.prepare(some)

    try:
        prepare(wanted[: cores - 1])
        yield lambda: prepare(wanted[cores - 1 :])
    finally:
        launcher.discard()


def _whole_url(url: URL) -> str:
    """A database's URL, password and all, that means the same in any working folder."""
    if is_sqlite(url):
        url = url.set(database=os.path.abspath(str(url.database)))
    return url.render_as_string(hide_password=False)
