"""The launcher that a user names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from searchae.errors import UserError, nearest
from searchae.files import ArtifactPath, files_here
from searchae.launch.base import Launcher
from searchae.launch.local import LocalLauncher
from searchae.launch.ray import RayLauncher
from searchae.launch.slurm import SlurmLauncher
from searchae.launch.ssh import SshLauncher, SshSettings
from searchae.launch.ssh_hosts import HostState, parse_hosts
from searchae.storage import is_managed

LAUNCHERS = ("local", "ssh", "ray", "slurm")


@dataclass(frozen=True)
class SshOptions:
    """What a user asks of the ssh launcher; the names are those of the options.

    Attributes:
        hosts: The hosts, see ``parse_hosts``; empty for none.
        tunnel: See ``SshSettings``.
        install: See ``SshSettings``.
        skip_unfit: See ``SshSettings``.
    """

    hosts: str = ""
    tunnel: bool = False
    install: bool = False
    skip_unfit: bool = False

    def settings(
        self,
        launcher: str,
        *,
        storage: URL,
        data_dir: Path,
        artifacts: ArtifactPath,
        workers_per_gpu: int,
        report: Callable[[Sequence[HostState]], None],
        note: Callable[[str], None],
    ) -> SshSettings | None:
        """Returns the settings of the ssh launcher; None for another one.

        Args:
            launcher: The launcher that the user names.
            storage: See ``SshSettings``, as for those that follow.
            data_dir: The data folder on this machine.
            artifacts: The artifact folder.
            workers_per_gpu: Workers that share a GPU.
            report: Shows the hosts after the check.
            note: Shows a line.

        Raises:
            UserError: No host is named, or one of the options is given for another launcher.
        """
        if launcher != "ssh":
            given = {
                f"--hosts {self.hosts}": self.hosts,
                "--tunnel": self.tunnel,
                "--install": self.install,
                "--skip-unfit": self.skip_unfit,
            }
            for option in (option for option, value in given.items() if value):
                raise UserError(f"{option}: only with --launcher ssh")
            return None
        if not self.hosts:
            raise UserError("--launcher ssh: say where: --hosts gpu1,gpu2:2, or --hosts FILE")
        return SshSettings(
            hosts=parse_hosts(self.hosts),
            storage=storage,
            data_dir=data_dir,
            artifacts=artifacts,
            workers_per_gpu=workers_per_gpu,
            tunnel=self.tunnel or is_managed(storage),
            install=self.install,
            skip_unfit=self.skip_unfit,
            report=report,
            note=note,
        )


def choose_launcher(
    name: str,
    *,
    artifacts: ArtifactPath,
    label: str,
    ray_address: str,
    slurm: Sequence[str],
    ssh: SshSettings | None = None,
) -> Launcher:
    """Returns the launcher of a name.

    Args:
        name: ``local``, ``ssh``, ``ray`` or ``slurm``.
        artifacts: The folder that all workers share.
        label: What a cluster calls the jobs.
        ray_address: For Ray: its address.
        slurm: For Slurm: sbatch options, each ``KEY=VALUE``.
        ssh: For ssh: its settings.

    Raises:
        UserError: There is no such launcher, or the options belong to another one.
    """
    if slurm and name != "slurm":
        raise UserError(f"--slurm {slurm[0]}: only with --launcher slurm")
    if name == "local":
        return LocalLauncher()
    if name == "ray":
        return RayLauncher(ray_address)
    if name == "slurm":
        options = dict(part.partition("=")[::2] for part in slurm)
        return SlurmLauncher(files_here(artifacts).resolve() / "slurm", options, label=label)
    if name == "ssh" and ssh is not None:
        return SshLauncher(ssh)
    raise UserError(f"--launcher {name!r}: not known. {nearest(name, LAUNCHERS)}")
