"""A job of ``benchmarks.gpu``: several workers on one GPU, each with its own context or by MPS.

MPS (Multi-Process Service) lets kernels of several processes run at the same time; without it a GPU
gives each process its turn. https://docs.nvidia.com/deploy/mps/
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_child import Emit, Settings, attempt
from benchmarks.gpu_steps import SHAPES
from searchae.config import find_study_file, load_study_file
from searchae.tuning.model_checks import build_networks, largest_trial
from searchae.tuning.workers_per_gpu_process import (
    ProbeProcess,
    ProbeTask,
    combined_rate,
    start_processes,
)

CONTROL = "nvidia-cuda-mps-control"
ANSWER_S = 30.0


def workers(settings: Settings, emit: Emit) -> None:
    """Emits the images a second of 1, 2, 4 and 8 processes that train a study's largest net.

    They are the processes with which ``tune --workers-per-device auto`` measures.
    """
    name, how, _ = settings["cases"][0].split("/")
    with ExitStack() as stack:
        if how == "MPS" and not shutil.which(CONTROL):
            for case in settings["cases"]:
                emit(case, {"figures": {"note": f"no {CONTROL}"}})
            return
        servers: Callable[[], int | None] = lambda: None  # noqa: E731
        if how == "MPS":
            servers = stack.enter_context(mps())
        task = _task(name, settings)
        processes: list[ProbeProcess] = []

        def measure(count: int) -> dict[str, Any]:
            processes.extend(start_processes(count - len(processes), task, stack))
            memory = processes[-1].memory
            return {
                "images_per_s": combined_rate(processes, settings["seconds"]),
                "mib": memory and memory.reserved / 2**20,
                "mps_servers": servers(),
            }

        for case in settings["cases"]:
            attempt(emit, case, partial(measure, int(case.rpartition("/")[2])))


def _task(name: str, settings: Settings) -> ProbeTask:
    spec = load_study_file(find_study_file(name), environment={})
    shape = SHAPES[spec.data.name]
    params = largest_trial(spec, build_networks(spec, shape))
    return ProbeTask(params, shape, settings["device"], "fp32", settings["images"])


@contextmanager
def mps() -> Iterator[Callable[[], int | None]]:
    """Within the block, processes that begin to use the GPU do so through MPS.

    Yields:
        A function that returns the number of MPS servers: 0 if no process has found MPS.
    """
    folder = Path(tempfile.mkdtemp(prefix="mps"))  # a short path, since it holds a socket
    for name in ("PIPE", "LOG"):
        (folder / name).mkdir()
        os.environ[f"CUDA_MPS_{name}_DIRECTORY"] = str(folder / name)
    try:
        subprocess.run(
            [CONTROL, "-d"],
            check=True,
            timeout=ANSWER_S,
            start_new_session=True,
            stdout=subprocess.DEVNULL,  # no pipe that it would hold open
            stderr=subprocess.DEVNULL,
        )
        yield lambda: len(_told("get_server_list").split())
    finally:
        _told("quit")
        for name in ("PIPE", "LOG"):
            del os.environ[f"CUDA_MPS_{name}_DIRECTORY"]
        shutil.rmtree(folder, ignore_errors=True)


def _told(command: str) -> str:
    """Sends a command to the MPS daemon; returns its answer."""
    return subprocess.run(
        [CONTROL],
        input=f"{command}\n",
        text=True,
        capture_output=True,
        timeout=ANSWER_S,
        check=False,
    ).stdout
