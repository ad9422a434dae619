"""What a GPU makes of searchae: measured in calls of at most nine minutes, without a network.

    benchmarks/gpu.sh --fetch artifacts/gpu-packages      # before, where there is a network
    benchmarks/gpu.sh --packages artifacts/gpu-packages   # all parts, as far as nine minutes go
    benchmarks/gpu.sh steps=120 workers --packages ...    # some, the first for at most two minutes
    benchmarks/gpu.sh --device cpu --quick                # does all of it run?

Each part has a time limit, and each case is kept as soon as it is measured, in ``gpu.jsonl`` of
the output folder (``--out``, else ``$OUT``, else ``artifacts/gpu``). A call measures what no
earlier one has; ``--earlier`` names the output folders of calls whose results lie elsewhere. The
tables of all results are printed at the end, and are ``gpu.md`` beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import gpu_packages, gpu_plan
from benchmarks.gpu_records import Record, append_record, finished_cases, markdown, read_records
from benchmarks.speed_base import ROOT, say

LEAST_S = 10.0
"""No process is started for less."""
GRACE_S = 10.0
"""From SIGTERM to SIGKILL."""


@dataclass
class Session:
    """One call: its records, and how much time it has.

    Attributes:
        out: Gets the records and the log.
        common: Settings that all jobs get.
        environment: Of their processes.
        ends: When the call must end, of ``time.monotonic``.
        quick: Whether sizes are small.
        records: Of this call and of earlier ones.
        about: Fields that every record of this call gets.
    """

    out: Path
    common: Mapping[str, Any]
    environment: Mapping[str, str]
    ends: float
    quick: bool
    records: list[Record]
    about: dict[str, Any] = field(default_factory=dict)

    def run_part(self, part: str, limit_s: float) -> None:
        """Measures what is left of a part, for so many seconds at most."""
        ends = min(self.ends, time.monotonic() + limit_s)
        for job in gpu_plan.jobs(part, done=finished_cases(self.records, part), quick=self.quick):
            left_s = ends - time.monotonic()
            if left_s < LEAST_S:
                say(f"{part}: no time for {', '.join(job.cases)}")
                continue
            say(f"{part}: {', '.join(job.cases)}")
            self._run(job, left_s)

    def _run(self, job: gpu_plan.Job, limit_s: float) -> None:
        left = dict.fromkeys(job.cases)

        def keep(result: Record) -> None:
            left.pop(result["case"], None)
            self.add({"part": job.part, **result})

        failure = run_job(
            job.function,
            {**self.common, **job.settings, "cases": job.cases, "limit_s": limit_s},
            environment=self.environment,
            limit_s=limit_s,
            log=self.out / "gpu.log",
            keep=keep,
        )
        for case in left if failure else ():
            self.add({"part": job.part, "case": case, "error": failure})

    def add(self, record: Record) -> None:
        """Keeps a record."""
        whole = {**record, **self.about, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        append_record(self.out / "gpu.jsonl", whole)
        self.records.append(whole)


def run_job(
    function: str,
    settings: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    log: Path,
    keep: Callable[[Record], None],
) -> str:
    """Runs a function of ``gpu_child``'s kind in a process of its own.

    Args:
        function: ``module:function`` of this package.
        settings: Its settings.
        environment: The process's variables.
        limit_s: Seconds after which it is ended, with all processes that it has started.
        log: Its standard error is appended to this file.
        keep: Called with each of its results.

    Returns:
        How it failed; empty if it did not.
    """
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_child", function, json.dumps(dict(settings))],
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    timers = [
        threading.Timer(after_s, _signal_group, (process.pid, number))
        for after_s, number in ((limit_s, signal.SIGTERM), (limit_s + GRACE_S, signal.SIGKILL))
    ]
    started = time.monotonic()
    for timer in timers:
        timer.start()
    try:
        for line in process.stdout:
            keep(json.loads(line))
        code = process.wait()
    finally:
        for timer in timers:
            timer.cancel()
        _signal_group(process.pid, signal.SIGKILL)  # what it may have left
    if time.monotonic() - started >= limit_s:
        return f"ended at its time limit of {limit_s:.0f} s"
    return f"exit code {code}: see {log.name}" if code else ""


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def wanted_parts(words: Sequence[str]) -> dict[str, float]:
    """Returns the most seconds of each part that was named as ``PART`` or ``PART=SECONDS``.

    Raises:
        ValueError: There is no such part, or it has no such time.
    """
    found = {}
    for word in words or gpu_plan.LIMITS_S:
        part, _, seconds = word.partition("=")
        if part not in gpu_plan.LIMITS_S:
            raise ValueError(f"no part {part!r}: use {', '.join(gpu_plan.LIMITS_S)}")
        found[part] = float(seconds) if seconds else float(gpu_plan.LIMITS_S[part])
    return found


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART[=SECONDS]", help=f"of {', '.join(gpu_plan.LIMITS_S)}"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call, at most")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "artifacts/gpu"))
    parser.add_argument("--earlier", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--work", type=Path, default=Path("artifacts/gpu-work"))
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="what --fetch has fetched")
    parser.add_argument("--fetch", type=Path, metavar="FOLDER", help="fetch packages, then end")
    parser.add_argument("--quick", action="store_true", help="small sizes: figures mean nothing")
    given = parser.parse_args()
    try:
        given.parts = wanted_parts(given.parts)
    except ValueError as e:
        parser.error(str(e))
    return given


def main() -> None:
    """Measures the parts that are asked for, and prints the tables of all results."""
    given = _options()
    ends = time.monotonic() + 60 * given.minutes
    if given.fetch:
        gpu_packages.download(given.fetch)
        return
    for folder in (given.out, given.work):
        folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "gpu.jsonl" for folder in (*given.earlier, given.out)]
    session = Session(
        out=given.out.resolve(),
        common={
            "device": given.device,
            "work": str(given.work.resolve()),
            "out": str(given.out.resolve()),
            "earlier": [str(folder.resolve()) for folder in given.earlier],
        },
        environment=_environment(given),
        ends=ends - GRACE_S,
        quick=given.quick,
        records=[
            record
            for file in files
            if file.exists()
            for record in read_records(file)
            if bool(record.get("quick")) == given.quick
        ],
        about={"commit": _commit(), "quick": given.quick},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left
    session.about["machine"] = _machine(session)
    try:
        for part, limit_s in given.parts.items():
            session.run_part(part, limit_s)
    finally:
        text = markdown(session.records)
        (session.out / "gpu.md").write_text(text)
        print(text)


def _environment(given: argparse.Namespace) -> dict[str, str]:
    folders = [str(ROOT)]
    if given.packages:
        folders.append(str(gpu_packages.importable(given.packages, given.work)))
    folders += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def _machine(session: Session) -> dict[str, Any]:
    found: list[Record] = []
    failure = run_job(
        "gpu_child:machine",
        session.common,
        environment=session.environment,
        limit_s=120,
        log=session.out / "gpu.log",
        keep=found.append,
    )
    if failure:
        raise SystemExit(f"--device {session.common['device']}: {failure}")
    return dict(found[0]["figures"])


if __name__ == "__main__":
    main()
