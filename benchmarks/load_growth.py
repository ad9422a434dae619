"""Storage time a trial of one worker, with other trials RUNNING or WAITING in the study.

    python -m benchmarks.load_growth --others 0 300 1000 --postgres own

The others have parameters and reports when they run (as claimed by workers on other machines),
and nothing when they wait (as enqueued). See ``benchmarks.load`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from benchmarks.load import (
    SIDES,
    Meter,
    arguments,
    database,
    document,
    fork,
    prepare,
    psnr,
    server_of,
    table,
)
from searchae.config import loader, space
from searchae.search import distributions
from searchae.storage import tables

MEASURED = 10
"""Trials, after one that warms up: a new worker reads the whole study once."""
ENDED = 30
"""Trials that have ended before, so that the sampler samples."""


def seed(url: str, options: argparse.Namespace, others: int, state: TrialState) -> None:
    """Adds trials that have ended, and the others, as rows like Optuna's own."""
    spec = loader.spec_from_document(document(options), source="load")
    described = {p.name: distributions.to_distribution(p) for p in spec.space}
    draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials: list[dict[str, Any]] = []
    params: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    fixed: list[dict[str, Any]] = []
    now: dict[str, Any] = {"study_id": 1, "datetime_start": tables.utc_now()}
    for i in range(ENDED + others):
        has_ended = i < ENDED
        row = {"trial_id": i + 1, "number": i, "state": TrialState.COMPLETE if has_ended else state}
        trials.append(now | row)
        if state == TrialState.WAITING and not has_ended:
            fixed.append({"trial_id": i + 1, "key": "fixed_params", "value_json": "{}"})
            continue
        drawn = draw.ask(described).params
        for name, value in drawn.items():
            it = described[name]
            cells = {"param_name": name, "distribution_json": distribution_to_json(it)}
            params.append({"trial_id": i + 1, "param_value": it.to_internal_repr(value)} | cells)
        for epoch in range(1, options.reports // (1 if has_ended else 2) + 1):
            value = psnr(space.params_of_trial(spec, drawn), epoch)
            reported: dict[str, Any] = {"step": epoch, "intermediate_value": value}
            reports.append({"trial_id": i + 1, "intermediate_value_type": "FINITE"} | reported)
    last = [{"trial_id": i + 1, "objective": 0, "value": 20.0 + i / 9} for i in range(ENDED)]
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        for table_, rows in (
            (tables.trials, trials),
            (tables.params, params),
            (tables.reports, reports),
            (tables.values, [r | {"value_type": "FINITE"} for r in last]),
            (tables.system_attributes, fixed),
        ):
            if rows:
                connection.execute(sa.insert(table_), rows)
        connection.exec_driver_sql(
            "SELECT setval('trials_trial_id_seq', max(trial_id)) FROM trials"
        )
        if sa.inspect(connection).has_table("searchae_leases"):
            connection.exec_driver_sql(
                "INSERT INTO searchae_leases SELECT trial_id, study_id, 'other', 'elsewhere', "
                "'1:1', extract(epoch FROM clock_timestamp()) + 3600, 0 FROM trials "
                "WHERE state = 'RUNNING'"
            )


def measure(
    side: str, others: int, state: TrialState, server: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One row of the table."""
    marks: list[dict[str, float]] = []
    with database(server) as url, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        out = folder / "out.json"

        def entered(meter: Meter) -> None:
            marks.append({"storage_s": meter.storage_s, **meter.counted})
            if len(marks) == MEASURED + 2:
                told = {k: (v - marks[1][k]) / MEASURED for k, v in marks[-1].items()}
                out.write_text(json.dumps(told))
                os._exit(0)  # from one trial's start to another's: whole trials

        options.entered = entered
        prepare(side, url, folder, options)
        seed(url, options, others, state)
        os.waitpid(fork(side, url, folder, options, out), 0)
        told = json.loads(out.read_text())
    return {
        "side": side,
        "others": f"{others} {state.name}",
        "storage ms/trial": round(1000 * told["storage_s"], 1),
        "statements/trial": round(told["statements"], 1),
        "round trips/trial": round(told["round trips"], 1),
    }


def main() -> None:
    """See the module."""
    parser = arguments()
    parser.add_argument("--others", type=int, nargs="+", default=[0, 300, 1000])
    options = parser.parse_args()
    options.trials = 100_000
    rows = []
    with server_of(options) as server:
        for state in (TrialState.RUNNING, TrialState.WAITING):
            for others in options.others:
                for side in SIDES:
                    rows.append(measure(side, others, state, server, options))
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
