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
    CHECKPOINTS_FOLDER,
    METRICS_FILE,
    BundleConfig,
    Workspace,
    load_bundle,
    machine_info,
    metrics_document,
    write_bundle,
    write_curves_page,
    write_json,
    write_reconstructions_picture,
)
from searchae.config import ProgressCallback, readable_params
from searchae.data import Splits, load_splits
from searchae.errors import DivergedError
from searchae.files import output_file
from searchae.formatting import format_count
from searchae.launch import FleetRequest, Launcher, provide_images
from searchae.models import model_size
from searchae.retrain.list_run import ListRun, RecordFolder, Results
from searchae.retrain.plan import RetrainPlan
from searchae.retrain.reproduction import reproduction
from searchae.study import (
    ListedTraining,
    TrainingList,
    load_images,
    open_training_list,
    package_versions,
)
from searchae.training import EpochResult, mean_image_psnr_db, psnr_of_mse_db
from searchae.tuning import StopRequest, Watcher
from searchae.worker import FAILURE_VERBS, TrainingRecord

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
    request: FleetRequest,
    launcher: Launcher,
    watcher: Watcher,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Trains all seeds, measures them on the test split, and writes a bundle.

    Trainings that were made before are not repeated; one that was interrupted is continued.

    Args:
        plan: What to train.
        out: The bundle's folder: new, empty, or with a bundle of the same training.
        request: The workers.
        launcher: Where they run.
        watcher: Shows the progress.
        stop: Setting it ends the trainings like an interrupt.

    Returns:
        The content of ``metrics.json``, with ``bundle`` (the folder) and ``files``.

    Raises:
        UserError: ``out`` has other contents or cannot be written.
        DataError: The data here differs from the study's.
        DivergedError: The training that the bundle is to hold diverged in its first epoch.
        OutOfMemoryError: A training does not fit on the device.
    """
    splits = load_training_splits(plan, request.data_dir, note=watcher.note)
    with Workspace.open(out, plan.identity(splits.hash), seeds=len(plan.seeds)) as workspace:
        listed = _open_list(plan, splits)
        provide_images(launcher, listed.stored, splits, request.data_dir, watcher.note)
        wanted, stop = plan.listed(), stop or StopRequest()
        run = ListRun(listed, lambda _results: wanted, request, launcher, watcher, stop)
        if text := _done_before(wanted, run.results(), out):
            watcher.note(text)
        run.run()
        folder = RecordFolder(request.artifacts, listed)
        records = [folder.read(training.key) for training in wanted]
        for record in records:
            if verb := FAILURE_VERBS.get(record.ended):
                watcher.note(
                    f"seed {record.seed} {verb}; its best epoch until then, {record.epoch}, is kept"
                )
        if not records[0].weights:
            raise DivergedError(f"seed {plan.seeds[0]}: the training diverged in its first epoch")
        metrics = _write_results(plan, records, splits, out)
    shutil.rmtree(workspace.folder / CHECKPOINTS_FOLDER)
    return {**metrics, "bundle": str(out), "files": list(BUNDLE_FILES)}


def load_training_splits(plan: RetrainPlan, data_dir: Path, *, note: ProgressCallback) -> Splits:
    """Loads the images of a training.

    Args:
        plan: The training.
        data_dir: The folder of the data sets.
        note: Called with progress messages.

    Raises:
        DataError: The data here differs from the study's.
    """
    stored = plan.stored
    splits = load_images(stored, data_dir, note)
    if plan.as_searched:
        return splits
    seed = stored.spec.seed
    return load_splits(plan.data, data_dir=data_dir, seed=seed, progress=note, accept_doubts=True)


def _open_list(plan: RetrainPlan, splits: Splits) -> TrainingList:
    return open_training_list(
        plan.stored,
        data=plan.data,
        data_hash=splits.hash,
        baseline_db=mean_image_psnr_db(splits.train, splits.validation),
    )


def _done_before(wanted: Sequence[ListedTraining], results: Results, out: Path) -> str:
    """Returns which trainings were made before, as a text; empty if none was."""
    done = sum(t.key in results and results[t.key].is_finished for t in wanted)
    count = format_count(len(wanted), "training")
    if not done:
        return ""
    if done < len(wanted):
        return f"{done} of {count} done before, and kept; the others are trained now"
    if (out / METRICS_FILE).exists():
        return (
            f"{out}: holds the bundle of this training already ({count}); nothing is trained "
            "again, only measured"
        )
    return f"{count} done before, and kept: nothing is trained again; the bundle is made from that"


def _write_results(
    plan: RetrainPlan, records: Sequence[TrainingRecord], splits: Splits, out: Path
) -> dict[str, Any]:
    """Writes the bundle and its metrics."""
    first = records[0]
    write_bundle(out, _config(plan, first, splits), dict(first.weights))
    # Measures the written file, so that `searchae evaluate` gives identical results.
    written = load_bundle(out, device=plan.device)
    measured = metrics_document(written, splits)
    rows = [_row(first, {k: measured[k] for k in _METRICS})]
    rows += [_row(record, _measured(record)) for record in records[1:]]
    metrics = {**measured, **_provenance(plan, records, splits), "seeds": _over_seeds(rows)}
    title = f"{plan.study}, trial {plan.trial.number}: {measured['psnr_db']:.2f} dB on test"
    write_reconstructions_picture(out / "reconstructions.png", written, splits.test, title=title)
    histories = {r.seed: r.history for r in records}
    write_curves_page(out / "curves.html", written, splits.test, histories=histories, title=title)
    _write_history(out / "history.csv", records)
    write_json(out / "metrics.json", metrics)
    return metrics


def _measured(record: TrainingRecord) -> dict[str, float]:
    found = record.summary()
    of_mse = float(psnr_of_mse_db(torch.tensor(found["mse"], dtype=torch.float64)))
    return {**{k: found[k] for k in _METRICS if k in found}, "psnr_of_mse_db": of_mse}


def _config(plan: RetrainPlan, run: TrainingRecord, splits: Splits) -> BundleConfig:
    spec = plan.stored.spec
    return BundleConfig(
        searchae=__version__,
        study=plan.study,
        trial=plan.trial.number,
        params=readable_params(spec, plan.trial.params),
        data=plan.data,
        data_hash=splits.hash,
        split_seed=spec.seed,
        seed=run.seed,
        epoch=run.epoch,
        image_shape=splits.image_shape,
        latent_size=model_size(plan.params.model, splits.image_shape).latent,
        model=plan.params.model,
        train=plan.params.train,
        device=run.runtime["device"],
        threads=run.runtime["threads"],
        precision=plan.precision,
        weights_sha256="0" * 64,  # computed when the weights are written
    )


def _provenance(
    plan: RetrainPlan, runs: Sequence[TrainingRecord], splits: Splits
) -> dict[str, Any]:
    """Returns the training, the versions and the machine that the metrics come from."""
    first = runs[0]
    names = ("device", "precision", "kernels", "threads", "cpu")
    machine = {
        **machine_info(plan.device, threads=plan.threads),
        **{k: first.runtime[k] for k in names},
    }
    versions = {k: first.runtime[k] for k in package_versions()}
    runtime = {k: first.runtime[k] for k in (*names, *versions)}
    kept = first.history[first.epoch - 1]
    return {
        "study": plan.study,
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
        "search": reproduction(
            plan.trial,
            first.history,
            runtime=runtime,
            reports_per_epoch=plan.stored.spec.search.reports_per_epoch,
        )
        if plan.as_searched and plan.is_searched
        else None,
        "data_hash": splits.hash,
        "versions": versions,
        "machine": machine,
        "seconds": sum(r.seconds for run in runs for r in run.history),
    }


def _row(run: TrainingRecord, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "epochs": len(run.history),
        "epoch": run.epoch,
        "ended": run.ended,
        "validation_psnr_db": _validation_psnr_db(run),
        **metrics,
        "seconds": sum(r.seconds for r in run.history),
    }


def _validation_psnr_db(run: TrainingRecord) -> float | None:
    return run.history[run.epoch - 1].psnr_db if run.epoch else None


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns mean and sample standard deviation over the seeds; None for that of one seed."""
    spread = {}
    for name in ("validation_psnr_db", *_METRICS):
        values = [float(row[name]) for row in rows]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        spread[name] = {"mean": math.fsum(values) / len(values), "std": deviation}
    return {"count": len(rows), **spread, "rows": list(rows)}


def _write_history(path: Path, runs: Iterable[TrainingRecord]) -> None:
    text = io.StringIO(newline="")
    columns = ["seed", *(f.name for f in fields(EpochResult) if f.name != "share")]
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for run in runs:
        writer.writerows({"seed": run.seed, **asdict(r)} for r in run.history)
    with output_file(path) as file:
        file.write(text.getvalue().encode())
