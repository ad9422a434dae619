"""One worker of a search for ``benchmarks.speed``: what it does besides training, and its memory.

``worker`` and ``profiled_worker`` are jobs for ``speed_base.together``.
"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed_base import Options, images, interleaved, spread, table, together
from benchmarks.speed_search import NAME, make_study

Measure = Callable[[], dict[str, Any]]

# -- a study to work on


def prepared(
    options: Options, *, count: int, trials: int, epochs: int, held: int = 0, pruned_at: int = 0
) -> dict[str, Any]:
    """Makes a study on SQLite; returns a worker's settings.

    Args:
        options: Where to, and which device.
        count: Images, of which a tenth is held out.
        trials: To be run.
        epochs: Of a full training.
        held: Finished trials that the study already holds.
        pruned_at: A rung at which these leave every other trial behind; 0 for none.
    """
    from searchae import data
    from searchae.config import loader
    from searchae.data import decoded_cache
    from searchae.storage.connection import connect
    from searchae.study.coordination import Coordinator
    from searchae.study.stored_study import open_study
    from searchae.training.metrics import mean_image_psnr_db

    pixels, _ = images(options, "cifar10", count)
    folder = Path(tempfile.mkdtemp(prefix="worker-", dir=options.work)).resolve()
    spec = loader.load_study_file(make_study(folder, pixels, trials=trials, epochs=epochs))
    splits = data.load_splits(spec.data, data_dir=folder, seed=spec.seed)
    assert decoded_cache.keep_decoded(splits, folder), "as `tune` does"
    url = f"sqlite:///{folder}/search.db"
    storage = connect(url)
    baseline_db = mean_image_psnr_db(splits.train, splits.validation)
    stored, _ = open_study(storage, NAME, spec=spec, data_hash=splits.hash, baseline_db=baseline_db)
    Coordinator(stored).set_budget(held + trials)
    if held:
        _insert_finished(stored, held, pruned_at or epochs + 1)
    storage.engine.dispose()
    return {
        "url": url,
        "folder": str(folder),
        "device": options.device,
        "held": held,
    }


def _insert_finished(stored: Any, held: int, best_from: int) -> None:
    """Adds finished trials as rows like searchae's own, with the rungs of successive halving.

    Their PSNRs are worse than those of all trials that are measured until the epoch
    ``best_from``, and better from then on.
    """
    import optuna
    import sqlalchemy as sa
    from optuna.distributions import distribution_to_json
    from optuna.trial import TrialState

    from searchae.search import distributions
    from searchae.storage import tables
    from searchae.study.epoch_history import HISTORY, HISTORY_COLUMNS

    described = {p.name: distributions.to_distribution(p) for p in stored.spec.space}
    draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    now, epochs, by = tables.utc_now(), stored.spec.epochs, stored.spec.search.reduction_factor
    search = stored.spec.search
    assert (search.pruner, search.min_epochs) == ("successive-halving", 1), "it has other rungs"
    rungs = [by**rung for rung in range(epochs) if by**rung < epochs]
    history = json.dumps({name: [0.05] * epochs for name in HISTORY_COLUMNS})
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for i in range(held):
        trial = {"trial_id": i + 1}
        psnrs_db = {
            epoch: 3 * i / held - 1 / epoch + (99.0 if epoch >= best_from else 5.0)
            for epoch in range(1, epochs + 1)
        }
        times = {"datetime_start": now, "datetime_complete": now}
        about = {"study_id": stored.id, "number": i, "state": TrialState.COMPLETE}
        rows[tables.trials].append({**trial, **times, **about})
        for name, value in draw.ask(described).params.items():
            cells = {
                "param_name": name,
                "param_value": described[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(described[name]),
            }
            rows[tables.params].append(trial | cells)
        for epoch, psnr_db in psnrs_db.items():
            value = {"intermediate_value": psnr_db, "intermediate_value_type": "FINITE"}
            rows[tables.reports].append({**trial, "step": epoch, **value})
        for rung, epoch in enumerate(rungs):
            value = {"key": f"completed_rung_{rung}", "value_json": json.dumps(psnrs_db[epoch])}
            rows[tables.system_attributes].append(trial | value)
        value = {"objective": 0, "value": psnrs_db[epochs], "value_type": "FINITE"}
        rows[tables.values].append(trial | value)
        rows[tables.user_attributes].append({**trial, "key": HISTORY, "value_json": history})
    with stored.storage.engine.begin() as connection:
        for table_, table_rows in rows.items():
            connection.execute(sa.insert(table_), table_rows)


# -- jobs


def worker(settings: Mapping[str, Any]) -> Measure:
    """A worker until the budget is spent, from its first claim to its end."""
    from searchae.study.coordination import Coordinator
    from searchae.study.epoch_history import history_columns

    made = _made(settings, threading.Event())
    claimed_at: list[float] = []
    claim = Coordinator.claim

    def noted(ledger: Coordinator, **rest: Any) -> Any:
        claimed_at.append(time.perf_counter())
        return claim(ledger, **rest)

    def measure() -> dict[str, Any]:
        Coordinator.claim = noted  # type: ignore[method-assign, assignment]
        made.run()
        ended_at = time.perf_counter()
        own = made.stored.study.get_trials(deepcopy=False)[settings["held"] :]
        epochs_s = [history_columns(t.user_attrs)["seconds"] for t in own]
        first_s = claimed_at[1] - claimed_at[0] - sum(epochs_s[0])
        later_s = [s for seconds in epochs_s[1:] for s in seconds]
        wall_s = ended_at - claimed_at[1]
        return {
            "first_s": first_s,
            "epoch_s": sum(later_s) / len(later_s),
            "share": 1 - sum(later_s) / wall_s,
            "share_at_1_s": 1 / (1 + len(later_s) / (wall_s - sum(later_s))),
            "ms_a_trial": 1000 * (wall_s - sum(later_s)) / (len(own) - 1),
            "epochs": len(later_s),
        }

    return measure


def _made(settings: Mapping[str, Any], stop: threading.Event) -> Any:
    """A worker as ``searchae worker`` makes it."""
    import warnings

    import optuna

    from searchae.storage.connection import connect
    from searchae.study.stored_study import load_study
    from searchae.worker.loop import Worker
    from searchae.worker.options import WorkerOptions

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    folder = Path(settings["folder"])
    told = WorkerOptions(
        device=settings["device"], threads=1, data_dir=folder, artifacts=folder / "artifacts"
    )
    return Worker(load_study(connect(settings["url"], patient=True), NAME), told, stop)


class Clock:
    """Where the main thread's time goes: of nested calls, the innermost that is named."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._names = ["the rest"]
        self._since = time.perf_counter()
        self._thread = threading.get_ident()

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Puts the block's time down to a name."""
        if threading.get_ident() != self._thread:
            yield
            return
        self._turn()
        self._names.append(name)
        try:
            yield
        finally:
            self._turn()
            self._names.pop()

    def stop(self) -> dict[str, float]:
        """Seconds by name, up to now."""
        self._turn()
        return dict(self.seconds)

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._names[-1]] += now - self._since
        self._since = now

    def wrap(self, name: str, owner: Any, *functions: str) -> None:
        """Puts the time of an object's functions down to a name."""
        for key in functions:
            setattr(owner, key, self._wrapped(name, getattr(owner, key)))

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **rest: Any) -> Any:
            with self.on(name):
                return function(*args, **rest)

        return wrapped


def profiled_worker(settings: Mapping[str, Any]) -> Measure:
    """The seconds of a whole worker, its imports included, by what they went to."""

    def measure() -> dict[str, Any]:
        clock = Clock()
        with clock.on("imports"):
            _watch(clock)
        stop = threading.Event()
        clock.wrap("waiting for other workers", stop, "wait")
        with clock.on("opening the study"):
            made = _made(settings, stop)
        made.run()
        return {"seconds": clock.stop()}

    return measure


def _watch(clock: Clock) -> None:
    """Imports a worker, and wraps what it calls."""
    import optuna

    from searchae.storage.resilient import ResilientStorage
    from searchae.study.coordination import Coordinator
    from searchae.training import trainer, trial_checkpoints
    from searchae.training.trainer import Trainer
    from searchae.worker import hardware, pictures, trial_sampling

    # Functions are wrapped where they are called.
    clock.wrap("data", hardware, "find_decoded", "load_splits")
    clock.wrap("building nets", Trainer, "__init__")
    clock.wrap("evaluation", trainer, "evaluate")
    clock.wrap("checkpoints", Trainer, "state", "restore")
    clock.wrap("checkpoints", trial_checkpoints.Checkpoints, "save", "latest", "clear")
    drawing = ("draw_reconstructions", "save_picture", "keep_best_pictures")
    clock.wrap("pictures", pictures, *drawing)
    clock.wrap("sampling and pruning", trial_sampling, "sample_params", "make_sampler")
    clock.wrap("sampling and pruning", optuna.Trial, "should_prune")
    base = optuna.storages.BaseStorage
    calls = [n for n in dir(base) if not n.startswith("_") and callable(getattr(base, n))]
    clock.wrap("storage", ResilientStorage, *calls, "retried")
    clock.wrap("storage", Coordinator, "claim", "finish", "join", "leave", "stopped", "counts")
    epochs = Trainer.epochs

    def timed(self: Trainer) -> Iterator[Any]:
        running = epochs(self)
        while True:
            with clock.on("training"):
                result = next(running, None)
            if result is None:
                return
            yield result

    Trainer.epochs = timed  # type: ignore[method-assign]


# -- parts


def overhead(options: Options) -> str:
    """The part ``overhead``."""
    count = _images_of_a_second(options)
    trials, epochs, rung = options.size(9, 3), options.size(20, 4), options.size(4, 2)

    def side(held: int, pruned_at: int) -> Callable[[int], dict[str, Any]]:
        def run(_: int) -> dict[str, Any]:
            size = {"count": count, "trials": trials, "epochs": epochs}
            settings = prepared(options, **size, held=held, pruned_at=pruned_at)
            (found,) = together([("speed_worker:worker", settings)], threads=1)
            return found

        return run

    sizes = {
        f"{held:,} trials, {f'pruned at {pruned_at}' if pruned_at else 'to the end'}": (
            held,
            pruned_at,
        )
        for pruned_at in (0, rung)
        for held in options.size((100, 10_000), (100, 1000))
    }
    sides = {name: side(*size) for name, size in sizes.items()}
    found = interleaved(options, sides, what="overhead, trials held")
    rows = [
        {
            "finished trials in the study": f"{sizes[name][0]:,}",
            "epochs a trial": sizes[name][1] or epochs,
            "epochs run": spread([r["epochs"] for r in runs]),
            "seconds an epoch": spread([r["epoch_s"] for r in runs], 2),
            "share of the worker's time": spread([100 * r["share"] for r in runs], 1) + " %",
            "at 1 s an epoch": spread([100 * r["share_at_1_s"] for r in runs], 1) + " %",
            "ms a trial": spread([r["ms_a_trial"] for r in runs]),
            "once, in the first trial, s": spread([r["first_s"] for r in runs], 2),
        }
        for name, runs in found.items()
    ]
    text = (
        "A worker's time outside training and evaluation, from its second claim to its end: "
        f"{trials - 1} trials of at most {epochs} epochs, one worker of one thread on SQLite. The "
        "finished trials are worse than all of them, or so from a rung of the pruner, successive "
        f"halving, on better: then it ends each there, after {rung} epochs. What a worker does "
        "once, in its first trial, stands apart: it reads the whole study."
    )
    return f"{text}\n\n{table(rows)}"


def _images_of_a_second(options: Options) -> int:
    """So many images make an epoch of about a second; at most 10,000."""
    pixels, _ = images(options, "cifar10", 2000)
    settings = {"net": "pool-conv", "images": str(pixels), "device": options.device, "seconds": 5}
    (found,) = together([("speed_sides:searchae", settings)], threads=1)
    return int(min(10_000, options.size(1.0, 0.3) * found["images_per_s"] / 0.9))


def profile(options: Options) -> str:
    """The part ``profile``."""
    trials, epochs = options.size(12, 4), options.size(5, 2)
    count = options.size(2000, 400)

    def run(_: int) -> dict[str, float]:
        settings = prepared(options, count=count, trials=trials, epochs=epochs)
        both = together([("speed_worker:profiled_worker", settings)] * 2, threads=1)
        total: dict[str, float] = defaultdict(float)
        for one in both:
            for name, seconds in one["seconds"].items():
                total[name] += seconds
        return total

    runs = interleaved(options, {"two workers": run}, what="profile")["two workers"]
    names = {name: None for one in runs for name in one}
    wholes = [sum(one.values()) for one in runs]
    shares = {
        name: [100 * one.get(name, 0.0) / w for one, w in zip(runs, wholes, strict=True)]
        for name in names
    }
    rows = [
        {
            "what": name,
            "seconds": spread([one.get(name, 0.0) for one in runs], 2),
            "share": spread(shares[name], 1) + " %",
        }
        for name in sorted(names, key=lambda name: -max(shares[name]))
    ]
    text = (
        f"Where the time of two workers of one thread goes, both added up: {trials} trials of up "
        f"to {epochs} epochs, {count:,} images, SQLite, from before the imports to the end. "
        "`searchae tune` itself takes some seconds before them: see `search`."
    )
    return f"{text}\n\n{table(rows)}"
