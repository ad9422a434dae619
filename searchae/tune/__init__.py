"""The search: checks, plans, starts the workers, follows them, and sums up."""

from searchae.tune.dry_run import DryRun, plan_search
from searchae.tune.run import StopRequest, Watcher, tune

__all__ = [
    "DryRun",
    "StopRequest",
    "Watcher",
    "plan_search",
    "tune",
]
