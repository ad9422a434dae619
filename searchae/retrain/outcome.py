"""Trains the planned seeds, measures them on the test split and writes the bundle."""

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

from searchae import __version__
from searchae.bundle import (
    BundleConfig,
    Workspace,
    bundle_from_weights,
    load_bundle,
    machine_info,
    measure_bundle,
    metrics_document,
    write_bundle,
    write_curves_page,
    write_json,
    write_reconstructions_picture,
)
from searchae.config import ProgressCallback, readable_params
from searchae.data import Splits, load_splits, require_same_data
from searchae.files import atomic_file
from searchae.models import build_model
from searchae.retrain.plan import RetrainPlan
from searchae.retrain.training import (
    FAILURE_VERBS,
    EpochCallback,
    RetrainResult,
    reproduction,
    retrain_once,
)
from searchae.study import package_versions
from searchae.training import Checkpoints, EpochResult, Metrics, kernels_of

BUNDLE_FILES = (
    "model.safetensors",
    "config.json",
    "metrics.json",
    "history.csv",
    "reconstructions.png",
    "curves.html",
)
_METRICS = ("psnr_db", "psnr_of_mse_db", "ssim", "mse", "sparsity")


def train_bundle(
    plan: RetrainPlan,
    *,
    out: Path,
    data_dir: Path,
    on_epoch: EpochCallback,
    note: ProgressCallback,
) -> dict[str, Any]:
    """Trains all seeds, measures them on the test split, and writes a bundle.

    After an interruption, another call resumes from the last checkpoint.

    Args:
        plan: What to train.
        out: The bundle's folder: new, empty, or with an interrupted run of the same training.
        data_dir: The folder of the data sets.
        on_epoch: Called with the seed and the result of each epoch.
        note: Called with other progress messages.

    Returns:
        The content of ``metrics.json``, with ``bundle`` (the folder) and ``files``.

    Raises:
        UserError: ``out`` has other contents or cannot be written.
        DataError: The data here differs from the study's.
        DivergedError: A training diverged in its first epoch.
        OutOfMemoryError: A training does not fit on the device.
    """
    stored = plan.stored
    torch.set_num_threads(plan.threads)
    splits = load_splits(stored.spec.data, data_dir=data_dir, seed=stored.spec.seed, progress=note)
    require_same_data(splits, stored.data_hash)
    if not plan.as_searched:
        splits = load_splits(plan.data, data_dir=data_dir, seed=stored.spec.seed, progress=note)
    identity = plan.identity(splits.hash)
    with Workspace.open(out, identity, seeds=len(plan.seeds)) as workspace:
        runs = []
        for seed in plan.seeds:
            checkpoints = Checkpoints(workspace.checkpoints, seed)
            runs.append(
                retrain_once(plan, seed, splits, checkpoints=checkpoints, on_epoch=on_epoch)
            )
            if verb := FAILURE_VERBS.get(runs[-1].ended):
                note(f"seed {seed} {verb}; its best epoch until then, {runs[-1].epoch}, is kept")
        note("measuring on the test split")
        metrics = _write_results(plan, runs, splits, out)
    shutil.rmtree(workspace.checkpoints.parent)
    return {**metrics, "bundle": str(out), "files": list(BUNDLE_FILES)}


def _write_results(
    plan: RetrainPlan, runs: Sequence[RetrainResult], splits: Splits, out: Path
) -> dict[str, Any]:
    """Writes the bundle and its metrics; the first time that the test split is used."""
    first = runs[0]
    config = _config(plan, first, splits)
    write_bundle(out, config, first.weights)
    # Measures the written file, so that `searchae evaluate` gives identical results.
    written = load_bundle(out, device=plan.device)
    measured = metrics_document(written, splits)
    other_metrics = [
        measure_bundle(
            bundle_from_weights(
                config.model_copy(update={"seed": run.seed, "epoch": run.epoch}),
                run.weights,
                device=plan.device,
            ),
            splits.test,
        )
        for run in runs[1:]
    ]
    rows = [_row(first, Metrics(**{k: measured[k] for k in _METRICS}))]
    rows += [
        _row(run, measured_run) for run, measured_run in zip(runs[1:], other_metrics, strict=True)
    ]
    metrics = {**measured, **_provenance(plan, runs, splits), "seeds": _over_seeds(rows)}
    title = f"{plan.stored.name}, trial {plan.trial.number}: {measured['psnr_db']:.2f} dB on test"
    write_reconstructions_picture(out / "reconstructions.png", written, splits.test, title=title)
    histories = {run.seed: run.history for run in runs}
    write_curves_page(out / "curves.html", written, splits.test, histories=histories, title=title)
    _write_history(out / "history.csv", runs)
    write_json(out / "metrics.json", metrics)
    return metrics


def _config(plan: RetrainPlan, run: RetrainResult, splits: Splits) -> BundleConfig:
    spec = plan.stored.spec
    return BundleConfig(
        searchae=__version__,
        study=plan.stored.name,
        trial=plan.trial.number,
        params=readable_params(spec, plan.trial.params),
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
        weights_sha256="0" * 64,  # computed when the weights are written
    )


def _latent_size(plan: RetrainPlan, splits: Splits) -> int:
    with torch.device("meta"):
        return build_model(plan.params.model, image_shape=splits.image_shape).latent_size


def _provenance(plan: RetrainPlan, runs: Sequence[RetrainResult], splits: Splits) -> dict[str, Any]:
    """Returns the training, the versions and the machine that the metrics come from."""
    first, versions = runs[0], package_versions()
    machine = {
        **machine_info(plan.device, threads=plan.threads),
        "precision": plan.precision,
        "kernels": kernels_of(plan.device, plan.precision, plan.threads),
    }
    runtime = {
        k: machine[k] for k in ("device", "precision", "kernels", "threads", "cpu")
    } | versions
    kept = first.history[first.epoch - 1]
    return {
        "study": plan.stored.name,
        "trial": plan.trial.number,
        "params": readable_params(plan.stored.spec, plan.trial.params),
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
        # Trained on other images, its epochs cannot be compared with the search's.
        "search": reproduction(plan.trial, first.history, runtime=runtime)
        if plan.as_searched
        else None,
        "data_hash": splits.hash,
        "versions": versions,
        "machine": machine,
        "seconds": sum(r.seconds for run in runs for r in run.history),
    }


def _row(run: RetrainResult, metrics: Metrics) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "epochs": len(run.history),
        "epoch": run.epoch,
        "ended": run.ended,
        "validation_psnr_db": run.history[run.epoch - 1].psnr_db,
        **{name: getattr(metrics, name) for name in _METRICS},
        "seconds": sum(r.seconds for r in run.history),
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns mean and sample standard deviation over the seeds; None for that of one seed."""
    spread = {}
    for name in ("validation_psnr_db", *_METRICS):
        values = [float(row[name]) for row in rows]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        spread[name] = {"mean": math.fsum(values) / len(values), "std": deviation}
    return {"count": len(rows), **spread, "rows": list(rows)}


def _write_history(path: Path, runs: Iterable[RetrainResult]) -> None:
    text = io.StringIO(newline="")
    columns = ["seed", *(f.name for f in fields(EpochResult))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerows({"seed": run.seed, **asdict(r)} for r in run.history)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
