"""A launcher whose workers are threads of this process, which spares the start of Python and torch.

They are the real workers; only the processes are missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchae.errors import SearchaeError
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.request import Request
from searchae.storage import parse_url
from searchae.storage.connection import connect
from searchae.study.stored_study import load_study
from searchae.worker.loop import Worker
from searchae.worker.options import WorkerOptions


@dataclass
class ThreadLauncher:
    """Runs each job in a thread.

    Attributes:
        started: The names of the jobs started.
    """

    is_local = True
    started: list[str] = field(default_factory=list)
    _running: dict[str, tuple[Job, threading.Thread, threading.Event]] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)

    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=0, machines=1)

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            stop = threading.Event()
            thread = threading.Thread(target=self._work, args=(job, stop), daemon=True)
            self._running[job.name] = (job, thread, stop)
            self.started.append(job.name)
            thread.start()

    def _work(self, job: Job, stop: threading.Event) -> None:
        told = dict(zip(job.argv[4::2], job.argv[5::2], strict=False))
        options = WorkerOptions(
            device="cpu",
            threads=int(told["--threads"]),
            data_dir=Path(told["--data-dir"]),
            artifacts=Path(told["--artifacts"]),
            is_local=True,  # it polls more often
        )
        self._codes[job.name] = 1
        try:
            stored = load_study(connect(job.environment["SEARCHAE_STORAGE"]), told["--study"])
            Worker(stored, options, stop).run()
            self._codes[job.name] = 0
        except SearchaeError as e:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text(str(e))

    def poll(self) -> list[Exit]:
        ended = [name for name, (_, thread, _) in self._running.items() if not thread.is_alive()]
        return [Exit(self._running.pop(name)[0], self._codes[name], 1.0) for name in ended]

    def alive(self) -> int:
        return sum(thread.is_alive() for _, thread, _ in self._running.values())

    def stop(self, *, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        for _, _, stop in self._running.values():
            stop.set()
        for _, thread, _ in self._running.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._running.clear()


@dataclass
class Recorder:
    """A watcher that keeps what it is told.

    Attributes:
        notes: The lines.
        rows: The trials that ended, in order.
    """

    notes: list[str] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trial(self, row: Any, *, best_db: float | None) -> None:
        del best_db
        self.rows.append(row)

    def progress(self, summary: Any) -> None: ...


def tiny_request(folder: Path, url: str, **more: Any) -> Request:
    """A search of the folder's study ``tiny`` by one worker; ``more`` are further fields."""
    return Request(
        study=str(folder / "studies" / "tiny.toml"),
        storage=parse_url(url),
        workers=1,
        threads=1,
        device="cpu",
        data_dir=folder / "data",
        artifacts=folder / "artifacts",
        **{"environment": {}, **more},
    )
