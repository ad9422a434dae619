"""The options that say how many workers train, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.options import threads_option
from searchae.errors import UserError, nearest

if TYPE_CHECKING:
    from searchae.launch import Launcher

MaxHoursOption = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        help="Stop all workers after this many hours; each ends its epoch first.",
        show_default="no limit",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Processes at once.",
        show_default="one a GPU, else one a core up to 4",
    ),
]
WorkersPerDeviceOption = Annotated[
    str, typer.Option(metavar="N|auto", help="Workers that share a GPU; auto: measured, up to 8.")
]
ThreadsOption = Annotated[
    int | None,
    threads_option(
        "CPU threads of each worker.", show_default="the cores, shared out among the workers"
    ),
]
LauncherOption = Annotated[str, typer.Option(metavar="local|ray|slurm", help="Where workers run.")]
RayAddressOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="Ray cluster: HOST:PORT; auto: the one here, else a new one; local: a new one.",
    ),
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An sbatch option, such as partition=gpu; repeatable."),
]

NumberPerDeviceOption = Annotated[
    int, typer.Option("--workers-per-device", metavar="N", min=1, help="Workers that share a GPU.")
]


def choose_launcher(
    name: str, *, artifacts: Path, label: str, ray_address: str, slurm: Sequence[str]
) -> Launcher:
    """Returns the launcher of a name.

    Args:
        name: ``local``, ``ray`` or ``slurm``.
        artifacts: The folder that all workers share.
        label: What a cluster calls the jobs.
        ray_address: For Ray: its address.
        slurm: For Slurm: sbatch options, each ``KEY=VALUE``.

    Raises:
        UserError: There is no such launcher, or the options belong to another one.
    """
    from searchae.launch import LocalLauncher, RayLauncher, SlurmLauncher

    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if name == "local":
        return LocalLauncher()
    if name == "ray":
        return RayLauncher(ray_address)
    if name == "slurm":
        options = dict(part.partition("=")[::2] for part in slurm)
        return SlurmLauncher(artifacts.resolve() / "slurm", options, label=label)
    raise UserError(f"--launcher {name!r}: not known. {nearest(name, ('local', 'ray', 'slurm'))}")
