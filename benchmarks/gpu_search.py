"""Jobs of ``benchmarks.gpu`` that run other programs: a whole search, and the tests of the GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu_child import Emit, Settings
from benchmarks.speed_base import ROOT

START_AND_END_S = 45.0
"""Time of a call that no worker gets: imports before, the last epochs and the summary after."""
LARGEST_DATABASE = 15 * 2**20
"""Bytes up to which the search's database is copied beside the records, for a later call."""


def search(settings: Settings, emit: Emit) -> None:
    """Emits how far ``tune --study svhn`` has come on drawn house numbers; a later call goes on."""
    (case,) = settings["cases"]
    work, out = Path(settings["work"]), Path(settings["out"])
    work.mkdir(parents=True, exist_ok=True)
    database = work / "search.db"
    for earlier in settings["earlier"]:
        if not database.exists() and (Path(earlier) / database.name).exists():
            shutil.copy(Path(earlier) / database.name, database)
    seconds = max(5.0, settings["limit_s"] - START_AND_END_S)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "searchae", "tune", *_arguments(settings, work, seconds)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        emit(case, {"error": f"tune ended with exit code {done.returncode}: see the log"})
        return
    if database.exists() and database.stat().st_size <= LARGEST_DATABASE:
        shutil.copy(database, out / database.name)
    emit(case, {"figures": search_figures(json.loads(done.stdout), settings, took)})


def _arguments(settings: Settings, work: Path, seconds: float) -> list[str]:
    overrides = {
        "data.name": "house-numbers",
        "data.train_images": settings["images"],
        "data.test_images": 1000,
    }
    if settings["quick"]:
        overrides |= {"train.epochs": 1, "model.channels": [4, 8]}
    on_gpu = settings["device"] == "cuda"
    return [
        *("--study", "svhn", "--name", "gpu", "--trials", str(settings["trials"])),
        *(word for key, value in overrides.items() for word in ("--set", f"{key}={value}")),
        *("--storage", f"sqlite:///{work / 'search.db'}"),
        *("--data-dir", str(work / "data"), "--artifacts", str(work / "artifacts")),
        *("--device", settings["device"], "--max-hours", f"{seconds / 3600:.5f}"),
        *(("--workers-per-device", "auto") if on_gpu else ("--workers", "1")),
        "--json",
    ]


def search_figures(summary: Mapping[str, Any], settings: Settings, took: float) -> dict[str, Any]:
    """Returns what is kept of ``tune --json``.

    Args:
        summary: What it printed.
        settings: Of the job: ``trials`` and ``images``.
        took: Seconds of this call.
    """
    trials, best = summary["trials"], summary["best"] or {}
    ended = trials["complete"] + trials["pruned"]
    wall_s = summary["wall_s"]
    epochs = summary["epochs"]["run"]
    return {
        "ended": ended,
        "trials": settings["trials"],
        "left": settings["trials"] - ended,
        "failed": trials["failed"],
        "epochs": epochs,
        "epochs_full": summary["epochs"]["full"],
        "best_db": best.get("psnr_db"),
        "seconds": wall_s,
        "call_s": took,
        "images_per_s": 0.9 * settings["images"] * epochs / wall_s if wall_s else None,
    }


def tests(settings: Settings, emit: Emit) -> None:
    """Emits how many of the tests that need a GPU have passed."""
    files = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text()
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"),
                *("-v", f"--junitxml={report}", *files),
            ],
            stdout=sys.stderr,
            cwd=ROOT,
            check=False,
        )
        if not report.exists():
            emit("tests", {"error": "pytest has written no report: see the log"})
            return
        emit("tests", {"figures": junit_figures(report.read_text())})


def junit_figures(report: str) -> dict[str, Any]:
    """Returns the counts of a report in JUnit's XML, and the names of the tests that failed."""
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    total = {k: sum(int(s.get(k, 0)) for s in suites) for k in ("tests", "failures", "errors")}
    skipped = sum(int(s.get("skipped", 0)) for s in suites)
    failed = total["failures"] + total["errors"]
    return {
        "passed": total["tests"] - failed - skipped,
        "failed": failed,
        "skipped": skipped,
        "seconds": sum(float(s.get("time", 0)) for s in suites),
        "failures": [
            str(case.get("name"))
            for suite in suites
            for case in suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ],
    }
