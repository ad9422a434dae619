"""The processes of the GPU measurement: each trains one model on random images."""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from searchae.config import TrialParams
from searchae.errors import SearchaeError
from searchae.launch import configure_malloc
from searchae.training import EpochResult, Precision, Trainer

STEPS_PER_EPOCH = 20
WARM_UP_EPOCHS = 2
ANSWER_S = 180.0
"""Seconds without an answer after which a process counts as failed."""


class ProbeError(SearchaeError):
    """A process of the measurement failed; the message has its error."""


@dataclass(frozen=True)
class GpuMemory:
    """Memory of a process and of its GPU, in bytes.

    Attributes:
        reserved: The most that the process has reserved for tensors.
        free: Free on the GPU.
        total: Of the GPU.
    """

    reserved: int
    free: int
    total: int


@dataclass(frozen=True)
class ProbeTask:
    """What each process trains.

    Attributes:
        params: The trial; the largest model of a study needs the most memory.
        image_shape: (C, H, W) of the random images.
        device: ``cuda``, ``cuda:N`` or ``cpu``.
        precision: Precision of the training.
        images: Number of images that a worker holds on the device, training and validation
            together; a process generates fewer, but counts the memory of all.
        value_bytes: Bytes of one value of these images.
    """

    params: TrialParams
    image_shape: tuple[int, int, int]
    device: str
    precision: Precision
    images: int = 0
    value_bytes: int = 1


class ProbeProcess:
    """A process of the measurement, as seen by the one that measures.

    Attributes:
        memory: Its memory once it is ready; None on a CPU.
    """

    def __init__(self, task: ProbeTask) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(other_end, task), daemon=True
        )
        self.memory: GpuMemory | None = None
        with _sigint_ignored():
            self._process.start()
        other_end.close()

    def wait_ready(self) -> None:
        """Waits until the warm-up has ended.

        Raises:
            ProbeError: The process failed.
        """
        self.memory = self._answer()

    def start_measurement(self, until: float) -> None:
        """Lets the process train until a time of ``time.monotonic``."""
        with suppress(OSError):  # it has died, as the answer will show
            self._connection.send(until)

    def rate(self) -> float:
        """Returns the images per second of the measurement that was started.

        Raises:
            ProbeError: The process failed.
        """
        return float(self._answer())

    def _answer(self) -> Any:
        if not self._connection.poll(ANSWER_S):
            raise ProbeError(f"the measurement has not answered for {ANSWER_S:.0f} s")
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as e:
            raise ProbeError("a process of the measurement has died") from e
        if kind == "error":
            raise ProbeError(value)
        return value

    def close(self) -> None:
        """Asks the process to end."""
        self._connection.close()

    def join(self) -> None:
        """Waits until the process has ended; kills it after ten seconds."""
        self._process.join(10)
        if self._process.is_alive():
            self.kill()

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()


def start_processes(count: int, task: ProbeTask, cleanup: ExitStack) -> list[ProbeProcess]:
    """Starts processes and waits until each is ready to train.

    Args:
        count: How many.
        task: What each trains.
        cleanup: Gets the callbacks that end them.

    Raises:
        ProbeError: A process failed.
    """
    processes = []
    for _ in range(count):
        process = ProbeProcess(task)
        cleanup.callback(process.join)
        processes.append(process)
    for process in processes:
        cleanup.callback(process.close)  # last in, first out: all are closed before the first join
    for process in processes:
        process.wait_ready()
    return processes


def combined_rate(processes: Sequence[ProbeProcess], seconds: float) -> float:
    """Trains in all processes at once; returns their images per second together.

    Raises:
        ProbeError: A process failed.
    """
    until = time.monotonic() + seconds  # on Linux the same clock in every process
    for process in processes:
        process.start_measurement(until)
    return sum([process.rate() for process in processes])


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Processes started within the block ignore Ctrl-C: the one that measures ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, task: ProbeTask) -> None:
    """The process: warms up, then trains on each request until the connection is closed."""
    with suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            configure_malloc()
            torch.set_num_threads(1)
            epochs, images = _endless_training(task)
            # A worker holds all of its images, of which only some were generated here.
            missing = max(0, task.images - images) * math.prod(task.image_shape)
            missing *= task.value_bytes
            connection.send(("ready", _memory(torch.device(task.device), missing)))
            while True:
                rate = _measure_rate(epochs, images, until=connection.recv())
                connection.send(("rate", rate))
        except (SearchaeError, RuntimeError) as e:
            connection.send(("error", f"{type(e).__name__}: {e}"))


def _endless_training(task: ProbeTask) -> tuple[Iterator[EpochResult], int]:
    """Returns an endless training after its warm-up, and the number of images of an epoch."""
    batch_size = task.params.train.batch_size
    most = STEPS_PER_EPOCH * batch_size
    count = max(batch_size, min(most, task.images or most))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (count, *task.image_shape), generator=generator, dtype=torch.uint8
    )
    # A small learning rate, because models tend to diverge on random images.
    update = {"epochs": 1_000_000, "patience": 0, "learning_rate": 1e-4}
    trainer = Trainer(
        replace(task.params, train=task.params.train.model_copy(update=update)),
        train=images,
        validation=images[:batch_size],
        seed=0,
        device=torch.device(task.device),
        precision=task.precision,
    )
    epochs = trainer.epochs()
    for _ in range(WARM_UP_EPOCHS):
        next(epochs)
    return epochs, count


def _measure_rate(epochs: Iterator[EpochResult], images: int, *, until: float) -> float:
    """Returns the images per second over whole epochs, at least one."""
    started, done = time.perf_counter(), 0
    while not done or time.monotonic() < until:
        next(epochs)
        done += images
    return done / (time.perf_counter() - started)


def _memory(device: torch.device, missing: int) -> GpuMemory | None:
    """Returns the memory in use, as if ``missing`` further bytes were allocated."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(torch.cuda.max_memory_reserved(device) + missing, free - missing, total)
