"""Which pruner and which start of the sampler waste the fewest epochs.

    python -m benchmarks.defaults train --data-dir data --work W    # once: 25 minutes
    python -m benchmarks.defaults replay --work W                   # half an hour
    python -m benchmarks.defaults replay --work W --workers 2 --seeds 200 \
        --sides "halving /2, tpe 10" "halving /2, tpe 10, no floor"   # what the floor costs
    python -m benchmarks.defaults train --tables speed --images 2000 --epochs 6 --configs 144 ...

``train`` makes a table of configurations with their whole learning curves (``defaults_table``).
``replay`` runs searches on it: the sampler and the pruner are those that ``searchae.search`` makes
from a study's spec; a suggestion takes the curve of the nearest configuration. All epochs take the
same time. Of two suggestions near the same configuration both take it, so that what
is searched is one fixed function; ``--once`` gives the second one the next nearest instead.

A search goes on until it has both its trials and its epochs, and each figure is read from its
beginning. Its result is the final PSNR of the trial that ``searchae best`` would name, or the mean
image's while there is none; the regret is what the table's best final PSNR has over it. The epochs
until a search is near the best are those of all its trials until one has ended there, a pruned one
too, as ``benchmarks.speed search`` reads the time to a PSNR. With several workers, the first 12
trials of a search of 50 are not quite a search of 12: the pruner has seen a few reports of later
ones. What the searches tried of each choice is printed too (``defaults_choices``).

A training that diverges ends there for every side, with the mean image's PSNR; the loop that others
use in ``benchmarks.speed search`` goes on with NaN to its last epoch, which is worse for them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import multiprocessing
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna

from benchmarks import defaults_searchers
from benchmarks.defaults_choices import Tried, choices_table
from benchmarks.defaults_searchers import Asha, Ours, PlainOptuna, RayTune, Searcher
from benchmarks.defaults_table import BATCH_SIZE, DATA, TABLES, Table, read, read_lines, train
from searchae.search import (
    choice_floor,
    incremental_algorithms,
    promotion,
    pruners,
    samplers,
)

DEFAULT = "halving /2, tpe 10"
"""The side that is shipped: the others are measured against it."""
RAY = "Ray Tune"
TRIALS = (12, 24, 50)
FULL = (6, 12, 18)
"""Epochs at which searches are compared, in full trainings."""
WITHIN_DB = (1.0, 0.5, 0.25)
"""How near to the table's best a trial has to end; the epochs until then are counted."""
SEEDS = 20


def _side(pruner: str, factor: int = 2, startup: int = 10, **more: Any) -> Mapping[str, Any]:
    return {
        "sampler": "tpe",
        "pruner": pruner,
        "reduction_factor": factor,
        "startup_trials": startup,
        **more,
    }


HALVING, HYPERBAND = "successive-halving", "hyperband"
SIDES: dict[str, Mapping[str, Any] | type[Searcher]] = {
    "random search": {"sampler": "random", "pruner": "none"},
    "Optuna's defaults": PlainOptuna,
    RAY: RayTune,
    DEFAULT: {},
    "none, tpe 10": _side("none"),
    "median, tpe 10": _side("median"),
    "halving /3, tpe 10": _side(HALVING, 3),
    "halving /4, tpe 10": _side(HALVING, 4),
    "halving /3 from epoch 3, tpe 10": _side(HALVING, 3, min_epochs=3),
    "hyperband /3, tpe 10": _side(HYPERBAND, 3),
    "hyperband /2, tpe 10": _side(HYPERBAND, 2),
    "hyperband /4, tpe 10": _side(HYPERBAND, 4),
    "hyperband /3 from epoch 3, tpe 10": _side(HYPERBAND, 3, min_epochs=3),
    "hyperband /3, tpe 5": _side(HYPERBAND, 3, 5),
    "hyperband /3, tpe 20": _side(HYPERBAND, 3, 20),
    "halving /3, tpe 5": _side(HALVING, 3, 5),
    "halving /3, tpe 20": _side(HALVING, 3, 20),
    "halving /2, tpe 5": _side(HALVING, 2, 5),
    "halving /2, tpe 20": _side(HALVING, 2, 20),
    "halving /2 from epoch 2, tpe 10": _side(HALVING, 2, min_epochs=2),
    "halving /2, tpe 10, no midpoint": _side(HALVING, 2, midpoint_first=False),
    "halving /2, tpe 10, no floor": _side(HALVING, 2, min_trials_per_choice=0),
    "hyperband /3, tpe 10, no midpoint": _side(HYPERBAND, 3, midpoint_first=False),
    "median, tpe 5": _side("median", startup=5),
    "median, tpe 20": _side("median", startup=20),
    "hyperband /3, random": {"sampler": "random", "pruner": HYPERBAND},
    "halving /3, random": {"sampler": "random", "pruner": HALVING, "reduction_factor": 3},
    "asha /2, tpe 10": _side("asha"),
    "asha /3, tpe 10": _side("asha", 3),
    "asha /4, tpe 10": _side("asha", 4),
    "halving /2 from 1/4 epoch, tpe 10": _side(HALVING, 2, first_report=0.25),
    "halving /2 from 1/8 epoch, tpe 10": _side(HALVING, 2, first_report=0.125),
    "asha /2 from 1/4 epoch, tpe 10": _side("asha", 2, first_report=0.25),
    "asha /2 from 1/8 epoch, tpe 10": _side("asha", 2, first_report=0.125),
    "asha /4 from 1/4 epoch, tpe 10": _side("asha", 4, first_report=0.25),
    "none, gp 10": {"sampler": "gp", "pruner": "none"},
    "hyperband /3, gp 10": {"sampler": "gp", "pruner": HYPERBAND},
}
"""Name -> ``[search]`` of a study, or somebody else's searcher."""


def _made_by(side: str) -> tuple[type[Searcher], Mapping[str, Any]]:
    settings = SIDES[side]
    if isinstance(settings, type):
        return settings, {}
    return Asha if settings.get("pruner") == "asha" else Ours, settings


class End(NamedTuple):
    """How a trial ended.

    Attributes:
        epochs: It has run so many.
        psnr_db: After its last one; the mean image's if it diverged.
        complete: Whether it ran to its end, so that a search can name it.
        spent: Epochs of all trials together by then.
        curve: The index of its configuration in the table.
    """

    epochs: float
    psnr_db: float
    complete: bool
    spent: float
    curve: int


Ends = list[End]
"""A search's trials, by number."""


@dataclass
class Running:
    """A worker's trial.

    Attributes:
        number: Its number.
        curve: The index of its configuration in the table.
        reports: How many times it has reported.
        epochs: How many epochs it had trained at its last report.
    """

    number: int
    curve: int
    reports: int = 0
    epochs: float = 0.0


class Search:
    """One search, replayed.

    Args:
        table: What it trains on.
        side: Of ``SIDES``.
        seed: Decides what is sampled.
        once: Whether a configuration can be taken once only.
    """

    def __init__(self, table: Table, side: str, *, seed: int, once: bool) -> None:
        self._table, self._once = table, once
        made, settings = _made_by(side)
        self._spec = spec = table.spec(seed=seed, search=settings)
        shares = set(spec.search.report_shares)
        if not all(shares <= set(c.within) for c in table.curves if not c.diverged):
            raise SystemExit(
                f"{table.name}: not measured after {sorted(shares)} of an epoch: --shares"
            )
        self._searcher = made(spec)
        self._reports = (*spec.search.report_shares, *map(float, range(1, spec.epochs + 1)))
        self._taken: set[int] = set()
        self._paused: dict[int, Running] = {}
        self._spent = 0.0
        self._ends: dict[int, End] = {}

    def run(self, *, workers: int, trials: int, epochs: int) -> Ends:
        """Searches until so many trials have started and so many epochs are spent."""
        queue: list[tuple[float, int, Running]] = []  # by when each reports next
        idle, now = set(range(workers)), 0.0
        started, left = 0, len(self._table.curves)

        def reports_next(worker: int, it: Running) -> None:
            after = self._reports[it.reports] - it.epochs
            heapq.heappush(queue, (now + after, worker, it))

        while True:
            for worker in sorted(idle):
                if (number := self._searcher.promotable()) is not None:
                    self._searcher.resume(number)
                    it = self._paused.pop(number)
                elif (started < trials or self._spent < epochs) and (
                    started < left or not self._once
                ):
                    it = self._start(started, worker)
                    started += 1
                else:
                    break
                idle.remove(worker)
                reports_next(worker, it)
            if not queue:
                return [self._ends[number] for number in range(started)]
            now = queue[0][0]
            while queue and queue[0][0] == now:
                _, worker, it = heapq.heappop(queue)
                if self._ended(it):
                    idle.add(worker)
                else:
                    reports_next(worker, it)

    def _start(self, number: int, worker: int) -> Running:
        params = self._searcher.ask(worker)
        taken = frozenset(self._taken) if self._once else frozenset[int]()
        curve = self._table.nearest(params, without=taken)
        self._taken.add(curve)
        return Running(number, curve)

    def _ended(self, it: Running) -> bool:
        """Trains until the next report; whether that was the trial's last."""
        epochs = self._reports[it.reports]
        self._spent += epochs - it.epochs
        it.reports, it.epochs = it.reports + 1, epochs
        psnr_db = self._table.curves[it.curve].at(epochs)
        if psnr_db is None:  # it diverges by then: told as a worker tells it
            return self._end(it, self._table.baseline_db, complete=False)
        step = round(epochs * self._spec.search.reports_per_epoch)
        stops = self._searcher.stops(it.number, step, psnr_db)
        if epochs == self._spec.epochs:
            return self._end(it, psnr_db)
        if stops and self._searcher.pauses:  # it may go on: this is its end if it does not
            self._paused[it.number] = it
            self._ends[it.number] = End(
                epochs, psnr_db, complete=False, spent=self._spent, curve=it.curve
            )
            return True
        return stops and self._end(it, psnr_db, complete=False, pruned=True)

    def _end(
        self, it: Running, psnr_db: float, *, complete: bool = True, pruned: bool = False
    ) -> bool:
        step = round(it.epochs * self._spec.search.reports_per_epoch)
        self._searcher.end(it.number, step, psnr_db, pruned=pruned)
        self._ends[it.number] = End(it.epochs, psnr_db, complete, self._spent, it.curve)
        return True


def best(table: Table, ends: Ends) -> float:
    """The final PSNR of the trial that a search names; the mean image's if it has none."""
    return max((end.psnr_db for end in ends if end.complete), default=table.baseline_db)


def _until_or_never(ends: Ends, psnr_db: float, *, most: int) -> float:
    """Epochs of all trials until one has ended at least so well, a pruned one too."""
    found = min((end.spent for end in ends if end.psnr_db >= psnr_db), default=math.inf)
    return found if found <= most else math.inf


@dataclass(frozen=True)
class Figures:
    """What came of a side's searches, a row a seed.

    Attributes:
        regret: At each of ``TRIALS``, dB.
        spent: Epochs at each of ``TRIALS``.
        saved: Share of the epochs that as many full trainings would have taken.
        at_epochs: Regret when the epochs of each of ``FULL`` are spent, dB.
        until: Full trainings' worth of epochs until a trial has ended within each of ``WITHIN_DB``
            of the table's best; infinite from the most of ``FULL`` on, to which every search goes.
    """

    regret: np.ndarray
    spent: np.ndarray
    saved: np.ndarray
    at_epochs: np.ndarray
    until: np.ndarray

    @classmethod
    def of(cls, table: Table, searches: Sequence[Ends]) -> Figures:
        """Reads them from searches on one table, by seed."""
        full = table.settings["epochs"]
        top = table.best_db
        spent = np.array([[sum(end.epochs for end in s[:n]) for n in TRIALS] for s in searches])
        return cls(
            regret=np.array([[top - best(table, s[:n]) for n in TRIALS] for s in searches]),
            spent=spent,
            saved=1 - spent / (full * np.array(TRIALS)),
            at_epochs=np.array(
                [
                    [top - best(table, [e for e in s if e.spent <= n * full]) for n in FULL]
                    for s in searches
                ]
            ),
            until=np.array(
                [
                    [_until_or_never(s, top - db, most=max(FULL) * full) / full for db in WITHIN_DB]
                    for s in searches
                ]
            ),
        )


Key = tuple[str, str, int, int]
"""Table, side, workers, seed."""


def replay(options: argparse.Namespace) -> None:
    """Runs the searches that are missing, and prints the tables."""
    tables = {name: read(options.work, name) for name in options.tables}
    path = options.work / f"replay{'-once' if options.once else ''}.jsonl"
    stamps = {(t.name, side): _stamp(t, side) for t in tables.values() for side in options.sides}
    done: dict[Key, Ends] = {}
    for row in read_lines(path):
        if stamps.get((row["table"], row["side"])) == row["stamp"]:
            key = (row["table"], row["side"], row["workers"], row["seed"])
            done[key] = [End(*end) for end in row["ends"]]
    asked = [
        (name, side, workers, seed)
        for side in options.sides
        for name in options.tables
        for workers in options.workers
        for seed in range(options.seeds)
    ]
    missing = [key for key in asked if key not in done]
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(options.processes, _replays, (tables, options.once)) as pool,
        path.open("a") as file,
    ):
        for count, (key, ends) in enumerate(pool.imap_unordered(_replayed, missing), start=1):
            done[key] = ends
            name, side, workers, seed = key
            row = {"table": name, "side": side, "workers": workers, "seed": seed}
            row |= {"stamp": stamps[name, side], "ends": ends}
            file.write(json.dumps(row) + "\n")
            file.flush()
            if count % 20 == 0 or count == len(missing):
                each_s = (time.monotonic() - started) / count
                print(f"{count} of {len(missing)}: {side}, {each_s:.2f} s each", file=sys.stderr)
    figures = {
        (name, side, workers): Figures.of(
            tables[name], [done[name, side, workers, seed] for seed in range(options.seeds)]
        )
        for name, side, workers, _ in asked
    }
    print("\n".join(_report(tables, figures, options)))
    tried: dict[str, list[tuple[Table, Tried]]] = {side: [] for side in options.sides}
    for key in asked:
        ends = done[key]
        tried[key[1]].append((tables[key[0]], [(end.curve, end.psnr_db) for end in ends]))
    print("\n### What is tried of each choice\n")
    print("\n".join(choices_table(tried, TRIALS[1:])))


_here: dict[str, Any] = {}
"""What a replaying process has been given once."""


def _replays(tables: Mapping[str, Table], once: bool) -> None:  # noqa: FBT001 (a pool's initializer)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _here.update(tables=tables, once=once)


def _replayed(key: Key) -> tuple[Key, Ends]:
    name, side, workers, seed = key
    table = _here["tables"][name]
    made = Search(table, side, seed=seed, once=_here["once"])
    epochs = max(FULL) * table.settings["epochs"]
    return key, made.run(workers=workers, trials=max(TRIALS), epochs=epochs)


def _stamp(table: Table, side: str) -> int:
    """Changes with what a search depends on; one that was kept is used only if this is the same."""
    spec = table.spec(seed=0, search=_made_by(side)[1])
    modules = (choice_floor, samplers, pruners, incremental_algorithms, promotion)
    files = (*(m.__file__ for m in modules), defaults_searchers.__file__, __file__)
    makers = [Path(str(file)).read_text(encoding="utf-8") for file in files]
    return zlib.crc32(f"{table}{spec.search!r}{makers}{optuna.__version__}{side}".encode())


AllFigures = Mapping[tuple[str, str, int], Figures]


def _report(
    tables: Mapping[str, Table], figures: AllFigures, options: argparse.Namespace
) -> list[str]:
    lines: list[str] = []
    sides: list[str] = options.sides
    for name, table in tables.items():
        curves = [c for c in table.curves if not c.diverged]
        finals = sorted((c.psnr_db[-1] for c in curves), reverse=True)
        lines += [
            f"{name}: {len(table.curves)} configurations of {table.settings['epochs']} epochs, "
            f"{len(table.curves) - len(curves)} diverged; final PSNR: best {finals[0]:.2f} dB, "
            f"tenth {finals[9]:.2f}, median {np.median(finals):.2f}, mean image "
            f"{table.baseline_db:.2f}",
            "",
        ]
        for workers in options.workers:
            rows = {side: figures[name, side, workers] for side in sides}
            lines += [f"### {name}, {workers} worker{'s' * (workers > 1)}", "", *_table(rows), ""]
    if DEFAULT in sides:
        pooled = {side: [f for (_, s, _), f in figures.items() if s == side] for side in sides}
        lines += [f"### All of them against {DEFAULT}", "", *_against(pooled)]
        lines += [
            "",
            "### Full trainings' worth of epochs until a trial has ended so near to the best",
            "",
            *_until(pooled),
        ]
    return lines


def _table(rows: Mapping[str, Figures]) -> Iterator[str]:
    trials, full = " | ".join(map(str, TRIALS)), " | ".join(f"@{n}" for n in FULL)
    yield f"| side | {trials} | epochs {trials} | saved | {full} |"
    yield "| --- " * (3 + 2 * len(TRIALS) + len(FULL) - 1) + "|"
    for side, f in rows.items():
        low, middle, high = np.quantile(f.regret, (0.25, 0.5, 0.75), axis=0)
        regret = [f"{m:.2f} ({a:.2f}-{b:.2f})" for a, m, b in zip(low, middle, high, strict=True)]
        spent = [f"{e:.0f}" for e in np.median(f.spent, axis=0)]
        equal = [f"{r:.2f}" for r in f.at_epochs.mean(axis=0)]
        saved = f"{np.median(f.saved[:, -1]):.0%}"
        yield f"| {' | '.join([side, *regret, *spent, saved, *equal])} |"


def _against(pooled: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """Mean regret less the default's, with 95% intervals over the seeds."""
    rng = np.random.default_rng(0)
    columns = [f"{n} trials" for n in TRIALS] + [f"@{n}" for n in FULL]
    yield f"| side | {' | '.join(columns)} | epochs of {TRIALS[-1]} trials |"
    yield "| --- " * (len(columns) + 2) + "|"

    def by_seed(side: str) -> np.ndarray:
        both = [np.concatenate([f.regret, f.at_epochs], axis=1) for f in pooled[side]]
        return np.asarray(np.mean(both, axis=0))

    def epochs(side: str) -> float:
        return float(np.mean([f.spent[:, -1] for f in pooled[side]]))

    for side in pooled:
        more = by_seed(side) - by_seed(DEFAULT)
        draws = more[rng.integers(len(more), size=(4000, len(more)))].mean(axis=1)
        low, high = np.quantile(draws, (0.025, 0.975), axis=0)
        cells = [
            f"{m:+.2f} ({a:+.2f} to {b:+.2f})"
            for a, m, b in zip(low, more.mean(axis=0), high, strict=True)
        ]
        yield f"| {' | '.join([side, *cells])} | {epochs(side) / epochs(DEFAULT):.0%} |"


def _until(pooled: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """Times the default's epochs, in the geometric mean, with 95% intervals over the seeds."""
    rng = np.random.default_rng(0)
    columns = [f"{what} {db} dB" for db in WITHIN_DB for what in ("within", "times, within")]
    yield f"| side | {' | '.join(columns)} |"
    yield "| --- " * (len(columns) + 1) + "|"
    for side, found in pooled.items():
        cells = []
        for i in range(len(WITHIN_DB)):
            # What takes longer than anybody searched counts as just that.
            epochs, base = (
                np.stack([np.fmin(f.until[:, i], max(FULL)) for f in of])
                for of in (found, pooled[DEFAULT])
            )
            never = int(sum(np.isinf(f.until[:, i]).sum() for f in found))
            low, middle, high = np.quantile(epochs, (0.25, 0.5, 0.75))
            short = f", {never} never" if never else ""
            cells.append(f"{middle:.1f} ({low:.1f}-{high:.1f}{short})")
            more = np.log(epochs / base).mean(axis=0)
            draws = more[rng.integers(len(more), size=(4000, len(more)))].mean(axis=1)
            low, high = np.exp(np.quantile(draws, (0.025, 0.975)))
            cells.append(f"{np.exp(more.mean()):.2f} ({low:.2f} to {high:.2f})")
        yield f"| {' | '.join([side, *cells])} |"


def main() -> None:
    """Trains, or replays."""
    options = _options()
    if options.command == "replay":
        replay(options)
        return
    settings = {k: getattr(options, k) for k in ("images", "epochs", "configs")}
    if options.batch_size != BATCH_SIZE:
        settings["batch_size"] = options.batch_size
    if options.shares:
        settings["shares"] = sorted(options.shares)
    for name in options.tables:
        train(
            name,
            settings,
            data_dir=options.data_dir,
            work=options.work,
            processes=options.processes,
            say=lambda line: print(line, flush=True),
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="make the tables")
    replaying = commands.add_parser("replay", help="search on them")
    for command in (training, replaying):
        command.add_argument("--work", type=Path, required=True, help="keeps the tables")
        command.add_argument("--tables", nargs="+", choices=TABLES, default=list(DATA))
        command.add_argument("--processes", type=int, default=1, help="of one thread each")
    training.add_argument("--data-dir", type=Path, default=Path("data"))
    training.add_argument(
        "--images", type=int, default=1000, help="a fifth of them is held out, of speed a tenth"
    )
    training.add_argument("--epochs", type=int, default=12)
    training.add_argument("--configs", type=int, default=162)
    training.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    training.add_argument(
        "--shares", type=float, nargs="*", help="of the first epoch after which nets are measured"
    )
    replaying.add_argument("--seeds", type=int, default=SEEDS)
    replaying.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    quick = [side for side in SIDES if " gp " not in side and side != RAY]
    replaying.add_argument(
        "--sides", nargs="+", choices=SIDES, default=quick, help="all but gp's and Ray Tune's"
    )
    replaying.add_argument("--once", action="store_true", help="no configuration twice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
