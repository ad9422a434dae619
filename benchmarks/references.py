"""The published reference results: reproduced, and searched for better ones at the same budget.

    python -m benchmarks.references             # every row
    python -m benchmarks.references D E         # these
    python -m benchmarks.references --append    # and put the table into benchmarks/references.md

Everything runs through the command line, as a user would do it: ``searchae tune`` searches on a
part of the images, beginning with the published configuration (``[[search.first]]`` of the study
file); ``searchae train`` then trains that one and the best one on all images for the published
epochs, with the same seeds. Where a row has several finalists, the one with the best validation
PSNR counts. The search sees the validation split only. Row A has no published
figures: there ``searchae compare`` gives a verdict.

A row that is done is kept in the work folder and not run again; ``--no-l1-curve`` ends a comparison
with its verdicts, and the same command without it goes on from there. What stands in for data that
could not be had is named in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.reference_rows import ROWS, Comparison, Row, Run

TABLE = Path(__file__).with_name("references.md")
Say = Callable[[str], None]


def main() -> None:
    """Runs the rows that are asked for, and prints the table."""
    signal.signal(signal.SIGTERM, _end)
    options = _options()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    asked = options.rows or [row.key for row in ROWS]
    for row in [r for name in asked for r in ROWS if name in (r.key, r.key[0])]:
        if options.table or _done(_result(work, row), options):
            continue
        say = _teller(row.key)
        started = time.perf_counter()
        command = Commands(options, work / row.key)
        found = _compared(row, command, say) if isinstance(row, Comparison) else None
        if isinstance(row, Row):
            found = _reproduced(row, command, say)
        about = {"date": date.today().isoformat(), "machine": _machine(options)}
        _keep(work, row, {"seconds": time.perf_counter() - started, **(found or {}), **about})
    text = table(work)
    print(text)
    if options.append:
        with TABLE.open("a") as file:
            file.write(f"\n{text}")


class Commands:
    """The command line, in a row's own folder.

    Args:
        options: Of this program.
        folder: Gets the database, the artifacts and the bundles.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.workers = folder, int(options.workers)
        self.no_l1_curve: bool = options.no_l1_curve
        self.data_dir = Path(options.data_dir).resolve()
        self._environment = {
            **os.environ,
            "SEARCHAE_STORAGE": f"sqlite:///{(folder / 'searchae.db').resolve()}",
            "SEARCHAE_DATA_DIR": str(self.data_dir),
            "SEARCHAE_ARTIFACTS": str((folder / "artifacts").resolve()),
            "SEARCHAE_THREADS": "1",
            "SEARCHAE_DEVICE": options.device,
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *words: str) -> dict[str, Any]:
        """Runs a command with ``--json`` and returns what it prints; its progress goes to a log.

        Raises:
            SystemExit: The command failed; with the end of its log.
        """
        log = self.folder / f"{words[0]}.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "searchae", *words, "--json"],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
            _running.append(process)
            out, _ = process.communicate()
        _running.remove(process)
        if process.returncode:
            raise SystemExit(f"searchae {' '.join(words)} failed:\n{log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(out)
        return found

    def best_trials(self, study: str, count: int) -> list[int]:
        """Numbers of the search's best trials, the best first."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        found = optuna.load_study(study_name=study, storage=self._environment["SEARCHAE_STORAGE"])
        complete = found.get_trials(states=(TrialState.COMPLETE,))
        ranked = sorted(complete, key=lambda t: t.value or 0.0, reverse=True)
        return [t.number for t in ranked[:count]]


_running: list[subprocess.Popen[str]] = []


def _end(*_: object) -> None:
    """Commands go on without this program otherwise; a search takes its workers with it."""
    for process in _running:
        process.terminate()
    raise SystemExit("stopped: the same command goes on")


def _settings(settings: Mapping[str, Any]) -> list[str]:
    return [word for k, v in settings.items() for word in ("--set", f"{k}={_toml(v)}")]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # the same for texts, numbers and flags


def _search(row: Row | Comparison, command: Commands, say: Say) -> dict[str, Any]:
    settings = {**row.source.settings(command.data_dir), **row.settings, **row.search}
    say(f"searching: {row.trials} trials")
    return command.run(
        *("tune", "--study", row.study, "--name", row.key, "--trials", str(row.trials)),
        *("--workers", str(command.workers), *_settings(settings)),
    )


def _reproduced(row: Row, command: Commands, say: Say) -> dict[str, Any]:
    if row.prepare:
        row.prepare(command.data_dir, say)
    searched = _search(row, command, say)
    say(f"best of the search: trial {searched['best']['number']}, {searched['best']['params']}")
    started = time.perf_counter()
    # Where nothing better than the published one was found, it stands for both.
    finalists = command.best_trials(row.key, row.finalists)
    with ThreadPoolExecutor(command.workers) as pool:
        trained = {
            trial: pool.submit(_train, row, command, trial, say)
            for trial in dict.fromkeys((0, *finalists))
        }
    chosen = max((trained[t].result() for t in finalists), key=lambda r: r.validation_psnr_db)
    runs = {"reproduced": trained[0].result(), "searched": chosen}
    return {
        "params": chosen.metrics["params"],
        "finalists": len(finalists),
        # The search may have been done by an earlier, interrupted run.
        "seconds": searched["wall_s"] + time.perf_counter() - started,
        "budget": {
            "search": f"{searched['trials']['complete']} complete, "
            f"{searched['trials']['pruned']} pruned; {searched['epochs']['run']} epochs",
            "search_seconds": searched["wall_s"],
            **{f"{side}_seconds": run.metrics["seconds"] for side, run in runs.items()},
            "images": runs["reproduced"].metrics["training"]["images"],
            "epochs": runs["reproduced"].metrics["training"]["epochs"],
        },
        "seeds": [r["seed"] for r in runs["reproduced"].metrics["seeds"]["rows"]],
        "measures": [
            {
                "name": m.name,
                "published": m.published,
                "digits": m.digits,
                **{side: m.read(run) for side, run in runs.items()},
            }
            for m in row.measures
        ],
    }


def _train(row: Row, command: Commands, trial: int, say: Say) -> Run:
    out = command.folder / f"trial-{trial}"
    kept = out / "metrics.json"  # the last file that is written
    if kept.exists():
        return Run(out, json.loads(kept.read_text()), command.data_dir)
    say(f"training: trial {trial}, {row.seeds} seeds")
    metrics = command.run(
        *("train", "--study", row.key, "--trial", str(trial), "--epochs", "search"),
        *("--train-images", row.train_images, "--validation", str(row.validation)),
        *("--seeds", str(row.seeds), "--out", str(out)),
    )
    return Run(out, metrics, command.data_dir)


def _compared(row: Comparison, command: Commands, say: Say) -> dict[str, Any]:
    searched = _search(row, command, say)
    say("comparing")
    started = time.perf_counter()
    found = command.run(
        *("compare", "--study", row.key, "--until", str(row.until_db)),
        *("--max-hours", str(row.max_hours), "--workers", str(command.workers)),
        *("--out", str(command.folder / "compare.html")),
        *(("--no-l1-curve",) if command.no_l1_curve else ()),
    )
    seconds = time.perf_counter() - started
    return {
        "comparison": found,
        "search_seconds": searched["wall_s"],
        "comparison_seconds": seconds,
        "best_db": searched["best"]["psnr_db"],
    }


def table(work: Path) -> str:
    """The table of every row, those that were not run included, in Markdown."""
    head = "row | data | measure | published | reproduced | searched | budget | seeds | seconds"
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + " --- |" * columns]
    notes, verdicts = [], []
    for row in ROWS:
        found = _result(work, row)
        lead = f"| {row.key}: {row.title} | {row.source.words(used=found is not None)} |"
        if found is None:
            lines.append(f"{lead} not run |" + " |" * (columns - 3))
        elif "comparison" in found:
            lines.append(f"{lead} verdict | none | | see below | | | {found['seconds']:.0f} |")
            assert isinstance(row, Comparison)
            verdicts.append(_verdict(row, found))
        else:
            lines += _lines(lead, found)
        if found is not None:
            params = ", ".join(f"{k} = {_short(v)}" for k, v in found.get("params", {}).items())
            several = found.get("finalists", 1)
            of = f" (of {several} finalists, by validation)" if several > 1 else ""
            said = f" Searched{of}: {params}." if params else ""
            notes.append(f"- {row.key}: {found['date']}, {found['machine']}.{said} {row.note}")
    return "\n".join([*lines, "", *notes, "", *verdicts]).rstrip() + "\n"


def _lines(lead: str, found: Mapping[str, Any]) -> list[str]:
    budget = found["budget"]
    words = (
        f"each {budget['epochs']} epochs of {budget['images']:,} images; search: {budget['search']}"
    )
    seconds = (
        f"{found['seconds']:.0f} (search {budget['search_seconds']:.0f}, trainings "
        f"{budget['reproduced_seconds']:.0f} and {budget['searched_seconds']:.0f})"
    )
    seeds = ", ".join(map(str, found["seeds"]))
    lines = []
    for i, m in enumerate(found["measures"]):
        here, there = (f"{m[side]:.{m['digits']}f}" for side in ("reproduced", "searched"))
        tail = f" {words} | {seeds} | {seconds} |" if i == 0 else " | | |"
        start = lead if i == 0 else "| | |"
        lines.append(f"{start} {m['name']} | {m['published']} | {here} | {there} |{tail}")
    return lines


def _verdict(row: Comparison, found: Mapping[str, Any]) -> str:
    comparison = found["comparison"]
    lines = [
        f"- {c['sentence']} [half-width {c['half_width_db'] or 0:.2f} dB; {len(c['bases'])} bases, "
        f"{c['seeds']} seeds, {c['trainings']} trainings]"
        for c in comparison["comparisons"]
    ]
    curve = comparison["l1_curve"]
    if curve:
        lines.append(f"- {curve['sentence']}")
    said = "\n".join(lines)
    return (
        f"{row.key}, {row.title}: {row.source.name}; best of the search {found['best_db']:.2f} dB "
        f"on its validation split. Search {found['search_seconds'] / 60:.0f} minutes, comparison "
        f"{found['comparison_seconds'] / 60:.0f} minutes: {comparison['trainings']} trainings of "
        f"at most {comparison['epochs']} epochs, {comparison['tries']} to find learning rates."
        f"\n\n{said}\n"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _result(work: Path, row: Row | Comparison) -> dict[str, Any] | None:
    path = work / row.key / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def _done(found: Mapping[str, Any] | None, options: argparse.Namespace) -> bool:
    if found is None or options.no_l1_curve or "comparison" not in found:
        return found is not None
    return found["comparison"]["l1_curve"] is not None


def _keep(work: Path, row: Row | Comparison, found: Mapping[str, Any]) -> None:
    (work / row.key / "result.json").write_text(json.dumps(found, indent=2))


def _machine(options: argparse.Namespace) -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = os.getloadavg()[1]
    return (
        f"{len(names)} cores of {names[0] if names else platform.processor()}, "
        f"{options.workers} processes of one thread, load {load:.1f} at the end"
    )


def _teller(key: str) -> Say:
    return lambda text: print(f"{time.strftime('%H:%M:%S')} {key}: {text}", file=sys.stderr)


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [row.key for row in ROWS]
    parser.add_argument("rows", nargs="*", metavar="NAME", help=f"of {', '.join(known)}, or A to E")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--work", type=Path, default=Path("artifacts/references"))
    parser.add_argument("--workers", type=int, default=2, help="processes at once, a thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="run nothing; print what there is")
    parser.add_argument("--no-l1-curve", action="store_true", help="comparisons: verdicts only")
    parser.add_argument("--append", action="store_true", help=f"add the table to {TABLE.name}")
    options = parser.parse_args(words)
    unknown = set(options.rows) - {*known, *(k[0] for k in known)}
    if unknown:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    main()
