"""Trials as TensorBoard scalars and hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchae.errors import UserError
from searchae.report.findings import Run

SCALARS = ("train_mse", "val_mse", "sparsity")


def write_tensorboard(folder: Path, runs: Sequence[Run]) -> int:
    """Writes a run a trial; what an earlier call wrote about it is replaced.

    Args:
        folder: Made if it is not there; each trial gets a folder in it.
        runs: Those with reports are written.

    Returns:
        How many.

    Raises:
        UserError: The ``tensorboard`` package is not installed.
        OSError: A file cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise UserError(
            "--tensorboard needs the tensorboard package: pip install 'searchae[tensorboard]'"
        ) from None
    chosen = [r for r in runs if r.reports]
    for run in chosen:
        place = folder / f"trial-{run.row.number:06d}"
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        writer = SummaryWriter(log_dir=str(place))
        try:
            _write(writer, run)
        finally:
            writer.close()
    return len(chosen)


def _write(writer: Any, run: Run) -> None:
    times = _times(run)
    for epoch, psnr_db in run.reports.items():
        writer.add_scalar("psnr_db", psnr_db, epoch, walltime=times.get(epoch))
    for name in SCALARS if run.history else ():
        for epoch, number in enumerate(run.history[name], start=1):
            writer.add_scalar(name, number, epoch, walltime=times.get(epoch))
    if run.row.psnr_db is not None:
        hparams = {
            k: v if isinstance(v, bool | int | float | str) else str(v)
            for k, v in run.row.params.items()
        }
        # In the trial's own folder; by default it would make one more, named after the time.
        writer.add_hparams(
            {**hparams, "state": run.row.outcome or run.row.state},
            {"hparam/psnr_db": run.row.psnr_db},
            run_name=".",
        )


def _times(run: Run) -> dict[int, float]:
    """When each epoch ended, as far as that is known: seconds since 1970."""
    if run.started is None or not run.history:
        return {}
    now, found = run.started.timestamp(), {}
    for epoch, seconds in enumerate(run.history["seconds"], start=1):
        now += seconds
        found[epoch] = now
    return found
