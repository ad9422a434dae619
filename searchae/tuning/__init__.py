"""Runs a search or shows what it would do: the use cases behind ``searchae tune``."""

from searchae.tuning.dry_run import DryRun, plan_search
from searchae.tuning.fleet_run import running_fleet
from searchae.tuning.hosted_session import session
from searchae.tuning.limits import set_time_limit
from searchae.tuning.monitor import StopRequest, Watcher, follow_workers
from searchae.tuning.notebook_progress import NotebookProgress, in_notebook
from searchae.tuning.notices import notifying
from searchae.tuning.plain_lines import NoLines, PlainLines
from searchae.tuning.run import tune
from searchae.tuning.trackers import make_tracker, track_bundle, tracking

__all__ = [
    "DryRun",
    "NoLines",
    "NotebookProgress",
    "PlainLines",
    "StopRequest",
    "Watcher",
    "follow_workers",
    "in_notebook",
    "make_tracker",
    "notifying",
    "plan_search",
    "running_fleet",
    "session",
    "set_time_limit",
    "track_bundle",
    "tracking",
    "tune",
]
