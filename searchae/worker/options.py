"""What a worker is started with, and what it reports when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchae.files import ArtifactPath


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with; everything else it reads from the study.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads to train with.
        precision: ``auto``, ``fp32`` or ``bf16``, for trials that start on this worker.
        data_dir: The folder of the data sets.
        artifacts: The folder that all workers of all studies share.
        is_local: Whether it was started by a process of this machine, so that it may look for
            trials more often.
        shares: What to do when other workers on the same GPU leave too little memory: ``leave``
            for good, or ``stay`` and try again later. Empty if the GPU is not shared.
        wanted: The folder in which to ask for checkpoints that lie on another machine; None where
            all share the artifact folder.
    """

    device: str = "auto"
    threads: int = 1
    precision: str = "auto"
    data_dir: Path = Path("data")
    artifacts: ArtifactPath = Path("artifacts")
    is_local: bool = False
    shares: str = ""
    wanted: Path | None = None


@dataclass
class WorkerResults:
    """How many trials one worker ended, by how they ended.

    Attributes:
        complete: Trained to the end.
        pruned: Stopped by the pruner.
        paused: How often a trial was paused by the pruner.
        diverged: Diverged, or died in a flat layer.
        out_of_memory: Too large for the device.
        put_back: Left to another worker.
        taken_away: Taken over by another worker while this one was thought dead.
    """

    complete: int = 0
    pruned: int = 0
    paused: int = 0
    diverged: int = 0
    out_of_memory: int = 0
    put_back: int = 0
    taken_away: int = 0
