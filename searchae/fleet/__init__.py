"""Runs the workers of one study until its work is done: a search's, or a list of trainings."""

from searchae.fleet.list_run import (
    ListRun,
    Plan,
    RecordFolder,
    Results,
    TrainingResult,
)
from searchae.fleet.monitor import StopRequest, Watcher, follow_workers

__all__ = [
    "ListRun",
    "Plan",
    "RecordFolder",
    "Results",
    "StopRequest",
    "TrainingResult",
    "Watcher",
    "follow_workers",
]
