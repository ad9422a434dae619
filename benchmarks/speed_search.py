"""Whole searches for ``benchmarks.speed``: searchae, plain Optuna and Ray Tune, start-up included.

Same net (``pool-conv``), space, images, split, epochs, trials, and two processes of one thread.
searchae is its command line. The others train with the user's loop of ``speed_user`` and come as
a user would set them up: Optuna with TPE and its default pruner, two processes on SQLite; Ray Tune
with OptunaSearch and ASHA, two trials at once with a CPU each. None of them imports anything of
searchae, nor torch before it trains.

    python -m benchmarks.speed_search optuna|optuna-worker|ray JSON

is a user's program; ``benchmarks.speed search`` calls it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed_base import (
    Options,
    environment,
    images,
    interleaved,
    ratios,
    say,
    spread,
    table,
)

NAME = "speed"
SIDES = ("searchae", "Optuna", "Ray Tune")
WORKERS = 2
CHOICES = {
    "activation": ["relu", "leaky_relu", "elu", "tanh"],
    "optimizer": ["adam", "rmsprop", "sgd"],
    "regularizer": ["none", "clip", "clip+l1"],
}
LEARNING_RATES = (1e-4, 1e-2)
CLIP, L1_WEIGHT = 0.5, 1e-4
Settings = Mapping[str, Any]

# -- the study


def make_study(folder: Path, pixels: Path, *, trials: int, epochs: int) -> Path:
    """Writes a study file and its images, and returns the file.

    Args:
        folder: Gets both.
        pixels: An ``.npy`` file of images, uint8 (N, H, W, C).
        trials: The budget.
        epochs: Of a full training.
    """
    import numpy as np

    found = np.load(pixels)
    np.savez(folder / "images.npz", x_train=found, x_test=found[:10])  # nobody looks at x_test
    path = folder / f"{NAME}.toml"
    path.write_text(study_text(f"{folder.resolve()}/images.npz", trials=trials, epochs=epochs))
    return path


def study_text(images: str, *, trials: int, epochs: int) -> str:
    """A study file.

    Args:
        images: An ``.npz`` file, its path.
        trials: The budget.
        epochs: Of a full training.
    """
    low, high = LEARNING_RATES
    lists = {name: json.dumps(choices) for name, choices in CHOICES.items()}
    return f"""\
[data]
name = "npz"
path = "{images}"

[model]
kind = "conv"
channels = [32, 64, 128]
downsample = "pool"
latent_dim = 64
latent_activation = "same"
activation = {{ choices = {lists["activation"]} }}

[train]
epochs = {epochs}
batch_size = 128
optimizer = {{ choices = {lists["optimizer"]} }}
learning_rate = {{ low = {low}, high = {high}, log = true }}
regularizer = {{ choices = {lists["regularizer"]} }}
clip = {CLIP}
l1_weight = {L1_WEIGHT}

[search]
trials = {trials}
"""


# -- a user's programs


def psnrs_db(params: Mapping[str, Any], settings: Settings) -> Iterator[float]:
    """Trains with the user's loop; yields the validation PSNR after each epoch, in dB."""
    import numpy as np

    from benchmarks.speed_user import user_epochs, user_psnr_db

    pixels, held_out = (np.load(settings[k]) for k in ("images", "validation"))
    trained = user_epochs(
        "pool-conv",
        pixels,
        seed=settings["seed"],
        device=settings["device"],
        activation=params["activation"],
        optimizer=params["optimizer"],
        learning_rate=params["learning_rate"],
        clip=CLIP if "clip" in params["regularizer"] else None,
        l1_weight=L1_WEIGHT if "l1" in params["regularizer"] else 0.0,
    )
    for _ in range(settings["epochs"]):
        yield user_psnr_db(next(trained), held_out, device=settings["device"])


def optuna_program(settings: Settings) -> None:
    """Makes the study, and starts two processes that work on it."""
    import optuna

    optuna.create_study(study_name=NAME, storage=settings["url"], direction="maximize")
    # A share of the trials each: together as many as were asked for.
    shares = [settings["trials"] // WORKERS + (i < settings["trials"] % WORKERS) for i in (0, 1)]
    running = [
        subprocess.Popen(_program("optuna-worker", {**settings, "trials": n, "worker": i}))
        for i, n in enumerate(shares)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a process has failed")


def optuna_worker(settings: Settings) -> None:
    """One of them."""
    import optuna

    from benchmarks import speed_user  # noqa: F401  # a trial starts when torch is there

    def objective(trial: optuna.Trial) -> float:
        params: dict[str, Any] = {n: trial.suggest_categorical(n, c) for n, c in CHOICES.items()}
        low, high = LEARNING_RATES
        params["learning_rate"] = trial.suggest_float("learning_rate", low, high, log=True)
        for epoch, psnr_db in enumerate(psnrs_db(params, settings), start=1):
            trial.report(psnr_db, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return psnr_db

    sampler = optuna.samplers.TPESampler(seed=WORKERS * settings["seed"] + settings["worker"])
    study = optuna.load_study(study_name=NAME, storage=settings["url"], sampler=sampler)
    study.optimize(objective, n_trials=settings["trials"])


def ray_program(settings: Settings) -> None:
    """The whole search; writes what became of the trials."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(params: dict[str, Any]) -> None:
        from benchmarks import speed_user  # noqa: F401  # a trial starts when torch is there

        started = time.time()
        for psnr_db in psnrs_db(params, settings):
            tune.report({"psnr_db": psnr_db, "started": started, "at": time.time()})

    gpus = 1 if settings["device"] == "cuda" else 0
    ray.init(
        address="local",
        num_cpus=WORKERS,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
    )
    each = {"cpu": 1.0, **({"gpu": 1 / WORKERS} if gpus else {})}
    results = tune.Tuner(
        tune.with_resources(train, each),
        param_space={n: tune.choice(c) for n, c in CHOICES.items()}
        | {"learning_rate": tune.loguniform(*LEARNING_RATES)},
        tune_config=tune.TuneConfig(
            metric="psnr_db",
            mode="max",
            search_alg=OptunaSearch(seed=settings["seed"]),
            scheduler=ASHAScheduler(max_t=settings["epochs"]),
            num_samples=settings["trials"],
            max_concurrent_trials=WORKERS,
        ),
        run_config=tune.RunConfig(name=NAME, storage_path=settings["folder"], verbose=0),
    ).fit()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials have failed: {results.errors[0]}")
    trials = [
        {k: r.metrics[k] for k in ("psnr_db", "started", "at")}
        | {"epochs": r.metrics["training_iteration"]}
        for r in results
    ]
    (Path(settings["folder"]) / "trials.json").write_text(json.dumps(trials))


PROGRAMS: dict[str, Callable[[Settings], None]] = {
    "optuna": optuna_program,
    "optuna-worker": optuna_worker,
    "ray": ray_program,
}


def _program(name: str, settings: Settings) -> list[str]:
    return [sys.executable, "-m", "benchmarks.speed_search", name, json.dumps(settings)]


# -- measured from outside


def search(options: Options) -> str:
    """The part ``search``."""
    trials, epochs = options.size(24, 4), options.size(options.epochs, 2)
    pixels, source = images(options, "cifar10", options.size(2000, 400))
    sides = [side for side in SIDES if side not in options.without]
    missing = _why_no_ray() if "Ray Tune" in sides else ""
    if missing:
        say(missing)
        sides.remove("Ray Tune")

    def side(name: str) -> Callable[[int], dict[str, Any]]:
        return lambda number: _run(name, options, pixels, trials=trials, epochs=epochs, seed=number)

    found = interleaved(options, {name: side(name) for name in sides}, what="search")
    target = min(run["best_db"] for runs in found.values() for run in runs) - 0.3
    until = f"seconds until a trial has ended with {target:.2f} dB"
    ours = [run["seconds"] for run in found["searchae"]]
    our_rate = [run["images_per_s"] for run in found["searchae"]]
    rows = [
        {
            "side": name,
            "seconds": spread([run["seconds"] for run in runs], 1),
            "times searchae's": f"{median(ratios([r['seconds'] for r in runs], ours)):.2f}",
            "images/s": spread([run["images_per_s"] for run in runs]),
            "searchae's images/s by its": spread(
                ratios(our_rate, [run["images_per_s"] for run in runs]), 2
            ),
            "epochs run": spread([run["epochs"] for run in runs]),
            "best PSNR, dB": spread([run["best_db"] for run in runs], 2),
            until: spread([_reached(run, target) for run in runs], 1),
            "seconds until the first trial starts": spread([run["first_s"] for run in runs], 1),
        }
        for name, runs in found.items()
    ]
    text = (
        f"{trials} trials of at most {epochs} epochs, {run_images(found)} of {source}, {WORKERS} "
        "processes of one thread, from the command's start to its end. PSNRs are those of the "
        "last epochs of trials, pruned ones too; the one to be reached is 0.3 dB below the lowest "
        "best of all runs. Optuna's processes have half of the trials each. Rounds differ in their "
        "seed."
    )
    return "\n\n".join([text, table(rows), *([missing] if missing else [])])


def run_images(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """Training and validation images, in words."""
    one = found["searchae"][0]
    return f"{one['train']:,} + {one['validation']:,} images"


def _why_no_ray() -> str:
    words = [sys.executable, "-c", "import ray.tune, ray.tune.search.optuna"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"Ray Tune was not measured: ray[tune] is not installed here ({reason})."


def _run(
    side: str, options: Options, pixels: Path, *, trials: int, epochs: int, seed: int
) -> dict[str, Any]:
    """One search in a new folder."""
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="search-", dir=options.work)).resolve()
    study = make_study(folder, pixels, trials=trials, epochs=epochs)
    splits = _split(study, folder, seed)
    url = f"sqlite:///{folder}/search.db"
    settings = {
        **{k: str(path) for k, (path, _) in splits.items()},
        "url": url,
        "folder": str(folder),
        "device": options.device,
        "trials": trials,
        "epochs": epochs,
        "seed": seed,
    }
    ours = [sys.executable, "-m", "searchae", "tune", "--study", str(study), "--seed", str(seed)]
    ours += ["--storage", url, "--artifacts", f"{folder}/artifacts", "--device", options.device]
    ours += ["--workers", str(WORKERS), "--workers-per-device", str(WORKERS), "--threads", "1"]
    commands = {
        "searchae": ours,
        "Optuna": _program("optuna", settings),
        "Ray Tune": _program("ray", settings),
    }
    log = folder / "log"
    started = time.time()
    with log.open("w") as file:
        # searchae gives its workers their threads itself; of the others the user does.
        threads = None if side == "searchae" else 1
        ended = subprocess.run(
            commands[side], env=environment(threads), stdout=file, stderr=file, check=False
        )
    seconds = time.time() - started
    if ended.returncode:
        raise SystemExit(f"{side} has failed; {log} ends:\n{log.read_text()[-2000:]}")
    rows = json.loads((folder / "trials.json").read_text()) if side == "Ray Tune" else _rows(url)
    rows = [row | {"psnr_db": _or_worst(row["psnr_db"])} for row in rows]
    if len(rows) < trials:
        raise SystemExit(f"{side}: {len(rows)} trials have ended, not {trials}; see {folder}")
    run = sum(row["epochs"] for row in rows)
    train, validation = (splits[k][1] for k in ("images", "validation"))
    return {
        "seconds": seconds,
        "started": started,
        "trials": rows,
        "epochs": run,
        "train": train,
        "validation": validation,
        "images_per_s": run * train / seconds,
        "best_db": max(row["psnr_db"] for row in rows),
        "first_s": min(row["started"] for row in rows) - started,
    }


def _split(study: Path, folder: Path, seed: int) -> dict[str, tuple[Path, int]]:
    """Writes the split that searchae makes as files for the others; with how many are in each."""
    import numpy as np

    from searchae import data
    from searchae.config import loader

    splits = data.load_splits(loader.load_study_file(study).data, data_dir=folder, seed=seed)
    files = {}
    for name, tensor in (("images", splits.train), ("validation", splits.validation)):
        files[name] = (folder / f"{name}.npy", len(tensor))
        np.save(files[name][0], tensor.permute(0, 2, 3, 1).contiguous().numpy())
    return files


def _or_worst(psnr_db: float) -> float:
    """A training that diverged is worse than any other."""
    return psnr_db if math.isfinite(psnr_db) else -math.inf


def _rows(url: str) -> list[dict[str, float]]:
    """The trials that have ended in an Optuna database, searchae's or Optuna's own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=NAME, storage=url)
    rows = []
    for trial in study.get_trials(deepcopy=False):
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        reports = trial.intermediate_values
        rows.append(
            {
                "psnr_db": reports[max(reports)] if reports else math.nan,
                "epochs": len(reports),
                "started": trial.datetime_start.timestamp(),
                "at": trial.datetime_complete.timestamp(),
            }
        )
    return rows


def _reached(run: Mapping[str, Any], psnr_db: float) -> float:
    """Seconds from the command's start until a trial has ended at least so well."""
    return float(min(t["at"] for t in run["trials"] if t["psnr_db"] >= psnr_db) - run["started"])


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](json.loads(sys.argv[2]))
