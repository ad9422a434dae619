"""Decides how many workers a search starts and with which resources, and makes their jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from searchae.config import FACTORY_VARIABLE, folder_name
from searchae.errors import UserError
from searchae.files import ArtifactPath, credentials, files_here
from searchae.launch.base import Job, Launcher, Resources
from searchae.launch.malloc import HUGE_PAGES_ENVIRONMENT

MAX_DEFAULT_WORKERS = 4
"""Workers at once unless ``--workers`` asks for more: the more trials run in parallel, the fewer
results a sequential sampler has when it chooses the next one."""

_PASSED_ON = ("SEARCHAE_KERNELS", "SEARCHAE_OPTUNA", FACTORY_VARIABLE)
"""Environment variables that workers get from the process that starts them."""


def available_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Fleet:
    """The workers of one search.

    Attributes:
        workers: Number of workers at once.
        threads: CPU threads of each.
        gpus: GPUs of each; a fraction where several share one.
        device: The ``--device`` of each.
        precision: The ``--precision`` of each: ``auto``, ``fp32`` or ``bf16``.
        is_local: Whether they are processes on this machine.
    """

    workers: int
    threads: int
    gpus: float
    device: str
    precision: str
    is_local: bool


def plan_fleet(
    launcher: Launcher,
    *,
    device: str,
    workers: int | None,
    workers_per_device: int,
    threads: int | None,
    precision: str = "auto",
) -> Fleet:
    """Sizes the workers of a search.

    Small models gain little from a second thread: one worker per core trains more images a second
    than one worker with all cores.

    Args:
        launcher: Where the workers run.
        device: ``auto``, ``cpu``, ``cuda`` or, on this machine, ``cuda:N``.
        workers: Number of workers at once; depends on the launcher's resources if unset.
        workers_per_device: Number of workers that share a GPU.
        threads: CPU threads of each worker; the cores divided by the workers if unset.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Raises:
        UserError: ``device`` names one GPU, but a scheduler assigns them.
    """
    available = launcher.resources()
    if device.startswith("cuda:") and not launcher.is_local:
        raise UserError(f"--device {device}: the cluster gives out the GPUs; use --device cuda")
    on_gpu = device.startswith("cuda") or (
        device == "auto" and available is not None and available.gpus > 0
    )
    workers = workers or _default_workers(available, device, workers_per_device if on_gpu else 0)
    if threads is None:
        threads = max(1, available.cpus // workers) if launcher.is_local and available else 1
    gpus = 1 / workers_per_device if on_gpu else 0.0
    return Fleet(workers, threads, gpus, device, precision, launcher.is_local)


def _default_workers(available: Resources | None, device: str, per_gpu: int) -> int:
    if available is None:
        return MAX_DEFAULT_WORKERS
    if available.workers is not None:
        return available.workers
    if per_gpu:
        return max(1, 1 if ":" in device else available.gpus) * per_gpu
    return min(available.cpus, MAX_DEFAULT_WORKERS)


def worker_jobs(
    fleet: Fleet,
    study: str,
    *,
    storage: str,
    data_dir: Path,
    artifacts: ArtifactPath,
    at_most: int,
    environment: Mapping[str, str],
    folder: str = "",
) -> list[Job]:
    """Returns one job per worker.

    Args:
        fleet: Number and size of the workers.
        study: The study's name.
        storage: URL of its database including the password, which the worker gets through its
            environment.
        data_dir: Folder of the data sets.
        artifacts: Folder that all workers share.
        at_most: Number of trials left: more workers would have nothing to do.
        environment: Variables of this process.
        folder: The name of the study's folder below ``artifacts``; as the study's if empty.
    """
    home = files_here(artifacts).resolve() / (folder or folder_name(study))
    gpus = _visible_gpus(environment) if fleet.is_local and fleet.gpus else []
    return [
        Job(
            name=f"worker-{i}",
            argv=(
                *(sys.executable, "-m", "searchae", "worker"),
                *("--study", study),
                *("--device", fleet.device if not gpus else "cuda"),
                *("--threads", str(fleet.threads)),
                *("--precision", fleet.precision),
                *("--data-dir", str(data_dir.resolve())),
                *("--artifacts", str(artifacts.resolve())),
            ),
            log=home / "logs" / f"worker-{i}.log",
            environment={
                "SEARCHAE_STORAGE": storage,
                "OMP_NUM_THREADS": str(fleet.threads),
                **{k: v for k, v in HUGE_PAGES_ENVIRONMENT.items() if k not in environment},
                **({"SEARCHAE_PARENT": str(os.getpid())} if fleet.is_local else {}),
                **{k: environment[k] for k in _PASSED_ON if k in environment},
                **({} if fleet.is_local else credentials(artifacts, environment)),
                **_visible_device(gpus, i, fleet.device),
                **_gpu_sharing(fleet, gpus, i),
            },
            cpus=fleet.threads,
            gpus=fleet.gpus,
        )
        for i in range(min(fleet.workers, at_most))
    ]


def _gpu_sharing(fleet: Fleet, gpus: Sequence[str], index: int) -> dict[str, str]:
    """Tells a worker whether to exit when the GPU that it shares runs out of memory.

    The first worker of each GPU stays.
    """
    if not 0 < fleet.gpus < 1:
        return {}
    first = index < (1 if ":" in fleet.device else len(gpus))
    return {"SEARCHAE_SHARES": "stay" if first or not gpus else "leave"}


def _visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the GPUs that this process may use, each by index or UUID.

    As CUDA reads the variable, a negative index hides itself and all that follow.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        parts = [part.strip() for part in visible.split(",") if part.strip()]
        return list(takewhile(lambda part: not part.startswith("-"), parts))
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _visible_device(gpus: Sequence[str], index: int, device: str) -> dict[str, str]:
    """Makes one GPU visible to a worker: a CUDA context on another one would waste memory."""
    if not gpus:
        return {}
    if ":" in device:
        return {"CUDA_VISIBLE_DEVICES": gpus[int(device.partition(":")[2])]}
    return {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
