"""Jobs of ``benchmarks.gpu`` that run other programs: a whole search, and the tests of the GPU."""

from __future__ import annotations

import json
import re
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
"""Seconds of a call that no worker gets: imports before, the last epochs and the summary after."""
LARGEST_DATABASE = 15 * 2**20
"""Bytes up to which the search's database is copied beside the records, for a later call."""


def search(settings: Settings, emit: Emit) -> None:
    """Emits how far ``tune --study svhn`` has come on drawn house numbers; a later call goes on."""
    (case,) = settings["cases"]
    ends = time.monotonic() + settings["limit_s"] - START_AND_END_S
    work, out = Path(settings["work"]), Path(settings["out"])
    work.mkdir(parents=True, exist_ok=True)
    database, log = work / "search.db", out / "search.log"
    for earlier in settings["earlier"]:
        if not database.exists() and (Path(earlier) / database.name).exists():
            shutil.copy(Path(earlier) / database.name, database)
    _draw(settings, work)
    with log.open("ab") as told:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "searchae", "tune"),
                *_arguments(settings, work, max(5.0, ends - time.monotonic())),
            ],
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            check=False,
        )
    if done.returncode:
        emit(case, {"error": f"tune ended with exit code {done.returncode}: see {log.name}"})
        return
    if database.exists() and database.stat().st_size <= LARGEST_DATABASE:
        shutil.copy(database, out / database.name)
    figures = search_figures(json.loads(done.stdout), settings)
    emit(case, {"figures": {**figures, "workers": workers_of(log.read_text())}})


def _overrides(settings: Settings) -> dict[str, Any]:
    own = {
        "data.name": "house-numbers",
        "data.train_images": settings["images"],
        "data.test_images": 1000,
    }
    return own | ({"train.epochs": 1, "model.channels": [4, 8]} if settings["quick"] else {})


def _draw(settings: Settings, work: Path) -> None:
    """Draws the images, if that has not been done: the time limit is for the search."""
    from searchae.config import find_study_file, load_study_file
    from searchae.data import load_splits

    words = [f"{key}={value}" for key, value in _overrides(settings).items()]
    spec = load_study_file(find_study_file("svhn"), overrides=words, environment={})
    load_splits(spec.data, data_dir=work / "data", seed=spec.seed)


def _arguments(settings: Settings, work: Path, seconds: float) -> list[str]:
    overrides = (("--set", f"{key}={value}") for key, value in _overrides(settings).items())
    on_gpu = settings["device"] == "cuda"
    return [
        *("--study", "svhn", "--name", "gpu", "--trials", str(settings["trials"])),
        *(word for pair in overrides for word in pair),
        *("--storage", f"sqlite:///{work / 'search.db'}"),
        *("--data-dir", str(work / "data"), "--artifacts", str(work / "artifacts")),
        *("--device", settings["device"], "--max-hours", f"{seconds / 3600:.5f}"),
        *(("--workers-per-device", "auto") if on_gpu else ("--workers", "1")),
        "--json",
    ]


def workers_of(log: str) -> str:
    """Returns the number of workers that the last ``tune`` of a log has chosen; empty if none."""
    found = re.findall(r"workers a GPU: (\d+)", log)
    return found[-1] if found else ""


def search_figures(summary: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Returns what is kept of ``tune --json``.

    Args:
        summary: What it printed.
        settings: Of the job: ``trials`` and ``images``.
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
        "images_per_s": 0.9 * settings["images"] * epochs / wall_s if wall_s else None,
    }


def tests(settings: Settings, emit: Emit) -> None:
    """Emits how many tests of a file, of those that need a GPU, have passed."""
    (case,) = settings["cases"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"),
                *("-v", f"--junitxml={report}", str(ROOT / "tests" / case)),
            ],
            stdout=sys.stderr,
            cwd=ROOT,
            check=False,
        )
        if not report.exists():
            emit(case, {"error": "pytest has written no report: see the log"})
            return
        emit(case, {"figures": junit_figures(report.read_text())})


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
