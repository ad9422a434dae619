"""The options that say how many workers train, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.options import threads_option
from searchae.errors import UserError, nearest

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
        "~/.cache/searchae/venvs there.",
    ),
]
SkipUnfitOption = Annotated[
    bool, typer.Option("--skip-unfit", help="For ssh: go on without hosts that fail their check.")
]

NumberPerDeviceOption = Annotated[
    int, typer.Option("--workers-per-device", metavar="N", min=1, help="Workers that share a GPU.")
]


@dataclass(frozen=True, kw_only=True)
class SshOptions:
    """The options of ``--launcher ssh``, and what its workers need.

    Attributes:
        hosts: The value of ``--hosts``.
        tunnel: Whether hosts that cannot reach the database get a tunnel.
        install: Whether to install searchae where it is missing.
        skip_unfit: Whether to go on without hosts that do not fit.
        storage: The database.
        data_dir: The data folder.
        workers_per_gpu: Workers that share a GPU.
    """

    hosts: str
    tunnel: bool
    install: bool
    skip_unfit: bool
    storage: URL
    data_dir: Path
    workers_per_gpu: int = 1


def choose_launcher(
    name: str,
    *,
    artifacts: Path,
    label: str,
    ray_address: str,
    slurm: Sequence[str],
    ssh: SshOptions,
) -> Launcher:
    """Returns the launcher of a name.

    Args:
        name: ``local``, ``ssh``, ``ray`` or ``slurm``.
        artifacts: The folder that all workers share.
        label: What a cluster calls the jobs.
        ray_address: For Ray: its address.
        slurm: For Slurm: sbatch options, each ``KEY=VALUE``.
        ssh: For ssh: its options.

    Raises:
        UserError: There is no such launcher, or the options belong to another one.
    """
    from searchae.launch import LocalLauncher, RayLauncher, SlurmLauncher

    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if name != "ssh":
        _refuse_ssh_options(ssh)
    if name == "local":
        return LocalLauncher()
    if name == "ray":
        return RayLauncher(ray_address)
    if name == "slurm":
        options = dict(part.partition("=")[::2] for part in slurm)
        return SlurmLauncher(artifacts.resolve() / "slurm", options, label=label)
    if name == "ssh":
        return _ssh_launcher(ssh, artifacts)
    known = ("local", "ssh", "ray", "slurm")
    raise UserError(f"--launcher {name!r}: not known. {nearest(name, known)}")


def _refuse_ssh_options(ssh: SshOptions) -> None:
    given = {
        f"--hosts {ssh.hosts}": ssh.hosts,
        "--tunnel": ssh.tunnel,
        "--install": ssh.install,
        "--skip-unfit": ssh.skip_unfit,
    }
    for option in (option for option, value in given.items() if value):
        raise UserError(f"{option}: only with --launcher ssh")


def _ssh_launcher(ssh: SshOptions, artifacts: Path) -> Launcher:
    from searchae.cli import console, console_hosts
    from searchae.launch import SshLauncher, SshSettings, parse_hosts
    from searchae.storage import is_managed

    if not ssh.hosts:
        raise UserError("--launcher ssh: say where: --hosts gpu1,gpu2:2, or --hosts FILE")
    return SshLauncher(
        SshSettings(
            hosts=parse_hosts(ssh.hosts),
            storage=ssh.storage,
            data_dir=ssh.data_dir,
            artifacts=artifacts,
            workers_per_gpu=ssh.workers_per_gpu,
            tunnel=ssh.tunnel or is_managed(ssh.storage),
            install=ssh.install,
            skip_unfit=ssh.skip_unfit,
            report=console_hosts.print_hosts,
            note=console.print_note,
        )
    )
