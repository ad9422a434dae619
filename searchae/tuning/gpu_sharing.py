"""The number of workers of a search, once it is known what they train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searchae.formatting import format_count
from searchae.launch import Fleet, Launcher, Request, available_cores, sized_fleet
from searchae.tuning import workers_per_gpu
from searchae.tuning.preflight import Prepared


def measured_fleet(
    prepared: Prepared, request: Request, launcher: Launcher, note: Callable[[str], None]
) -> Fleet:
    """Returns the fleet, with the number of workers per GPU measured if the request leaves it open.

    Args:
        prepared: The search.
        request: What it was prepared from.
        launcher: Where the workers run.
        note: Called with each measurement.
    """
    if request.workers_per_device is not None or request.workers or not prepared.fleet.gpus:
        return prepared.fleet
    workers = workers_per_gpu.workers_per_device(
        prepared.spec,
        image_shape=prepared.splits.image_shape,
        images=len(prepared.splits.train),
        held_out=len(prepared.splits.validation),
        device=prepared.device,
        precision=prepared.precision,
        note=note,
    )
    return sized_fleet(replace(request, workers_per_device=workers), launcher)


def crowding_warning(fleet: Fleet, *, left: int) -> str:
    """Returns a warning if the workers have more threads than this machine has cores, else "".

    Args:
        fleet: The workers.
        left: Number of trials to run, which limits the number of workers.
    """
    workers, cores = min(fleet.workers, left), available_cores()
    if fleet.gpus or not fleet.is_local or workers * fleet.threads <= cores:
        return ""
    return (
        f"{format_count(workers, 'worker')} of {format_count(fleet.threads, 'thread')} on "
        f"{format_count(cores, 'core')}: more threads than cores make each worker slower"
    )


def concurrent_trials(fleet: Fleet) -> int:
    """Returns the number of trials that train at once, each as fast as a single one."""
    if fleet.gpus or not fleet.is_local:
        return fleet.workers
    return max(1, min(fleet.workers, available_cores() // fleet.threads))
