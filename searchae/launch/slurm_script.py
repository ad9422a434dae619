"""The files that an array of workers is submitted with: a batch script and an environment.

The script holds no secret: any user of the cluster may be shown it (``scontrol show job``,
accounting). The database URL with its password stands in a file of mode 0600 beside it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchae.errors import UserError
from searchae.launch.base import Job

WARNING_S = 60
"""How long before its time limit, in seconds, a worker is told to put its trial back."""

OURS = {
    "array": "--workers says how many",
    "cpus-per-task": "--threads says how many",
    **dict.fromkeys(
        (
            *("chdir", "clusters", "error", "export", "export-file", "get-user-env", "input"),
            *("job-name", "no-requeue", "nodes", "ntasks", "open-mode", "output", "parsable"),
            *("requeue", "signal", "test-only", "wait", "wrap"),
        ),
        "searchae sets it itself",
    ),
}
"""Options that cannot be given, and why."""

GPU_OPTIONS = {"gpus", "gpus-per-node", "gpus-per-task", "gres"}
"""Given by the user, one of these replaces ours: many clusters want the GPU's type named."""


def check_options(options: Mapping[str, str]) -> None:
    """Refuses options of sbatch that a script cannot have.

    Args:
        options: By long name, without dashes; an empty value for a flag.

    Raises:
        UserError: An option is one that searchae sets, or cannot stand in a script.
    """
    for key, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]+", key):
            raise UserError(
                f"--slurm {key}={value}: {key!r} is no long option of sbatch; "
                "for example --slurm partition=gpu"
            )
        if key in OURS:
            raise UserError(f"--slurm {key}={value}: {OURS[key]}")
        if not re.fullmatch(r"[^\x00-\x1f\x7f'\"\\#]*", value):
            raise UserError(
                f"--slurm {key}={value!r}: quotes, backslashes, # and control characters "
                "cannot stand in a batch script"
            )


def overriding(options: Mapping[str, str]) -> set[str]:
    """Variables by which a site's or a user's defaults would overrule the script's lines."""
    keys = {*OURS, *options, *(GPU_OPTIONS if GPU_OPTIONS & set(options) else ())}
    other_names = {"array": "array-inx", "time": "timelimit"}
    return {f"SBATCH_{other_names.get(k, k).upper().replace('-', '_')}" for k in keys}


@dataclass(frozen=True)
class Files:
    """Where the files of one array are.

    Attributes:
        folder: On the file system that the nodes share.
        name: The array's name in the queue, unique in the folder.
    """

    folder: Path
    name: str

    @property
    def script(self) -> Path:
        """What is submitted."""
        return self.folder / f"{self.name}.sh"

    @property
    def environment(self) -> Path:
        """The workers' variables, secrets among them."""
        return self.folder / f"{self.name}.env"

    def exit(self, index: int | str) -> Path:
        """Holds a task's exit code once its worker has left."""
        return self.folder / "exits" / f"{self.name}-{index}"

    def slurm_log(self, index: int | str) -> Path:
        """What Slurm itself says about a task: cancelled, out of memory, time limit."""
        return self.folder / f"{self.name}-{index}.slurm"


def environment(jobs: Sequence[Job]) -> str:
    """The text of the environment file: each task's variables."""
    lines = ['case "$SLURM_ARRAY_TASK_ID" in']
    for index, job in enumerate(jobs):
        lines.append(f"{index})")
        lines += [f"export {k}={shlex.quote(v)}" for k, v in sorted(job.environment.items())]
        lines.append(";;")
    return "\n".join([*lines, "esac", ""])


def script(jobs: Sequence[Job], files: Files, options: Mapping[str, str]) -> str:
    """The text of the batch script of an array, one task a job.

    A task's bash stays, since it alone can record how the worker left; accounting, which also
    knows, is absent from many clusters. SIGTERM from Slurm (cancelled, preempted, requeued, time
    limit) reaches every process of a task, so bash must not pass it on: the second one would end a
    worker that is putting its trial back. The warning before the time limit reaches the first bash
    alone; it is another signal and is passed on to all. A second bash has the worker in its
    foreground: of a "wait" that a signal ended, bash does not always get the code afterwards.
    """
    directives = "\n".join(f"#SBATCH {option}" for option in _directives(jobs, files, options))
    tasks = "\n".join(
        f"{index}) log={shlex.quote(str(job.log))}; command=({shlex.join(job.argv)}) ;;"
        for index, job in enumerate(jobs)
    )
    ended = shlex.quote(str(files.exit("")))
    return f"""#!/bin/bash
{directives}

told=
trap 'told=1' TERM
trap 'kill -TERM 0' USR1
ended={ended}"$SLURM_ARRAY_TASK_ID"
rm -f "$ended"
. {shlex.quote(str(files.environment))} || exit
case "$SLURM_ARRAY_TASK_ID" in
{tasks}
esac

run() {{
  trap : TERM USR1
  "${{command[@]}}" >>"$log" 2>&1 </dev/null
  echo "$?" >"$ended"
}}
[ -z "$told" ] || exit 130
run &
while kill -0 "$!" 2>/dev/null; do wait "$!"; done
exit "$(cat "$ended")"
"""


def _directives(jobs: Sequence[Job], files: Files, options: Mapping[str, str]) -> list[str]:
    shape = jobs[0]
    ours = {
        "job-name": files.name,
        "array": f"0-{len(jobs) - 1}",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(shape.cpus),
        "requeue": "",
        "open-mode": "append",
        "signal": f"B:USR1@{WARNING_S}",
        # As sbatch does for any script: modules and environments that are loaded stay loaded.
        # Variables that a job sets, secrets among them, are taken out first.
        "export": "ALL",
        "output": str(files.slurm_log("\0")).replace("%", "%%").replace("\0", "%a"),
    }
    if shape.gpus > 0 and not GPU_OPTIONS & set(options):
        ours["gres"] = f"gpu:{math.ceil(shape.gpus)}"
    return [
        shlex.quote(f"--{key}={value}" if value else f"--{key}")
        for key, value in {**ours, **options}.items()
    ]
