"""How many workers a search starts, where, and with what: a request -> jobs for a launcher."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchae import malloc
from searchae.errors import UserError
from searchae.launch.base import Job, Launcher, Resources

MOST_DEFAULT_WORKERS = 4
"""A sequential sampler learns less from more at once; ask for more with --workers."""

_PASSED_ON = ("SEARCHAE_KERNELS", "SEARCHAE_OPTUNA")
"""Environment variables that workers get from the process that starts them."""


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Fleet:
    """The workers of one search.

    Attributes:
        workers: How many at once.
        threads: CPU threads of each.
        gpus: GPUs of each; a fraction where several share one.
        device: What each is told to use.
        precision: The same: ``auto``, ``fp32`` or ``bf16``.
        nearby: Whether they are processes on this machine.
    """

    workers: int
    threads: int
    gpus: float
    device: str
    precision: str
    nearby: bool


def plan_fleet(
    launcher: Launcher,
    *,
    device: str,
    workers: int | None,
    workers_per_device: int,
    threads: int | None,
    precision: str = "auto",
) -> Fleet:
    """Sizes a fleet.

    Small nets gain little from a second thread: one worker a core trains more images a second
    than one worker with all cores.

    Args:
        launcher: Where they run.
        device: ``auto``, ``cpu``, ``cuda`` or, on this machine, ``cuda:N``.
        workers: How many at once; by what the launcher has if unset.
        workers_per_device: How many share a GPU.
        threads: CPU threads of each; the cores shared out if unset.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Raises:
        UserError: One GPU was named, and somebody else gives them out.
    """
    has = launcher.resources()
    if device.startswith("cuda:") and not launcher.nearby:
        raise UserError(f"--device {device}: the cluster gives out the GPUs; use --device cuda")
    on_gpu = device.startswith("cuda") or (device == "auto" and has is not None and has.gpus > 0)
    wanted = workers or _default_workers(has, device, workers_per_device if on_gpu else 0)
    if threads is None:
        threads = max(1, has.cpus // wanted) if launcher.nearby and has else 1
    gpus = 1 / workers_per_device if on_gpu else 0.0
    return Fleet(wanted, threads, gpus, device, precision, launcher.nearby)


def _default_workers(has: Resources | None, device: str, per_gpu: int) -> int:
    if has is None:
        return MOST_DEFAULT_WORKERS
    if per_gpu:
        return max(1, 1 if ":" in device else has.gpus) * per_gpu
    return min(has.cpus, MOST_DEFAULT_WORKERS)


def worker_jobs(
    fleet: Fleet,
    study: str,
    *,
    storage: str,
    data_dir: Path,
    artifacts: Path,
    at_most: int,
    environment: Mapping[str, str],
) -> list[Job]:
    """One job a worker.

    Args:
        fleet: How many, and with what.
        study: The study's name.
        storage: Its database's URL, password and all; it travels in the environment.
        data_dir: Where data sets lie.
        artifacts: The folder that all workers share.
        at_most: Trials that are left: more workers would have nothing to do.
        environment: This process's variables.
    """
    gpus = _visible_gpus(environment) if fleet.nearby and fleet.gpus else []
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
            log=artifacts.resolve() / study / "logs" / f"worker-{i}.log",
            environment={
                "SEARCHAE_STORAGE": storage,
                "OMP_NUM_THREADS": str(fleet.threads),
                **{k: v for k, v in malloc.HUGE_PAGES_ENVIRONMENT.items() if k not in environment},
                **({"SEARCHAE_PARENT": str(os.getpid())} if fleet.nearby else {}),
                **{k: environment[k] for k in _PASSED_ON if k in environment},
                **_seen(gpus, i, fleet.device),
                **_shares(fleet, gpus, i),
            },
            cpus=fleet.threads,
            gpus=fleet.gpus,
        )
        for i in range(min(fleet.workers, at_most))
    ]


def _shares(fleet: Fleet, gpus: Sequence[str], index: int) -> dict[str, str]:
    """What a worker does that has no memory on a GPU which it shares: the first of each stays."""
    if not 0 < fleet.gpus < 1:
        return {}
    first = index < (1 if ":" in fleet.device else len(gpus))
    return {"SEARCHAE_SHARES": "stay" if first or not gpus else "leave"}


def _visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """This machine's GPUs as this process may use them, by index or UUID."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _seen(gpus: Sequence[str], index: int, device: str) -> dict[str, str]:
    """The one GPU that a worker sees: a context on another would only take its memory."""
    if not gpus:
        return {}
    if ":" in device:
        return {"CUDA_VISIBLE_DEVICES": gpus[int(device.partition(":")[2])]}
    return {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
