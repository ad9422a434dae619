"""How many trials a GPU trains side by side: measured, before a search starts.

One small net leaves most of a GPU idle; from some number on, several only wait for each other.
Processes are added, twice as many each time, as long as that trains clearly more images a second
and there is memory for them.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from searchae import malloc
from searchae.config import StudySpec, TrialParams, batch_size_variants, model_variants
from searchae.errors import SearchaeError
from searchae.models import build_model, parameter_count
from searchae.training import CONTEXT_BYTES, Precision, Trainer

COUNTS = (1, 2, 4, 8)
GAIN = 1.1
"""What doubling has to bring at least."""
SHARE = 0.9
"""Of a device's memory, that may be in use."""

_STEPS = 20  # in an epoch of the measurement
_WARM_UP = 2  # epochs
_START_S = 180.0


class ProbeError(SearchaeError):
    """A process of the measurement has failed; the message has its error."""


@dataclass(frozen=True)
class Throughput:
    """What so many processes do at once.

    Attributes:
        processes: How many.
        images_per_s: Training images a second, of all.
    """

    processes: int
    images_per_s: float


@dataclass(frozen=True)
class GpuMemory:
    """A process's and its device's, in bytes.

    Attributes:
        reserved: The most that the process has held for tensors.
        free: On the device.
        total: Of the device.
    """

    reserved: int
    free: int
    total: int


@dataclass(frozen=True)
class ProbeTask:
    """What each process trains.

    Attributes:
        params: The trial; the largest net of a study says most about memory.
        image_shape: (C, H, W) of the drawn images.
        device: ``cuda``, ``cuda:N`` or ``cpu``.
        precision: Of the steps.
        images: A worker's, training and validation together; fewer are drawn to train on, but it
            is so many that a worker holds on the device.
    """

    params: TrialParams
    image_shape: tuple[int, int, int]
    device: str
    precision: Precision
    images: int = 0


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
    """How many workers a study's largest net lets a device bear.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.
        images: Training images.
        held_out: Validation images.
        device: The one, or the first of several of a kind.
        precision: Of the steps.
        note: Told of each measurement and of the choice, for people.

    Returns:
        1 where the net could not be trained on drawn images.
    """
    nets = model_variants(spec)
    largest = max(
        nets, key=lambda p: parameter_count(build_model(p.model, image_shape=image_shape))
    )
    most = {"batch_size": max(batch_size_variants(spec, nets))}
    largest = replace(largest, train=largest.train.model_copy(update=most))
    note("measuring how many workers a GPU bears ...")
    work = ProbeTask(largest, image_shape, str(device), precision, images + held_out)
    try:
        readings = measure_throughput(
            work, told=lambda r: note(f"{r.processes} at once train {r.images_per_s:,.0f} images/s")
        )
    except ProbeError as e:
        note(f"not measured, so one worker a GPU: {e}")
        return 1
    found = choose_workers_per_device(readings)
    note(f"workers a GPU: {found}")
    return found


def choose_workers_per_device(readings: Sequence[Throughput]) -> int:
    """The most processes that were each time clearly better than half as many.

    Args:
        readings: With more and more processes; the first is always good enough.
    """
    chosen = readings[0]
    for reading in readings[1:]:
        if reading.images_per_s < GAIN * chosen.images_per_s:
            break
        chosen = reading
    return chosen.processes


def has_room(memory: GpuMemory | None, more: int) -> bool:
    """Whether so many more processes fit beside one that has told its memory.

    Args:
        memory: None on a device whose memory nobody counts, as a CPU.
        more: Processes.
    """
    if memory is None:
        return True
    wanted = more * (memory.reserved + CONTEXT_BYTES)
    return memory.free - wanted >= (1 - SHARE) * memory.total


def measure_throughput(
    work: ProbeTask,
    *,
    counts: Sequence[int] = COUNTS,
    seconds: float = 2.0,
    told: Callable[[Throughput], None] = lambda _: None,
) -> list[Throughput]:
    """Trains in one process, then in more at once, until that does not pay.

    Args:
        work: What each does.
        counts: Numbers of processes, rising.
        seconds: Of each measurement.
        told: Called with each reading.

    Raises:
        ProbeError: The first process failed. Where a later one does, the readings so far stand.
    """
    readings: list[Throughput] = []
    crew: list[_Member] = []
    with ExitStack() as ends:
        for count in counts:
            if crew and not has_room(crew[-1].memory, count - len(crew)):
                break
            try:
                crew += _hired(count - len(crew), work, ends)
                reading = Throughput(count, _together(crew, seconds))
            except ProbeError:  # no memory after all, most likely
                if not readings:
                    raise
                break
            told(reading)
            readings.append(reading)
            if choose_workers_per_device(readings) != count:
                break
    return readings


class _Member:
    """A process of the measurement, seen from the one that measures."""

    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self._process, self._line = process, line
        self.memory: GpuMemory | None = None

    def wait_ready(self) -> None:
        self.memory = self._answer()

    def go(self, until: float) -> None:
        with suppress(OSError):  # it has died: the answer says so
            self._line.send(until)

    def rate(self) -> float:
        return float(self._answer())

    def _answer(self) -> Any:
        """What it says next.

        Raises:
            ProbeError: An error, nothing for minutes, or its end.
        """
        if not self._line.poll(_START_S):
            raise ProbeError(f"the measurement has not answered for {_START_S:.0f} s")
        try:
            kind, value = self._line.recv()
        except (EOFError, OSError) as e:
            raise ProbeError("a process of the measurement has died") from e
        if kind == "error":
            raise ProbeError(value)
        return value

    def close(self) -> None:
        """Tells it to end."""
        self._line.close()

    def end(self) -> None:
        """Waits until it has."""
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _hired(count: int, work: ProbeTask, ends: ExitStack) -> list[_Member]:
    """So many more, ready to train."""
    context = multiprocessing.get_context("spawn")
    members = []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _deaf():
            process.start()
        theirs.close()
        member = _Member(process, ours)
        ends.callback(member.end)
        members.append(member)
    for member in members:
        ends.callback(member.close)  # called first: they end side by side
    for member in members:
        member.wait_ready()
    return members


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started within it leaves Ctrl-C to the process that started it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _together(crew: Sequence[_Member], seconds: float) -> float:
    until = time.monotonic() + seconds  # on Linux one clock for all processes of a machine
    for member in crew:
        member.go(until)
    return sum([member.rate() for member in crew])


def _serve(line: Connection, work: ProbeTask) -> None:
    """A process: gets ready, then trains whenever it is told to, until the line is closed."""
    with suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            malloc.configure_malloc()
            torch.set_num_threads(1)
            epochs, images = _training(work)
            # A worker holds all of its images, of which only some were drawn here.
            missing = max(0, work.images - images) * math.prod(work.image_shape)
            line.send(("ready", _memory(torch.device(work.device), missing)))
            while True:
                line.send(("rate", _rate(epochs, images, until=line.recv())))
        except (SearchaeError, RuntimeError) as e:
            line.send(("error", f"{type(e).__name__}: {e}"))


def _training(work: ProbeTask) -> tuple[Any, int]:
    """A warm training's epochs, without end, and images of each."""
    batch_size = work.params.train.batch_size
    count = max(batch_size, min(_STEPS * batch_size, work.images or _STEPS * batch_size))
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *work.image_shape), generator=draws, dtype=torch.uint8)
    # A small learning rate: drawn images let a net diverge.
    endless = {"epochs": 1_000_000, "patience": 0, "learning_rate": 1e-4}
    trainer = Trainer(
        replace(work.params, train=work.params.train.model_copy(update=endless)),
        train=images,
        validation=images[:batch_size],
        seed=0,
        device=torch.device(work.device),
        precision=work.precision,
    )
    epochs = trainer.epochs()
    for _ in range(_WARM_UP):
        next(epochs)
    return epochs, count


def _rate(epochs: Any, images: int, *, until: float) -> float:
    """Images a second over whole epochs, one at least."""
    started, done = time.perf_counter(), 0
    while not done or time.monotonic() < until:
        next(epochs)
        done += images
    return done / (time.perf_counter() - started)


def _memory(device: torch.device, missing: int) -> GpuMemory | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(torch.cuda.max_memory_reserved(device) + missing, free - missing, total)
