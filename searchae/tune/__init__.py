"""Runs a search or shows what it would do: the use cases behind ``searchae tune``."""

from searchae.tune.dry_run import DryRun, plan_search
from searchae.tune.fleet_run import running_fleet
from searchae.tune.limits import set_time_limit
from searchae.tune.monitor import StopRequest, Watcher, follow_workers
from searchae.tune.notices import notifying
from searchae.tune.run import tune

__all__ = [
    "DryRun",
    "StopRequest",
    "Watcher",
    "follow_workers",
    "notifying",
    "plan_search",
    "running_fleet",
    "set_time_limit",
    "tune",
]
