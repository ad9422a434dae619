"""One worker process: claims trials, trains them, reports, and keeps its lease alive."""

from searchae.worker.loop import Worker, WorkerOptions, WorkerResults

__all__ = [
    "Worker",
    "WorkerOptions",
    "WorkerResults",
]
