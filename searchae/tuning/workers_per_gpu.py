"""Measures how many trials a GPU should train side by side, before a search starts.

One small model leaves most of a GPU idle; beyond some number, several only wait for each other.
The number of processes is doubled as long as this clearly raises the images trained per second and
the GPU has memory for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from searchae.config import StudySpec
from searchae.training import CONTEXT_BYTES, Precision
from searchae.tuning.model_checks import build_networks, largest_trial
from searchae.tuning.workers_per_gpu_process import (
    GpuMemory,
    ProbeError,
    ProbeProcess,
    ProbeTask,
    combined_rate,
    start_processes,
)

COUNTS = (1, 2, 4, 8)
"""Numbers of processes that are measured."""
MIN_GAIN = 1.1
"""Factor by which doubling the processes must raise the throughput."""
MAX_MEMORY_SHARE = 0.9
"""Share of the GPU's memory that may be in use."""


@dataclass(frozen=True)
class Throughput:
    """The measured throughput of some processes.

    Attributes:
        processes: How many trained at once.
        images_per_s: Training images a second of all of them together.
    """

    processes: int
    images_per_s: float


def workers_per_device(
    spec: StudySpec,
    *,
    image_shape: tuple[int, int, int],
    images: int,
    held_out: int,
    device: torch.device,
    precision: Precision,
    note: Callable[[str], None],
) -> int:
    """Measures how many workers should share a GPU, with the study's largest model.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.
        images: Number of training images.
        held_out: Number of validation images.
        device: The GPU, or the first of several equal ones.
        precision: Precision of the training.
        note: Called with each measurement and the choice, as lines for the user.

    Returns:
        The number of workers; 1 if the model could not be trained on random images.
    """
    params = largest_trial(spec, build_networks(spec, image_shape))
    note("measuring how many workers a GPU bears ...")
    task = ProbeTask(
        params, image_shape, str(device), precision, images + held_out, spec.data.value_bits // 8
    )
    try:
        readings = measure_throughput(
            task,
            on_reading=lambda r: note(
                f"{r.processes} at once train {r.images_per_s:,.0f} images/s"
            ),
        )
    except ProbeError as e:
        note(f"not measured, so one worker a GPU: {e}")
        return 1
    workers = choose_workers_per_device(readings)
    note(f"workers a GPU: {workers}")
    return workers


def choose_workers_per_device(readings: Sequence[Throughput]) -> int:
    """Returns the last number of processes before the throughput gain falls below ``MIN_GAIN``.

    Args:
        readings: At least one, with increasing numbers of processes.
    """
    chosen = readings[0]
    for reading in readings[1:]:
        if reading.images_per_s < MIN_GAIN * chosen.images_per_s:
            break
        chosen = reading
    return chosen.processes


def has_room(memory: GpuMemory | None, more: int) -> bool:
    """Returns whether the GPU has memory for more processes like the measured one.

    Args:
        memory: Memory of a process and its GPU; None on a CPU, which always has room.
        more: Number of further processes.
    """
    if memory is None:
        return True
    needed = more * (memory.reserved + CONTEXT_BYTES)
    return memory.free - needed >= (1 - MAX_MEMORY_SHARE) * memory.total


def measure_throughput(
    task: ProbeTask,
    *,
    counts: Sequence[int] = COUNTS,
    seconds: float = 2.0,
    on_reading: Callable[[Throughput], None] = lambda _: None,
) -> list[Throughput]:
    """Trains in one process, then in more at once, until more do not pay or do not fit.

    Args:
        task: What each process trains.
        counts: Numbers of processes, increasing.
        seconds: Duration of each measurement.
        on_reading: Called with each measurement.

    Raises:
        ProbeError: The first process failed. If a later one fails, the measurements so far are
            returned.
    """
    readings: list[Throughput] = []
    processes: list[ProbeProcess] = []
    with ExitStack() as cleanup:
        for count in counts:
            if processes and not has_room(processes[-1].memory, count - len(processes)):
                break
            try:
                processes += start_processes(count - len(processes), task, cleanup)
                reading = Throughput(count, combined_rate(processes, seconds))
            except ProbeError:  # most likely out of memory
                if not readings:
                    raise
                break
            on_reading(reading)
            readings.append(reading)
            if choose_workers_per_device(readings) != count:
                break
    return readings
