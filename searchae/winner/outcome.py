"""What came of it: seeds, test split, bundle."""

from __future__ import annotations

import csv
import io
import math
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from searchae import __version__, bundle, data, space
from searchae.bundle import BundleConfig
from searchae.bundle.config import write_json
from searchae.bundle.figures import figures, machine, measure
from searchae.bundle.model import from_weights
from searchae.bundle.pictures import curves, reconstructions
from searchae.bundle.workspace import Workspace
from searchae.data.disk import atomic_file
from searchae.models import build
from searchae.objective import Checkpoints
from searchae.spec import Progress
from searchae.study import versions
from searchae.training import EpochResult, Metrics
from searchae.training.kernels import kernels_of
from searchae.winner.choice import Plan
from searchae.winner.training import BAD_ENDS, OnEpoch, Retrained, reproduction, retrain

FILES = (
    "model.safetensors",
    "config.json",
    "metrics.json",
    "history.csv",
    "reconstructions.png",
    "curves.html",
)
_MEASURES = ("psnr_db", "psnr_of_mse_db", "ssim", "mse", "sparsity")


def train(
    plan: Plan,
    *,
    out: Path,
    data_dir: Path,
    on_epoch: OnEpoch,
    note: Progress,
) -> dict[str, Any]:
    """Retrains, measures on the test split, and writes a bundle.

    An interrupted training goes on from its last epoch when it is called again.

    Args:
        plan: What to train.
        out: The bundle's folder: new, empty, or this training's own.
        data_dir: Where data sets lie.
        on_epoch: Told of each epoch.
        note: Told what else goes on.

    Returns:
        What ``metrics.json`` holds, and ``files``.

    Raises:
        UserError: ``out`` holds something else; the images here are not the study's.
        TrainingError: The training diverged in its first epoch, or did not fit into memory.
    """
    stored = plan.stored
    torch.set_num_threads(plan.threads)
    splits = data.load(stored.spec.data, data_dir=data_dir, seed=stored.spec.seed, progress=note)
    data.require(splits, stored.data_hash)
    if not plan.as_searched:
        splits = data.load(plan.data, data_dir=data_dir, seed=stored.spec.seed, progress=note)
    identity = plan.identity(splits.hash)
    with Workspace.open(out, identity, seeds=len(plan.seeds)) as workspace:
        runs = []
        for seed in plan.seeds:
            checkpoints = Checkpoints(workspace.checkpoints, seed)
            runs.append(retrain(plan, seed, splits, checkpoints=checkpoints, on_epoch=on_epoch))
            verb = BAD_ENDS.get(runs[-1].ended)
            if verb:
                note(f"seed {seed} {verb}; its best epoch until then, {runs[-1].epoch}, is kept")
        note("measuring on the test split")
        metrics = _finish(plan, runs, splits, out)
    shutil.rmtree(workspace.checkpoints.parent)
    return {**metrics, "bundle": str(out), "files": list(FILES)}


def _finish(
    plan: Plan, runs: Sequence[Retrained], splits: data.Splits, out: Path
) -> dict[str, Any]:
    """Writes the bundle; here the test split is read, for the first time."""
    first = runs[0]
    config = _config(plan, first, splits)
    bundle.write(out, config, first.weights)
    # What was written is what is measured, so that `evaluate` finds the same to the bit.
    written = bundle.load(out, device=plan.device)
    measured = figures(written, splits)
    others = [
        measure(
            from_weights(
                config.model_copy(update={"seed": run.seed, "epoch": run.epoch}),
                run.weights,
                device=plan.device,
            ),
            splits.test,
        )
        for run in runs[1:]
    ]
    rows = [_row(first, Metrics(**{k: measured[k] for k in _MEASURES}))]
    rows += [_row(run, found) for run, found in zip(runs[1:], others, strict=True)]
    metrics = {**measured, **_about(plan, runs, splits), "seeds": _over_seeds(rows)}
    title = f"{plan.stored.name}, trial {plan.trial.number}: {measured['psnr_db']:.2f} dB on test"
    reconstructions(out / "reconstructions.png", written, splits.test, title=title)
    histories = {run.seed: run.history for run in runs}
    curves(out / "curves.html", written, splits.test, histories=histories, title=title)
    _write_history(out / "history.csv", runs)
    write_json(out / "metrics.json", metrics)
    return metrics


def _config(plan: Plan, run: Retrained, splits: data.Splits) -> BundleConfig:
    spec = plan.stored.spec
    return BundleConfig(
        searchae=__version__,
        study=plan.stored.name,
        trial=plan.trial.number,
        params=space.readable(spec, plan.trial.params),
        data=plan.data,
        data_hash=splits.hash,
        split_seed=spec.seed,
        seed=run.seed,
        epoch=run.epoch,
        image_shape=splits.image_shape,
        latent_size=_latent_size(plan, splits),
        model=plan.params.model,
        train=plan.params.train,
        device=str(plan.device),
        threads=plan.threads,
        precision=plan.precision,
        weights_sha256="0" * 64,  # filled in when they are written
    )


def _latent_size(plan: Plan, splits: data.Splits) -> int:
    with torch.device("meta"):
        return build(plan.params.model, image_shape=splits.image_shape).latent_size


def _about(plan: Plan, runs: Sequence[Retrained], splits: data.Splits) -> dict[str, Any]:
    """Where the figures come from."""
    first, here = runs[0], versions()
    where = {
        **machine(plan.device, threads=plan.threads),
        "precision": plan.precision,
        "kernels": kernels_of(plan.device, plan.precision, plan.threads),
    }
    runtime = {k: where[k] for k in ("device", "precision", "kernels", "threads", "cpu")} | here
    kept = first.history[first.epoch - 1]
    return {
        "study": plan.stored.name,
        "trial": plan.trial.number,
        "params": space.readable(plan.stored.spec, plan.trial.params),
        "seed": first.seed,
        "epoch": first.epoch,
        "validation": {
            k: v for k, v in asdict(kept).items() if k not in ("epoch", "seconds", "train_mse")
        },
        "training": {
            "epochs": len(first.history),
            "epochs_at_most": plan.params.train.epochs,
            "patience": plan.params.train.patience,
            "ended": first.ended,
            "kept": "best validation epoch",
            "images": len(splits.train),
        },
        # On other images its epochs are not the search's.
        "search": reproduction(plan.trial, first.history, runtime=runtime)
        if plan.as_searched
        else None,
        "data_hash": splits.hash,
        "versions": here,
        "machine": where,
        "seconds": sum(r.seconds for run in runs for r in run.history),
    }


def _row(run: Retrained, metrics: Metrics) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "epochs": len(run.history),
        "epoch": run.epoch,
        "ended": run.ended,
        "validation_psnr_db": run.history[run.epoch - 1].psnr_db,
        **{name: getattr(metrics, name) for name in _MEASURES},
        "seconds": sum(r.seconds for r in run.history),
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation (None of a single seed) over the seeds."""
    spread = {}
    for name in ("validation_psnr_db", *_MEASURES):
        values = [float(row[name]) for row in rows]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        spread[name] = {"mean": math.fsum(values) / len(values), "std": deviation}
    return {"count": len(rows), **spread, "rows": list(rows)}


def _write_history(path: Path, runs: Iterable[Retrained]) -> None:
    text = io.StringIO(newline="")
    columns = ["seed", *(f.name for f in fields(EpochResult))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerows({"seed": run.seed, **asdict(r)} for r in run.history)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
