"""What a job array is submitted with: the text of its batch script and of its environment file.

The script holds no secret, because Slurm may show it to every user of the cluster (``scontrol show
job``, accounting). The database URL with its password is in the environment file, of mode 0600.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from searchae.errors import UserError
from searchae.launch.base import Job
from searchae.launch.slurm_files import Files

_LOGGED = (sys.executable, "-m", "searchae.launch.logged")

WARNING_S = 60
"""Seconds before its time limit at which a worker is told to put its trial back."""

RESERVED_OPTIONS = {
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
"""Options of sbatch that ``--slurm`` cannot set, and why."""

GPU_OPTIONS = {"gpus", "gpus-per-node", "gpus-per-task", "gres"}
"""Each replaces the default ``--gres=gpu:N``: many clusters require the type of GPU."""


def check_options(options: Mapping[str, str]) -> None:
    """Refuses options that the batch script cannot contain.

    Args:
        options: Values by long name without dashes; empty for a flag.

    Raises:
        UserError: An option is reserved or malformed.
    """
    for key, value in options.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]+", key):
            raise UserError(
                f"--slurm {key}={value}: {key!r} is no long option of sbatch; "
                "for example --slurm partition=gpu"
            )
        if key in RESERVED_OPTIONS:
            raise UserError(f"--slurm {key}={value}: {RESERVED_OPTIONS[key]}")
        if not re.fullmatch(r"[^\x00-\x1f\x7f'\"\\#]*", value):
            raise UserError(
                f"--slurm {key}={value!r}: quotes, backslashes, # and control characters "
                "cannot stand in a batch script"
            )


def check_folder(folder: Path) -> None:
    """Refuses a folder that ``--output`` cannot name.

    Slurm takes spaces, quotes, ``#`` and, doubled, ``%``. It removes backslashes, and reads each
    line of the script by itself.

    Raises:
        UserError: The path holds a backslash or a control character.
    """
    if re.search(r"[\x00-\x1f\x7f\\]", str(folder)):
        raise UserError(
            f"--launcher slurm: {str(folder)!r}: Slurm cannot write to a path with a backslash or "
            "a control character; give another --artifacts folder"
        )


def overriding_variables(options: Mapping[str, str]) -> set[str]:
    """Returns the environment variables of sbatch that would override lines of the script.

    Sites and users set them as defaults.

    Args:
        options: As for ``check_options``.
    """
    keys = {*RESERVED_OPTIONS, *options, *(GPU_OPTIONS if GPU_OPTIONS & set(options) else ())}
    other_names = {"array": "array-inx", "time": "timelimit"}
    return {f"SBATCH_{other_names.get(k, k).upper().replace('-', '_')}" for k in keys}


def environment(jobs: Sequence[Job]) -> str:
    """Returns the text of the environment file, which exports each task's variables."""
    lines = ['case "$SLURM_ARRAY_TASK_ID" in']
    for index, job in enumerate(jobs):
        lines.append(f"{index})")
        lines += [f"export {k}={shlex.quote(v)}" for k, v in sorted(job.environment.items())]
        lines.append(";;")
    return "\n".join([*lines, "esac", ""])


def script(jobs: Sequence[Job], files: Files, options: Mapping[str, str]) -> str:
    """Returns the text of the batch script of a job array.

    Bash keeps running beside the worker to record its exit code; accounting, which also has it, is
    missing on many clusters. Slurm's SIGTERM (cancelled, preempted, requeued, time limit) reaches
    every process of a task. Bash must not forward it, since a second SIGTERM ends a worker that is
    putting its trial back. The warning before the time limit, USR1, reaches only the first bash,
    which sends SIGTERM to all. A second bash runs the worker in its foreground, because after a
    ``wait`` that was interrupted by a signal, bash cannot always get the exit code.

    Others may be able to replace the folders of the files in between: the environment is read only
    if it is the user's own, an exit code is written only into a new file, and the log is opened by
    ``launch.logged``, which follows no link.

    Args:
        jobs: One per task, all with the same number of cores and GPUs.
        files: The array's files.
        options: Further options of sbatch, as for ``check_options``.
    """
    directives = "\n".join(f"#SBATCH {option}" for option in _directives(jobs, files, options))
    tasks = "\n".join(
        f"{index}) command=({shlex.join((*_LOGGED, str(job.log), *job.argv))}) ;;"
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
environment={shlex.quote(str(files.environment))}
[ -f "$environment" ] && exec 3<"$environment" && [ -O /dev/fd/3 ] && . /dev/fd/3 || exit
exec 3<&-
case "$SLURM_ARRAY_TASK_ID" in
{tasks}
esac

run() {{
  trap : TERM USR1
  "${{command[@]}}" </dev/null
  (code=$?; set -C; echo "$code" >"$ended")
}}
[ -z "$told" ] || exit 130
run &
while kill -0 "$!" 2>/dev/null; do wait "$!"; done
exit "$(cat "$ended")"
"""


def _directives(jobs: Sequence[Job], files: Files, options: Mapping[str, str]) -> list[str]:
    first = jobs[0]
    defaults = {
        "job-name": files.name,
        "array": f"0-{len(jobs) - 1}",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(first.cpus),
        "requeue": "",
        "open-mode": "append",
        "signal": f"B:USR1@{WARNING_S}",
        # sbatch's own default, which keeps loaded modules and virtual environments. The variables
        # that a job sets, secrets among them, are removed before submission.
        "export": "ALL",
        "output": str(files.slurm_log("\0")).replace("%", "%%").replace("\0", "%a"),
    }
    if first.gpus > 0 and not GPU_OPTIONS & set(options):
        defaults["gres"] = f"gpu:{math.ceil(first.gpus)}"
    return [
        shlex.quote(f"--{key}={value}" if value else f"--{key}")
        for key, value in {**defaults, **options}.items()
    ]
