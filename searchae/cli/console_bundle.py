"""Prints the training of a bundle, its metrics, and what was done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from searchae.cli.terminal import SafeConsole, print_line
from searchae.formatting import format_count, format_duration

if TYPE_CHECKING:
    from searchae.study import Summary, TrialRow


class EpochLines:
    """Shows the epochs of trainings: a bar per seed on a terminal, lines elsewhere.

    A context manager; implements ``Watcher``.

    Args:
        epochs: The most that a training can have.
    """

    def __init__(self, epochs: int) -> None:
        self._console = SafeConsole(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("{task.fields[more]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._epochs = epochs
        self._tasks: dict[int, Any] = {}
        self._shown: dict[int, float] = {}

    def __enter__(self) -> EpochLines:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a training that has ended."""
        del best_db
        self._show(row)
        ended = f"ended{f' ({row.outcome})' if row.outcome else ''}"
        if not self._console.is_terminal:
            count = format_count(row.epochs, "epoch")
            took = "" if row.seconds is None else f", {format_duration(row.seconds)}"
            self._console.print(f"seed {row.seed}  {ended} after {count}{took}")
        elif row.number in self._tasks:
            more = "" if row.psnr_db is None else f"validation {row.psnr_db:.2f} dB"
            self._bar.update(self._tasks[row.number], more=f"{more}, {ended}")

    def progress(self, summary: Summary) -> None:
        """Shows the last epoch of each training that is running."""
        for row in summary.rows:
            if row.state == "running" and row.epochs:
                self._show(row)

    def _show(self, row: TrialRow) -> None:
        if self._shown.get(row.number) == row.epochs or row.psnr_db is None:
            return
        self._shown[row.number] = row.epochs
        seed = f"seed {row.seed}"
        if not self._console.is_terminal:
            epoch = f"epoch {row.epochs:3.0f} of {self._epochs}"
            self._console.print(f"{seed}  {epoch}  validation {row.psnr_db:6.2f} dB")
            return
        if row.number not in self._tasks:
            self._tasks[row.number] = self._bar.add_task(seed, total=self._epochs, more="")
        more = f"validation {row.psnr_db:.2f} dB"
        self._bar.update(self._tasks[row.number], completed=row.epochs, more=more)


def print_export(found: Mapping[str, Any]) -> None:
    """Prints the result of an export."""
    print_line(
        f"{found['out']}: {found['part']}, {found['bytes']:,} bytes; {_listed(found['inputs'])} -> "
        f"{', '.join(found['outputs'])}; largest difference to the original "
        f"{found['max_difference']:.1e}"
    )


def print_used(found: Mapping[str, Any]) -> None:
    """Prints the result of encode, decode or reconstruct."""
    shape = "x".join(str(n) for n in found["image_shape"])
    psnr = f", {found['psnr_db']:.2f} dB" if "psnr_db" in found else ""
    print_line(
        f"{found['out']}: {found['images']:,} images of {shape}, latents "
        f"{'x'.join(map(str, found['latents']))}{psnr}"
    )
    print_line(_compression(found["compression"]))


def print_trained(metrics: Mapping[str, Any]) -> None:
    """Prints the metrics of a retrained trial."""
    validation, training = metrics["validation"], metrics["training"]
    if metrics["search"]:
        print_line(f"search      {metrics['search']['text']}")
    print_line(
        f"validation  {validation['psnr_db']:.2f} dB at epoch {metrics['epoch']}, the best, whose "
        f"weights are kept ({_training_end(training, best_epoch=metrics['epoch'])})"
    )
    print_figures(metrics)
    seeds = metrics["seeds"]
    if seeds["count"] > 1:
        psnr, rows = seeds["psnr_db"], seeds["rows"]
        print_line(
            f"seeds       {psnr['mean']:.2f} dB on the test split, standard deviation "
            f"{psnr['std']:.3f} dB, over {seeds['count']} seeds: "
            f"{', '.join(format(r['psnr_db'], '.2f') for r in rows)}"
        )
    print_line(f"bundle      {metrics['bundle']}: {', '.join(metrics['files'])}")


def _training_end(training: Mapping[str, Any], *, best_epoch: int) -> str:
    """Returns after how many epochs a training ended, and why."""
    epochs = training["epochs"]
    count = format_count(epochs, "epoch")
    if training["ended"] in ("diverged", "dead"):
        return f"{training['ended']} after {count} of at most {training['epochs_at_most']}"
    if training["ended"] != "epochs":
        return (
            f"ended after {count} of at most {training['epochs_at_most']}, since it had not "
            f"improved for {training['patience']}"
        )
    rising = ", still rising" if best_epoch == epochs else ""
    return f"stopped at the limit of {count}{rising}"


def print_figures(found: Mapping[str, Any]) -> None:
    """Prints the metrics of a bundle on one split."""
    latent = found["latent"]
    if found["psnr_db"] <= found["baseline_db"]:
        print_line(
            "warning     no better than the mean training image for every image: the net learned "
            "nothing; choose another --trial, or search on"
        )
    print_line(
        f"{found['split']:10s}  {found['psnr_db']:.2f} dB, the mean PSNR of {found['images']:,} "
        f"images (baseline {found['baseline_db']:.2f} dB); SSIM {found['ssim']:.4f}; MSE "
        f"{found['mse']:.6f}, whose own PSNR is {found['psnr_of_mse_db']:.2f} dB"
    )
    size = f"net         {found['parameters']:,} parameters; "
    if latent is None:
        print_line(f"{size}no latent")
        return
    print_line(
        f"latent      mean {latent['mean']:.3f}, standard deviation {latent['std']:.3f}, "
        f"{latent['min']:.2f} to {latent['max']:.2f}; {latent['near_zero']:.1%} near zero"
    )
    print_line(size + _compression(found["compression"]))


def _compression(found: Mapping[str, Any]) -> str:
    return (
        f"{found['image_values']:,} values an image, {found['latent_values']:,} a latent: "
        f"{found['ratio']:.1f} times fewer values, {found['bytes_ratio']:.1f} times fewer bytes"
    )


def _listed(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} ({', '.join(map(str, v))})" for k, v in inputs.items())
