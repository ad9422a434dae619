"""What a tracker that is away costs a search: whole commands, side by side.

    python -m benchmarks.trackers [--rounds 5] [--tracker mlflow|wandb] [--trials 6] [--epochs 20]

Each round runs the same search three times, in turns: without ``--track``; with it, where nobody
listens at the tracker's address (``refused``); and where a server takes connections and never
answers (``silent``). ``tune`` is the whole command by the clock, ``training`` the time from the
first trial's start to the last one's end, as the database has them, and ``end`` what the command
takes after that. Commands and workers are forked from a process that has imported them, as in the
tests: what Python takes to start is not measured.

At the end one search with the silent server runs in new processes, and prints how many modules of
trackers its worker has loaded, of searchae's and of their own libraries, by Python's own list of
imports. With none, the training thread spends no time in them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import optuna

from benchmarks.load import table
from tests.conftest import make_folder
from tests.forked_commands import run_command

ADDRESS = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_BASE_URL"}
SETTINGS = {"WANDB_API_KEY": "0" * 40, "WANDB_SILENT": "true"}
OF_TRACKERS = re.compile(r"^import time:.*\| +((?:mlflow|wandb|searchae\.tuning)(?:\..*)?)$", re.M)


@contextmanager
def server(side: str) -> Iterator[str]:
    """Yields the address of a tracker that is away."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if side == "silent":
            listener.listen(100)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # bound only: it is refused


def words_of(side: str, options: argparse.Namespace) -> list[str]:
    """The command of a side."""
    words = ["tune", "-s", "tiny", "--trials", str(options.trials), "--workers", "1", "--json"]
    words += ["--device", "cpu", "--threads", "1", "--set", "search.pruner=none"]
    words += ["--set", f"train.epochs={options.epochs}"]
    return words if side == "plain" else [*words, "--track", options.tracker]


def search(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Runs one search; returns its seconds."""
    with tempfile.TemporaryDirectory() as temporary, server(side) as address:
        folder = make_folder(Path(temporary))
        environment = {**os.environ, **SETTINGS, ADDRESS[options.tracker]: address}
        words = words_of(side, options)
        began, by_clock = time.perf_counter(), time.time()
        done = run_command(*words, cwd=folder, env=environment, timeout=1200)
        took_s = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        assert json.loads(done.stdout)["trials"]["complete"] == options.trials, done.stdout
        assert ("not sent" in done.stderr) == (side != "plain"), done.stderr
        assert ("not known to be sent" in done.stderr) == (side != "plain"), done.stderr
        url = f"sqlite:///{folder / 'searchae.db'}"
        trials = optuna.load_study(study_name="tiny", storage=url).get_trials()
        first = min(t.datetime_start for t in trials if t.datetime_start)
        last = max(t.datetime_complete for t in trials if t.datetime_complete)
        return {
            "tune": took_s,
            "training": (last - first).total_seconds(),
            "end": by_clock + took_s - last.replace(tzinfo=UTC).timestamp(),
        }


def modules_in_worker(options: argparse.Namespace) -> list[str]:
    """Returns the modules of trackers that a worker loads while the tracker is silent."""
    with tempfile.TemporaryDirectory() as temporary, server("silent") as address:
        folder = make_folder(Path(temporary))
        settings = {**SETTINGS, ADDRESS[options.tracker]: address, "PYTHONPROFILEIMPORTTIME": "1"}
        subprocess.run(
            [sys.executable, "-m", "searchae", *words_of("silent", options)],
            cwd=folder,
            env={**os.environ, **settings},
            capture_output=True,
            check=True,
        )
        logs = "".join(p.read_text() for p in folder.rglob("worker-*.log"))
        assert "searchae.worker.loop" in logs, "the worker's imports are not in its log"
        return sorted(set(OF_TRACKERS.findall(logs)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tracker", choices=ADDRESS, default="mlflow")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    sides = ["plain", "refused", "silent"]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(options.rounds):
        shift = number % len(sides)
        for side in sides[shift:] + sides[:shift]:
            found[side].append(search(side, options))
            print(json.dumps({"side": side, **found[side][-1]}), file=sys.stderr, flush=True)
    rows = []
    for side, measured in found.items():
        row: dict[str, Any] = {"side": side, "rounds": options.rounds}
        for name in ("tune", "training", "end"):
            values = [one[name] for one in measured]
            low, high = min(values), max(values)
            row[f"{name}, s"] = f"{statistics.median(values):.1f} ({low:.1f} to {high:.1f})"
        rows.append(row)
    print(table(rows))
    print("modules of trackers in a worker:", modules_in_worker(options))


if __name__ == "__main__":
    main()
