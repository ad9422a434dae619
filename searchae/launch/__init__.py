"""Where workers run. A launcher gets an argv and an environment, never a pickled function."""

from searchae.launch.base import Exit, Job, Launcher, Resources
from searchae.launch.local import LocalLauncher

__all__ = ["Exit", "Job", "Launcher", "LocalLauncher", "Resources"]
