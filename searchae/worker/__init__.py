"""Worker processes: claim trials, train them, report, and renew their leases.

``loop`` claims trials, ``trial_runner`` runs one of them, ``objective`` trains it.
"""

from searchae.worker.loop import Worker, preload
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions, WorkerResults
from searchae.worker.training_record import (
    FAILURE_VERBS,
    RecordError,
    TrainingRecord,
    read_content,
    read_record,
    record_path,
    shown_indices,
)
from searchae.worker.trial_runner import OUT_OF_MEMORY

__all__ = [
    "FAILURE_VERBS",
    "OUT_OF_MEMORY",
    "RecordError",
    "TrainingRecord",
    "TrialHooks",
    "TrialJob",
    "Worker",
    "WorkerOptions",
    "WorkerResults",
    "preload",
    "read_content",
    "read_record",
    "record_path",
    "shown_indices",
]
