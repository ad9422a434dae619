"""How long commands take, and how much memory, on a study of many trials.

    python -m benchmarks.large_study --trials 20000

The trials are rows like Optuna's own with 10 reports each, in a SQLite file. Memory is the largest
resident set of the command's process, from the operating system.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from searchae.config import StudySpec, initial_params, sample_params
from searchae.search.distributions import to_distribution
from searchae.storage import connect, tables
from searchae.study import load_study

EPOCHS = 10
STUDY = "quickstart"


class Drawn:
    """Suggests uniformly drawn values."""

    def __init__(self, draws: random.Random) -> None:
        self.params: dict[str, Any] = {}
        self._draws = draws

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Returns a number from low to high."""
        a, b = (math.log(low), math.log(high)) if log else (low, high)
        value = self._draws.uniform(a, b)
        self.params[name] = math.exp(value) if log else value
        return float(self.params[name])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Returns a whole number from low to high."""
        self.params[name] = self._draws.randint(low, high)
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Returns one of the choices."""
        self.params[name] = self._draws.choice(choices)
        return self.params[name]


def add_trials(url: str, spec: StudySpec, first: int, count: int) -> None:
    """Adds ended trials, of which every third is complete, to the study with the id 1."""
    draws = random.Random(0)
    described = {p.name: to_distribution(p) for p in spec.space}
    texts = {name: distribution_to_json(d) for name, d in described.items()}
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        t: [] for t in (tables.trials, tables.params, tables.reports, tables.values)
    }
    now = tables.utc_now()
    for number in range(first, first + count):
        key, is_complete = {"trial_id": number + 1}, number % 3 == 0
        state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
        rows[tables.trials].append(
            {**key, "number": number, "study_id": 1, "state": state}
            | {"datetime_start": now, "datetime_complete": now}
        )
        drawn = Drawn(draws)
        sample_params(spec, drawn)
        for name, value in drawn.params.items():
            internal = described[name].to_internal_repr(value)
            cells = {"param_name": name, "distribution_json": texts[name], "param_value": internal}
            rows[tables.params].append(key | cells)
        best = 15 + 10 * draws.random()
        for epoch in range(1, (EPOCHS if is_complete else 3) + 1):
            value = best * (1 - 0.5 / epoch)
            cells = {"step": epoch, "intermediate_value": value}
            rows[tables.reports].append(key | cells | {"intermediate_value_type": "FINITE"})
        value = best * (1 - 0.5 / (EPOCHS if is_complete else 3))
        rows[tables.values].append(key | {"objective": 0, "value": value, "value_type": "FINITE"})
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        for table, cells_of in rows.items():
            connection.execute(sa.insert(table), cells_of)


def measured(folder: Path, *words: str) -> dict[str, Any]:
    """Runs a command; its seconds and the largest resident set in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "searchae", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    return {
        "command": f"searchae {' '.join(words)}",
        "seconds": round(time.perf_counter() - began, 1),
        "MiB": usage.ru_maxrss // 1024,
        "exit": os.waitstatus_to_exitcode(status),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = ("--set", "data.train_images=200", "--set", "data.test_images=50")
        tune = ("tune", "-s", STUDY, *small, "--set", "train.epochs=10", "--workers", "1")
        print(json.dumps(measured(folder, *tune, "--trials", "1")), flush=True)
        url = f"sqlite:///{folder / 'searchae.db'}"
        storage = connect(url)
        stored = load_study(storage, STUDY)
        begun = len(stored.study.get_trials(deepcopy=False))
        assert initial_params(stored.spec, 0)
        add_trials(url, stored.spec, begun, options.trials - begun)
        for words in (
            ("status", "-s", STUDY),
            ("best", "-s", STUDY),
            ("studies",),
            ("report", "-s", STUDY, "--out", "report.html"),
            ("report", "-s", STUDY, "--csv", "trials.csv"),
            (*tune, "--trials", str(options.trials + 1)),
            (*tune, "--trials", str(options.trials + 2)),
        ):
            print(json.dumps(measured(folder, *words)), flush=True)


if __name__ == "__main__":
    main()
