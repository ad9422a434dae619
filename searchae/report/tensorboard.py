"""Trials as TensorBoard runs, with scalars and hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchae.errors import UserError, install_text
from searchae.report.findings import TrialRun

SCALARS = ("train_mse", "val_mse", "sparsity")


def write_tensorboard(folder: Path, runs: Sequence[TrialRun]) -> int:
    """Writes one TensorBoard run per trial and replaces what an earlier call wrote.

    Args:
        folder: The log folder, created if missing; each trial gets a folder in it.
        runs: The trials; only those with at least one epoch are written.

    Returns:
        The number of runs written.

    Raises:
        UserError: The ``tensorboard`` package is not installed.
        OSError: A file cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise UserError(
            f"--tensorboard needs the tensorboard package: {install_text('tensorboard')}"
        ) from None
    chosen = [r for r in runs if r.reports]
    for run in chosen:
        run_folder = folder / f"trial-{run.row.number:06d}"
        run_folder.mkdir(parents=True, exist_ok=True)
        for old in run_folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer = SummaryWriter(log_dir=str(run_folder))
        try:
            _write_run(writer, run)
        finally:
            writer.close()
    return len(chosen)


def _write_run(writer: Any, run: TrialRun) -> None:
    times = _epoch_end_times(run)
    for epoch, psnr_db in run.reports.items():
        if epoch != int(epoch):  # TensorBoard's steps are whole numbers
            continue
        writer.add_scalar("psnr_db", psnr_db, int(epoch), walltime=times.get(int(epoch)))
    for name in SCALARS if run.history else ():
        for epoch, value in run.history_by_epoch(name).items():
            writer.add_scalar(name, value, epoch, walltime=times.get(epoch))
    if run.row.psnr_db is not None:
        hparams = {
            k: v if isinstance(v, bool | int | float | str) else str(v)
            for k, v in run.row.params.items()
        }
        # By default add_hparams makes another folder, named after the time.
        writer.add_hparams(
            {**hparams, "state": run.row.outcome or run.row.state},
            {"hparam/psnr_db": run.row.psnr_db},
            run_name=".",
        )


def _epoch_end_times(run: TrialRun) -> dict[int, float]:
    """Returns when each epoch ended, in seconds since 1970; empty if not known."""
    if run.started is None or not run.history:
        return {}
    now, times = run.started.timestamp(), {}
    for epoch, seconds in run.history_by_epoch("seconds").items():
        now += seconds
        times[epoch] = now
    return times
