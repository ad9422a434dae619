"""The launcher that a user names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL

from searchae.errors import UserError, nearest
from searchae.launch.base import Launcher
from searchae.launch.local import LocalLauncher
from searchae.launch.ray import RayLauncher
from searchae.launch.slurm import SlurmLauncher
from searchae.launch.ssh import SshLauncher, SshSettings
from searchae.launch.ssh_hosts import HostState, parse_hosts
from searchae.storage import is_managed

LAUNCHERS = ("local", "ssh", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class SshOptions:
    """What the ssh launcher is told, and what its workers need.

    Attributes:
        hosts: Names of hosts, separated by commas, or a file of them.
        tunnel: Whether hosts that cannot reach the database get a tunnel.
        install: Whether to install searchae where it is missing.
        skip_unfit: Whether to go on without hosts that do not fit.
        storage: The database.
        data_dir: The data folder.
        workers_per_gpu: Workers that share a GPU.
        report: Shows the hosts after their check.
        note: Shows a line.
    """

    hosts: str
    tunnel: bool
    install: bool
    skip_unfit: bool
    storage: URL
    data_dir: Path
    workers_per_gpu: int = 1
    report: Callable[[Sequence[HostState]], None] = field(default=lambda _: None, repr=False)
    note: Callable[[str], None] = field(default=lambda _: None, repr=False)

    def check_unused(self) -> None:
        """Checks that nothing is given that only the ssh launcher takes.

        Raises:
            UserError: Something is.
        """
        given = {
            f"--hosts {self.hosts}": self.hosts,
            "--tunnel": self.tunnel,
            "--install": self.install,
            "--skip-unfit": self.skip_unfit,
        }
        for option in (option for option, value in given.items() if value):
            raise UserError(f"{option}: only with --launcher ssh")

    def launcher(self, artifacts: Path) -> SshLauncher:
        """Returns the launcher.

        Raises:
            UserError: No hosts are given, or a host does not fit.
        """
        if not self.hosts:
            raise UserError("--launcher ssh: say where: --hosts gpu1,gpu2:2, or --hosts FILE")
        return SshLauncher(
            SshSettings(
                hosts=parse_hosts(self.hosts),
                storage=self.storage,
                data_dir=self.data_dir,
                artifacts=artifacts,
                workers_per_gpu=self.workers_per_gpu,
                tunnel=self.tunnel or is_managed(self.storage),
                install=self.install,
                skip_unfit=self.skip_unfit,
                report=self.report,
                note=self.note,
            )
        )


def choose_launcher(
    name: str,
    *,
    artifacts: Path,
    label: str,
    ray_address: str,
    slurm: Sequence[str],
    ssh: SshOptions | None = None,
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
    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if ssh is not None and name != "ssh":
        ssh.check_unused()
    if name == "local":
        return LocalLauncher()
    if name == "ray":
        return RayLauncher(ray_address)
    if name == "slurm":
        options = dict(part.partition("=")[::2] for part in slurm)
        return SlurmLauncher(artifacts.resolve() / "slurm", options, label=label)
    if name == "ssh" and ssh is not None:
        return ssh.launcher(artifacts)
    raise UserError(f"--launcher {name!r}: not known. {nearest(name, LAUNCHERS)}")
