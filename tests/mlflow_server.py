"""A real MLflow server on this machine, with its runs in SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 200.0


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """Runs a server with its runs and files in a folder; yields its address."""
    url = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    words += ["--artifacts-destination", str(folder / "files")]
    # Jobs need packages of mlflow's that its tracking does not.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            words,
            cwd=folder,
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(server, url, folder / "server.log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()[-2000:]}")


def runs_of(client: Any, experiment: str) -> tuple[Any, dict[int, Any], list[Any]]:
    """The study's run, the runs nested in it by trial number, and all runs of an experiment."""
    found = client.get_experiment_by_name(experiment)
    runs = list(client.search_runs([found.experiment_id])) if found else []
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    trials = [r for r in runs if "searchae.trial" in r.data.tags]
    assert all(r.data.tags["mlflow.parentRunId"] == parent.info.run_id for r in trials)
    by_number = {int(r.data.tags["searchae.trial"]): r for r in trials}
    assert len(by_number) == len(trials), "a trial stands there twice"
    return parent, by_number, runs


def curve_of(client: Any, run: Any, name: str = "psnr_db") -> list[tuple[int, float]]:
    """A metric's steps and values."""
    found = client.get_metric_history(run.info.run_id, name)
    return [(m.step, m.value) for m in sorted(found, key=lambda m: m.step)]
