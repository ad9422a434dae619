"""What a tracker that is away costs a search: whole commands, side by side.

    python -m benchmarks.trackers [--rounds 5] [--tracker mlflow|wandb] [--trials 6]

Each round runs the same search three times, in turns: without ``--track``; with it, where nobody
listens at the tracker's address (``refused``); and where a server takes connections and never
answers (``silent``). ``tune`` is the whole command by the clock, ``training`` the time from the
first trial's start to the last one's end, as the database has them, and ``end`` what the command
takes after that. ``in workers`` is the number of modules of trackers that a worker has loaded, of
searchae's and of their own libraries, by Python's own list of imports: with none, a training thread
spends no time in them.
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


def search(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Runs one search; its seconds, and the modules of trackers in its workers."""
    with tempfile.TemporaryDirectory() as temporary, server(side) as address:
        folder = Path(temporary)
        words = ["-s", "quickstart", "--trials", str(options.trials), "--workers", "1", "--json"]
        words += ["--set", f"train.epochs={options.epochs}", "--set", "search.pruner=none"]
        words += ["--set", f"data.train_images={options.images}", "--set", "data.test_images=50"]
        words += [] if side == "plain" else ["--track", options.tracker]
        began, by_clock = time.perf_counter(), time.time()
        done = subprocess.run(
            [sys.executable, "-m", "searchae", "tune", *words],
            cwd=folder,
            env={
                **os.environ,
                **SETTINGS,
                ADDRESS[options.tracker]: address,
                "PYTHONPROFILEIMPORTTIME": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        counts = json.loads(done.stdout)["trials"]
        assert counts["complete"] == options.trials, counts
        url = f"sqlite:///{folder / 'searchae.db'}"
        trials = optuna.load_study(study_name="quickstart", storage=url).get_trials()
        first = min(t.datetime_start for t in trials if t.datetime_start)
        last = max(t.datetime_complete for t in trials if t.datetime_complete)
        logs = "".join(p.read_text() for p in folder.rglob("*.log"))
        assert "import time:" in logs, "the workers' imports are not in their logs"
        return {
            "tune": took_s,
            "training": (last - first).total_seconds(),
            "end": by_clock + took_s - last.replace(tzinfo=UTC).timestamp(),
            "in workers": len(set(OF_TRACKERS.findall(logs))),
        }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tracker", choices=ADDRESS, default="mlflow")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=500)
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
        rows.append({**row, "in workers": max(one["in workers"] for one in measured)})
    print(table(rows))


if __name__ == "__main__":
    main()
