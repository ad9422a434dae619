"""Runs the workers of one study while processes and the database fail; prints counts as JSON.

    python -m tests.chaos --url sqlite:////tmp/chaos.db --trials 60 --seconds 20 --seed 5
    python -m tests.chaos --postgres --trials 60 --seconds 20 --seed 5

The workers are searchae's own, with a training that only sleeps and reports. For ``--seconds``,
one worker at a time is killed (SIGKILL), or suspended for longer than the grace period and resumed;
on PostgreSQL the sessions that hold a lock are terminated too. With ``--postgres`` the script runs
its own server, and stops and restarts it, sometimes after more than the grace period. The budget
must be met exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from searchae import data
from searchae.config import loader
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import load_study, open_study
from searchae.training.epoch import EpochResult
from searchae.training.trial_checkpoints import PausedError, PrunedError
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions
from tests.postgres_server import PostgresServer

GRACE_S = 2.5
DOCUMENT: dict[str, dict[str, Any]] = {
    "data": {"name": "npz", "path": "chaos.npz"},
    "train": {
        "epochs": 4,
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "optimizer": {"choices": ["adam", "sgd", "rmsprop"]},
    },
    "search": {
        "sampler": "random",
        "pruner": "median",
        "startup_trials": 4,
        "heartbeat_s": 0.4,
        "grace_s": GRACE_S,
        "max_attempts": 1000,
    },
}


def pretend(job: TrialJob, hooks: TrialHooks) -> float:
    """Simulates a training of four epochs, in a fraction of a second."""
    for epoch in range(max(job.reported, default=0) + 1, 5):  # as from a checkpoint
        time.sleep(random.uniform(0.02, 0.12))
        if hooks.should_stop():
            from searchae.training.trainer import Interrupted

            raise Interrupted("stopped")
        job.trial.report(-job.params.train.learning_rate + epoch, epoch)
        if epoch < 4 and job.trial.should_prune():
            raise PrunedError
        if epoch < 4 and job.trial.should_pause():
            hooks.on_result(EpochResult(epoch, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
            raise PausedError(epoch)
    return float(4 - job.params.train.learning_rate)


def send(pid: int, number: int) -> None:
    """Sends a signal to a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def spawn(url: str, folder: Path) -> int:
    """Forks a worker; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        options = WorkerOptions(device="cpu", data_dir=folder, artifacts=folder / "artifacts")
        Worker(load_study(connect(url, patient=True), "chaos"), options, train=pretend).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def reap_children(pids: set[int]) -> dict[int, int]:
    """Returns the processes that have ended, with their wait status."""
    ended = {}
    for pid in list(pids):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            pids.discard(pid)
            ended[pid] = status
    return ended


def terminate_lock_sessions(url: str) -> int:
    """Ends every PostgreSQL session that holds an advisory lock."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return len(
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND granted"
                )
            ).all()
        )


def cut_power(server: PostgresServer, dice: random.Random) -> None:
    """Stops the database for a while, one time in three for longer than the grace period."""
    server.stop()
    longest = 2 * GRACE_S if dice.random() < 1 / 3 else 1.0
    time.sleep(dice.uniform(longest / 2, longest))
    server.start()


def inject_failures(
    url: str,
    folder: Path,
    pids: set[int],
    options: argparse.Namespace,
    server: PostgresServer | None,
) -> Counter[str]:
    """Kills and suspends workers for a while, and replaces those that end."""
    dice, done = random.Random(options.seed), Counter[str]()
    until = time.monotonic() + options.seconds
    asleep: dict[int, float] = {}
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, 0.5))
        for pid, wake in list(asleep.items()):
            if time.monotonic() > wake:
                del asleep[pid]
                send(pid, signal.SIGCONT)
        victims = [p for p in pids if p not in asleep]
        if victims:
            strike(dice.choice(victims), dice, done, asleep)
        if url.startswith("postgresql") and dice.random() < 0.3:
            done["lock sessions terminated"] += terminate_lock_sessions(url)
        if server is not None and dice.random() < 0.1:
            cut_power(server, dice)
            done["database stopped"] += 1
        reap_children(pids)
        while len(pids) < options.workers:
            pids.add(spawn(url, folder))
            done["started"] += 1
    for pid in asleep:
        send(pid, signal.SIGCONT)
    return done


def strike(pid: int, dice: random.Random, done: Counter[str], asleep: dict[int, float]) -> None:
    """Kills a worker, or suspends it for longer than the grace period."""
    if dice.random() < 0.7:
        send(pid, signal.SIGKILL)
        done["killed"] += 1
    else:
        send(pid, signal.SIGSTOP)
        asleep[pid] = time.monotonic() + 3.5
        done["stopped"] += 1


def main() -> None:
    """Runs the command line; see the module."""
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url")
    where.add_argument("--postgres", action="store_true", help="a server that is stopped too")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pruner", default="median")
    options = parser.parse_args()
    if options.postgres:
        with PostgresServer() as server:
            print(json.dumps(run(server.url(), options, server)))
    else:
        print(json.dumps(run(options.url, options, None)))


def run(url: str, options: argparse.Namespace, server: PostgresServer | None) -> dict[str, Any]:
    """Runs one study to its end under failures; returns counts of what happened."""
    folder = Path(tempfile.mkdtemp())
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "chaos.npz", x_train=images, x_test=images)
    search = {**DOCUMENT["search"], "pruner": options.pruner}
    spec = loader.spec_from_document({**DOCUMENT, "search": search}, source="chaos")
    splits = data.load_splits(spec.data, data_dir=folder, seed=spec.seed)
    storage = connect(url)
    stored, _ = open_study(storage, "chaos", spec=spec, data_hash=splits.hash, baseline_db=0.0)
    Coordinator(stored).set_budget(options.trials)
    storage.engine.dispose()

    started = time.monotonic()
    pids = {spawn(url, folder) for _ in range(options.workers)}
    done = inject_failures(url, folder, pids, options, server)
    exits: dict[int, int] = {}
    while pids and time.monotonic() - started < options.seconds + 120:
        exits |= reap_children(pids)
        time.sleep(0.1)
    stuck = len(pids)
    for pid in pids:
        send(pid, signal.SIGKILL)

    stored = load_study(connect(url), "chaos")
    counts = Coordinator(stored).counts()
    trials = stored.study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    return {
        "budget": counts.budget,
        "finished": counts.finished,
        "running": counts.running,
        "failed": counts.failed,
        "waiting": counts.waiting + counts.paused,
        "numbers_unique": len({t.number for t in trials}) == len(trials),
        "params_unique": len({str(t.params) for t in trials}) == len(trials),
        "reports": sorted({len(t.intermediate_values) for t in complete}),
        "wrong_values": sum(t.value != 4 - t.params["learning_rate"] for t in complete),
        "stuck_workers": stuck,
        "exit_statuses": sorted(set(exits.values())),
        "seconds": round(time.monotonic() - started, 1),
        **done,
    }


if __name__ == "__main__":
    main()
