"""What looking at a study of many trials, and joining it, costs by the trial.

20,000 trials are to be looked at within 3 seconds and 400 MiB, and joined within 5. What would grow
with them is measured on fewer: statements of SQL may not, and memory may by some KiB a trial.
"""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.large_study import add_trials
from searchae import data
from searchae.config.loader import load_study_file
from searchae.report.findings import collect_findings
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.study.summary import summarize
from searchae.worker.loop import Worker
from searchae.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")

FEW, MANY = 100, 600
MOST_KIB_A_TRIAL = 10
"""With the 200 MiB that a process takes at its start, 20,000 trials stay below 400 MiB."""

Use = Callable[[StoredStudy], object]


def cost(folder: Path, count: int, use: Use) -> tuple[int, float]:
    """Makes a study of so many ended trials and uses it; statements of SQL, and the peak in KiB."""
    spec = load_study_file(
        folder / "studies" / "tiny.toml", environment={}, changes={"search.trials": count + 1}
    )
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    url = f"sqlite:///{folder}/{count}.db"
    open_study(connect(url), "tiny", spec=spec, data_hash=splits.hash, baseline_db=11.5)
    add_trials(url, spec, 0, count)
    storage = connect(url)
    stored = load_study(storage, "tiny")
    statements: list[object] = []
    own = threading.get_ident()  # heartbeats, of another thread, come with time

    def count_statement(*told: object) -> None:
        if threading.get_ident() == own:
            statements.append(told)

    sa.event.listen(storage.engine, "before_cursor_execute", count_statement)
    tracemalloc.start()
    try:
        use(stored)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return len(statements), peak_bytes / 1024


def look(stored: StoredStudy) -> None:
    summarize(stored, Coordinator(stored))


def report(stored: StoredStudy) -> None:
    collect_findings(stored, artifacts=None)


def join(folder: Path) -> Use:
    """A worker samples and reports one more trial, without its training."""

    def use(stored: StoredStudy) -> None:
        options = WorkerOptions(
            device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts"
        )
        results = Worker(stored, options, train=lambda *_: 12.0).run()
        assert results.complete == 1

    return use


@pytest.mark.parametrize("what", ["look", "report", "join"])
def test_many_trials_take_no_more_statements_and_little_memory(folder: Path, what: str) -> None:
    use = {"look": look, "report": report, "join": join(folder)}[what]
    cost(folder, FEW - 1, use)  # what is imported and cached counts for nothing
    few, few_kib = cost(folder, FEW, use)
    many, many_kib = cost(folder, MANY, use)
    assert many <= few + 3
    assert (many_kib - few_kib) / (MANY - FEW) < MOST_KIB_A_TRIAL
