"""Which pruner and which start of the sampler waste the fewest epochs.

    python -m benchmarks.defaults train --data-dir data --work W    # once: 25 minutes
    python -m benchmarks.defaults replay --work W                   # half an hour

``train`` makes a table of configurations with their whole learning curves (``defaults_table``).
``replay`` runs searches on it: the sampler and the pruner are those that ``searchae.search`` makes
from a study's spec; a suggestion takes the curve of the nearest configuration. Workers go in
lockstep, an epoch each. Of two suggestions near the same configuration both take it, so that what
is searched is one fixed function; ``--once`` gives the second one the next nearest instead.

A search goes on until it has both its trials and its epochs, and each figure is read from its
beginning. Its result is the final PSNR of the trial that ``searchae best`` would name, or the mean
image's while there is none; the regret is what the table's best final PSNR has over it. With
several workers, the first 12 trials of a search of 50 are not quite a search of 12: the pruner has
seen a few reports of later ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from benchmarks.defaults_table import DATA, Table, read, read_lines, train
from searchae import search, space

DEFAULT = "hyperband /3, tpe 10"
"""The side that is shipped: the others are measured against it."""
TRIALS = (12, 24, 50)
FULL = (6, 12, 18)
"""Epochs at which searches are compared, in full trainings."""
WORKERS = (1, 4)
SEEDS = 20


def _tpe(pruner: str, startup: int, **more: int) -> Mapping[str, Any]:
    return {"sampler": "tpe", "pruner": pruner, "startup_trials": startup, **more}


SIDES: dict[str, Mapping[str, Any] | None] = {
    "random search": {"sampler": "random", "pruner": "none"},
    "Optuna's defaults": None,
    DEFAULT: {},
    "none, tpe 10": _tpe("none", 10),
    "median, tpe 10": _tpe("median", 10),
    "halving /3, tpe 10": _tpe("successive-halving", 10),
    "halving /2, tpe 10": _tpe("successive-halving", 10, reduction_factor=2),
    "halving /4, tpe 10": _tpe("successive-halving", 10, reduction_factor=4),
    "halving /3 from epoch 3, tpe 10": _tpe("successive-halving", 10, min_epochs=3),
    "hyperband /2, tpe 10": _tpe("hyperband", 10, reduction_factor=2),
    "hyperband /4, tpe 10": _tpe("hyperband", 10, reduction_factor=4),
    "hyperband /3 from epoch 3, tpe 10": _tpe("hyperband", 10, min_epochs=3),
    "hyperband /3, tpe 5": _tpe("hyperband", 5),
    "hyperband /3, tpe 20": _tpe("hyperband", 20),
    "halving /3, tpe 5": _tpe("successive-halving", 5),
    "halving /3, tpe 20": _tpe("successive-halving", 20),
    "halving /2, tpe 5": _tpe("successive-halving", 5, reduction_factor=2),
    "halving /2, tpe 20": _tpe("successive-halving", 20, reduction_factor=2),
    "halving /2 from epoch 2, tpe 10": _tpe(
        "successive-halving", 10, reduction_factor=2, min_epochs=2
    ),
    "median, tpe 5": _tpe("median", 5),
    "median, tpe 20": _tpe("median", 20),
    "hyperband /3, random": {"sampler": "random", "pruner": "hyperband"},
    "halving /3, random": {"sampler": "random", "pruner": "successive-halving"},
    "none, gp 10": {"sampler": "gp", "pruner": "none"},
    "hyperband /3, gp 10": {"sampler": "gp", "pruner": "hyperband"},
}
"""Name -> ``[search]`` of a study; None is plain Optuna with what it does by default."""

Ends = list[tuple[int, float | None, int]]
"""A search's trials by number: epochs; final PSNR, if it has one; epochs spent when it ended, by
all trials together."""


@dataclass
class Running:
    """A worker's trial."""

    trial: Trial
    curve: int
    epoch: int = 0


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
        self._spec = table.spec(seed=seed, search=SIDES[side] or {})
        self._plain = SIDES[side] is None
        self._study = optuna.create_study(direction="maximize", study_name=f"replay-{seed}")
        if self._plain:
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
            self._study.pruner = optuna.pruners.MedianPruner()
        else:
            self._study.pruner = search.pruner(self._spec, self._study)
        self._taken: set[int] = set()
        self._spent = 0
        self._ends: dict[int, tuple[int, float | None, int]] = {}

    def run(self, *, workers: int, trials: int, epochs: int) -> Ends:
        """Searches until so many trials have started and so many epochs are spent."""
        running: dict[int, Running] = {}
        started, left = 0, len(self._table.curves)

        def goes_on() -> bool:
            wanted = started < trials or self._spent < epochs
            return wanted and (started < left or not self._once)

        while running or goes_on():
            for worker in range(workers):
                if worker not in running and goes_on():
                    running[worker] = self._start(started)
                    started += 1
                if worker in running and self._ended(running[worker]):
                    del running[worker]
        return [self._ends[number] for number in range(started)]

    def _start(self, number: int) -> Running:
        if not self._plain:
            self._study.sampler = search.sampler(self._spec, number=number)
        trial = self._study.ask()
        space.sample(self._spec, trial)
        taken = frozenset(self._taken) if self._once else frozenset[int]()
        curve = self._table.nearest(trial.params, without=taken)
        self._taken.add(curve)
        return Running(trial, curve)

    def _ended(self, it: Running) -> bool:
        """Trains an epoch; whether that was the trial's last."""
        curve = self._table.curves[it.curve]
        it.epoch += 1
        self._spent += 1
        if it.epoch > len(curve.psnr_db):  # it diverges in this epoch: told as a worker tells it
            self._study.tell(it.trial, self._table.baseline_db)
            return self._end(it, None)
        psnr_db = curve.psnr_db[it.epoch - 1]
        it.trial.report(psnr_db, it.epoch)
        if it.epoch == self._spec.epochs:
            self._study.tell(it.trial, psnr_db)
            return self._end(it, psnr_db)
        if it.trial.should_prune():
            self._study.tell(it.trial, state=TrialState.PRUNED)
            return self._end(it, None)
        return False

    def _end(self, it: Running, psnr_db: float | None) -> bool:
        self._ends[it.trial.number] = (it.epoch, psnr_db, self._spent)
        return True


def best(table: Table, ends: Ends) -> float:
    """The final PSNR of the trial that a search names; the mean image's if it has none."""
    return max((psnr for _, psnr, _ in ends if psnr is not None), default=table.baseline_db)


@dataclass(frozen=True)
class Figures:
    """What came of a side's searches, a row a seed.

    Attributes:
        regret: At each of ``TRIALS``, dB.
        spent: Epochs at each of ``TRIALS``.
        saved: Share of the epochs that as many full trainings would have taken.
        at_epochs: Regret when the epochs of each of ``FULL`` are spent, dB.
    """

    regret: np.ndarray
    spent: np.ndarray
    saved: np.ndarray
    at_epochs: np.ndarray

    @classmethod
    def of(cls, table: Table, searches: Sequence[Ends]) -> Figures:
        """Reads them from searches on one table, by seed."""
        full = table.settings["epochs"]
        top = table.best_db
        spent = np.array([[sum(e for e, _, _ in s[:n]) for n in TRIALS] for s in searches])
        return cls(
            regret=np.array([[top - best(table, s[:n]) for n in TRIALS] for s in searches]),
            spent=spent,
            saved=1 - spent / (full * np.array(TRIALS)),
            at_epochs=np.array(
                [
                    [top - best(table, [e for e in s if e[2] <= n * full]) for n in FULL]
                    for s in searches
                ]
            ),
        )


def replay(options: argparse.Namespace) -> None:
    """Runs the searches that are missing, and prints the tables."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = {name: read(options.work, name) for name in options.tables}
    path = options.work / f"replay{'-once' if options.once else ''}.jsonl"
    stamps = {(t.name, side): _stamp(t, side) for t in tables.values() for side in options.sides}
    done: dict[tuple[str, str, int, int], Ends] = {}
    for row in read_lines(path):
        if stamps.get((row["table"], row["side"])) == row["stamp"]:
            done[row["table"], row["side"], row["workers"], row["seed"]] = row["ends"]
    asked = [
        (name, side, workers, seed)
        for side in options.sides
        for name in options.tables
        for workers in WORKERS
        for seed in range(options.seeds)
    ]
    missing = [key for key in asked if key not in done]
    started = time.monotonic()
    with path.open("a") as file:
        for count, key in enumerate(missing, start=1):
            name, side, workers, seed = key
            table = tables[name]
            epochs = max(FULL) * table.settings["epochs"]
            made = Search(table, side, seed=seed, once=options.once)
            done[key] = made.run(workers=workers, trials=max(TRIALS), epochs=epochs)
            row = {"table": name, "side": side, "workers": workers, "seed": seed}
            row |= {"stamp": stamps[name, side], "ends": done[key]}
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
    print("\n".join(_report(tables, figures, options.sides)))


def _stamp(table: Table, side: str) -> int:
    """Changes with what a search depends on; one that was kept is used only if this is the same."""
    settings = table.spec(seed=0, search=SIDES[side] or {}).search
    makers = Path(search.__file__).read_text(encoding="utf-8")
    return zlib.crc32(f"{table}{settings!r}{makers}{optuna.__version__}{side}".encode())


AllFigures = Mapping[tuple[str, str, int], Figures]


def _report(tables: Mapping[str, Table], figures: AllFigures, sides: Sequence[str]) -> list[str]:
    lines = []
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
        for workers in WORKERS:
            rows = {side: figures[name, side, workers] for side in sides}
            lines += [f"### {name}, {workers} worker{'s' * (workers > 1)}", "", *_table(rows), ""]
    if DEFAULT in sides:
        pooled = {side: [f for (_, s, _), f in figures.items() if s == side] for side in sides}
        lines += [f"### All of them against {DEFAULT}", "", *_against(pooled)]
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


def main() -> None:
    """Trains, or replays."""
    options = _options()
    if options.command == "replay":
        replay(options)
        return
    settings = {k: getattr(options, k) for k in ("images", "epochs", "configs")}
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
        command.add_argument("--tables", nargs="+", choices=DATA, default=list(DATA))
    training.add_argument("--data-dir", type=Path, default=Path("data"))
    training.add_argument("--images", type=int, default=1000, help="a fifth is held out")
    training.add_argument("--epochs", type=int, default=12)
    training.add_argument("--configs", type=int, default=162)
    training.add_argument("--processes", type=int, default=1, help="of one thread each")
    replaying.add_argument("--seeds", type=int, default=SEEDS)
    quick = [side for side in SIDES if " gp " not in side]
    replaying.add_argument("--sides", nargs="+", choices=SIDES, default=quick, help="all but gp's")
    replaying.add_argument("--once", action="store_true", help="no configuration twice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
