"""Worker processes: claim trials, train them, report, and renew their leases.

``loop`` claims trials, ``trial_runner`` runs one of them, ``objective`` trains it.
"""

from searchae.worker.loop import Worker, preload
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions, WorkerResults

__all__ = [
    "TrialHooks",
    "TrialJob",
    "Worker",
    "WorkerOptions",
    "WorkerResults",
    "preload",
]
