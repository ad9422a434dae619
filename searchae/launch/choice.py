"""The launcher that a user names."""

from __future__ import annotations

from collections.abc import Sequence

from searchae.errors import UserError, nearest
from searchae.files import ArtifactPath, files_here
from searchae.launch.base import Launcher
from searchae.launch.local import LocalLauncher
from searchae.launch.ray import RayLauncher
from searchae.launch.slurm import SlurmLauncher
from searchae.launch.ssh import SshLauncher, SshSettings

LAUNCHERS = ("local", "ssh", "ray", "slurm")


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
