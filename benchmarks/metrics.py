"""How long ``/metrics`` takes for a study of 100 workers and 20,000 trials.

    python -m benchmarks.metrics [--trials 20000] [--workers 100] [--calls 200]

For SQLite and PostgreSQL, which it starts itself: writes the study, has the workers claim a trial
each, starts ``searchae dashboard``, waits until it has read the study, and asks for ``/metrics``
again and again; every tenth time each worker has reported meanwhile. ``ms`` is by the clock, as a
monitoring system sees it; ``CPU ms`` is what the server's process and the database's took,
whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.dashboard import DOCUMENT, ask
from benchmarks.large_study import add_trials
from benchmarks.load import own_server, table
from searchae.config.loader import spec_from_document
from searchae.storage import reports
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import open_study
from tests.free_port import free_port

PATH = "/metrics"


def write_study(url: str, trials: int, workers: int) -> list[int]:
    """Writes the study; returns the ids of the trials that run."""
    storage = connect(url)
    document = {**DOCUMENT, "search": {"grace_s": 3600.0}}  # nobody renews the leases here
    spec = spec_from_document(document, source="benchmark")
    stored, _ = open_study(storage, "large", spec=spec, data_hash="a" * 64, baseline_db=14.0)
    running = []
    for number in range(workers):
        identity = ProcessIdentity(f"w{number}", f"host{number}", 1, f"place{number}", "1:1")
        coordinator = Coordinator(stored, identity)
        coordinator.join("cuda:0")
        claimed = coordinator.claim()
        assert isinstance(claimed, int)
        running.append(claimed)
    add_trials(url, spec, workers, trials - workers)
    storage.engine.dispose()
    return running


def report(engine: sa.Engine, running: list[int], step: int) -> None:
    """Adds a report to each trial that runs."""
    with engine.begin() as connection:
        connection.execute(
            sa.insert(reports),
            [
                {"trial_id": trial_id, "step": step, "intermediate_value": 20.0}
                | {"intermediate_value_type": "FINITE"}
                for trial_id in running
            ],
        )


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def backends(engine: sa.Engine) -> list[int]:
    """The processes of PostgreSQL that serve the dashboard; none with SQLite."""
    if engine.dialect.name == "sqlite":
        return []
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"{query} AND pid <> pg_backend_pid()")).scalars()
        return [int(pid) for pid in found]


def measure(kind: str, url: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One database; returns a row of the table."""
    running = write_study(url, options.trials, options.workers)
    engine, port = sa.create_engine(url, poolclass=sa.pool.NullPool), free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "searchae", "dashboard", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "SEARCHAE_STORAGE": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        first_s = wait(port)
        before = -1.0
        while cpu_s(server.pid) > before + 0.02:  # it reads the study's trials, for its own pages
            before = cpu_s(server.pid)
            time.sleep(2)
        taken, whole_s = [], 0.0
        for step in range(1, options.calls + 1):
            if step % 10 == 1:
                report(engine, running, step)
            pids = [server.pid, *backends(engine)]
            began = sum(map(cpu_s, pids))
            taken.append(ask(port, PATH)[0])
            whole_s += sum(map(cpu_s, pids)) - began
    finally:
        server.kill()
        server.wait()
    ms = sorted(1000 * by_clock for by_clock in taken)
    return {
        "database": kind,
        "trials": options.trials,
        "workers": options.workers,
        "first, ms": round(1000 * first_s),
        "least": round(ms[0], 1),
        "ms, median": round(statistics.median(ms), 1),
        "95%": round(ms[int(0.95 * len(ms))], 1),
        "CPU ms, mean": round(1000 * whole_s / options.calls, 1),
    }


def wait(port: int) -> float:
    """Waits until the server answers; returns the seconds of its first answer."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ask(port, PATH)[0]
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows.append(measure("SQLite", f"sqlite:///{folder / 'a.db'}", options, folder))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        with own_server(300, fsync=False) as url:
            rows.append(measure("PostgreSQL", url, options, folder))
    print(table(rows))


if __name__ == "__main__":
    main()
