"""Starts workers on this machine, on hosts reached by ssh, on Slurm or on Ray.

A worker is a command with an environment, never a pickled function.
"""

from searchae.launch.base import CarriesFiles, Exit, Job, Launcher, Resources
from searchae.launch.choice import SshOptions, choose_launcher
from searchae.launch.fleet_plan import Fleet, available_cores
from searchae.launch.given_place import GivenPlace, check_counts, default_threads, setting
from searchae.launch.given_study import GivenStudy, override_texts
from searchae.launch.images import provide_images
from searchae.launch.local import LocalLauncher
from searchae.launch.logs import last_lines
from searchae.launch.malloc import HUGE_PAGES_ENVIRONMENT, configure_malloc
from searchae.launch.prestart import wait_until_wanted
from searchae.launch.ray import RayLauncher
from searchae.launch.request import (
    FleetRequest,
    Request,
    prestarted_workers,
    sized_fleet,
    study_jobs,
)
from searchae.launch.slurm import SlurmLauncher
from searchae.launch.ssh import SshLauncher
from searchae.launch.ssh_hosts import HostState, host_text
from searchae.launch.supervisor import Supervisor

__all__ = [
    "HUGE_PAGES_ENVIRONMENT",
    "CarriesFiles",
    "Exit",
    "Fleet",
    "FleetRequest",
    "GivenPlace",
    "GivenStudy",
    "HostState",
    "Job",
    "Launcher",
    "LocalLauncher",
    "RayLauncher",
    "Request",
    "Resources",
    "SlurmLauncher",
    "SshLauncher",
    "SshOptions",
    "Supervisor",
    "available_cores",
    "check_counts",
    "choose_launcher",
    "configure_malloc",
    "default_threads",
    "host_text",
    "last_lines",
    "override_texts",
    "prestarted_workers",
    "provide_images",
    "setting",
    "sized_fleet",
    "study_jobs",
    "wait_until_wanted",
]
