"""The options that say how many workers train, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.options import threads_option
from searchae.files import ArtifactPath

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

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
LauncherOption = Annotated[
    str, typer.Option(metavar="local|ssh|ray|slurm", help="Where workers run.")
]
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

HostsOption = Annotated[
    str,
    typer.Option(
        metavar="HOST[:N],...|FILE",
        help="For ssh: the hosts, as `ssh HOST` reaches them, each with N workers; or a file with "
        "one a line. A trial uses one GPU at most.",
        show_default=False,
    ),
]
TunnelOption = Annotated[
    bool,
    typer.Option(
        "--tunnel",
        help="For ssh: hosts that cannot reach the database get there through this machine.",
    ),
]
InstallOption = Annotated[
    bool,
    typer.Option(
        "--install",
        help="For ssh: install this searchae on hosts that have another one, or none, into "
        "~/.cache/searchae/venvs there; with --dry-run too.",
    ),
]
SkipUnfitOption = Annotated[
    bool, typer.Option("--skip-unfit", help="For ssh: go on without hosts that fail their check.")
]

NumberPerDeviceOption = Annotated[
    int, typer.Option("--workers-per-device", metavar="N", min=1, help="Workers that share a GPU.")
]


def chosen_launcher(
    name: str,
    *,
    artifacts: ArtifactPath,
    label: str,
    ray_address: str,
    slurm: Sequence[str] | None,
    hosts: str,
    tunnel: bool,
    install: bool,
    skip_unfit: bool,
    storage: URL,
    data_dir: Path,
    workers_per_gpu: int,
) -> Launcher:
    """Returns the launcher that the options ask for; hosts are shown on stderr once checked.

    Raises:
        UserError: There is no such launcher, it lacks an option, or one belongs to another.
    """
    from searchae.cli import console, console_hosts
    from searchae.launch import SshOptions, choose_launcher

    options = SshOptions(hosts, tunnel=tunnel, install=install, skip_unfit=skip_unfit)
    ssh = options.settings(
        name,
        storage=storage,
        data_dir=data_dir,
        artifacts=artifacts,
        workers_per_gpu=workers_per_gpu,
        report=console_hosts.print_hosts,
        note=console.print_note,
    )
    return choose_launcher(
        name,
        artifacts=artifacts,
        label=label,
        ray_address=ray_address,
        slurm=slurm or (),
        ssh=ssh,
    )
