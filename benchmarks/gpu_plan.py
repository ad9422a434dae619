"""What ``benchmarks.gpu`` measures: its parts, their cases, and the processes that run them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed_base import ROOT

LIMITS_S = {
    "tests": 240,
    "limits": 40,
    "steps": 240,
    "evaluation": 120,
    "workers": 300,
    "search": 480,
}
"""The parts, and the most seconds that each may take of one call."""

NETS = ("pool-conv", "conv-bn", "dense", "gap-conv", "same-size")
"""Studies whose first trial, as published, is trained."""
SEARCHED = ("svhn", "mnist")
"""Studies whose largest net is trained by several workers at once."""

SIDES: dict[str, Mapping[str, Any]] = {
    "DataLoader": {"loader_workers": 0},
    "DataLoader, 8 workers": {"loader_workers": 8},
    "eager fp32": {},
    "recorded fp32": {"recorded": True},
    "recorded fp32, cudnn.benchmark": {"recorded": True, "benchmark": True},
    "eager bf16": {"precision": "bf16"},
    "recorded bf16": {"precision": "bf16", "recorded": True},
    "recorded fp32, noise": {"recorded": True, "noise": True},
}
"""Ways to train a net; the last one only where a study has noise."""
NOISY = frozenset({"same-size"})

BATCHES = (250, 1000, 4000, 16_000, 26_032)
"""Images that are evaluated at a time; the last is the whole of SVHN's test split."""
WORKERS = (1, 2, 4, 8)
SEARCH_TRIALS, SEARCH_IMAGES = 200, 73_257


@dataclass(frozen=True)
class Job:
    """A process that measures some cases, one after the other.

    Attributes:
        part: The part that it belongs to.
        function: ``module:function`` of this package.
        cases: The cases' names.
        settings: Everything else that the function is told.
    """

    part: str
    function: str
    cases: tuple[str, ...]
    settings: Mapping[str, Any]


def jobs(part: str, *, done: Collection[str] = (), quick: bool = False) -> list[Job]:
    """Returns the processes of a part that are still to be run.

    Args:
        part: One of ``LIMITS_S``.
        done: Cases that need not be measured again.
        quick: Whether to use small sizes, whose figures mean nothing.
    """
    left = (
        replace(job, cases=tuple(case for case in job.cases if case not in done))
        for job in _jobs(part, quick=quick)
    )
    return [job for job in left if job.cases]


def _jobs(part: str, *, quick: bool) -> list[Job]:
    seconds = 0.2 if quick else 2.0
    if part == "tests":
        return [Job(part, "gpu_search:tests", (name,), {}) for name in _test_files()]
    if part == "limits":
        kinds = ("fp32",) if quick else ("fp32", "tf32", "bf16")
        cases = ("copy", *(f"matmul {kind}" for kind in kinds))
        return [Job(part, "gpu_steps:limits", cases, {"seconds": seconds})]
    if part == "steps":
        sizes = {"seconds": seconds, "images": 140 if quick else 12_800, "quick": quick}
        return [job for net in NETS for job in _step_jobs(net, sizes)]
    if part == "evaluation":
        batches = BATCHES[:2] if quick else BATCHES
        sizes = {"seconds": seconds, "images": 300 if quick else BATCHES[-1]}
        return [
            Job(part, "gpu_steps:evaluation", tuple(f"{n}/{b}" for b in batches), sizes)
            for n in NETS
        ]
    if part == "workers":
        counts = WORKERS[:2] if quick else WORKERS
        return [
            Job(
                part,
                "gpu_workers:workers",
                tuple(f"{name}/{how}/{count}" for count in counts),
                {"seconds": seconds, "images": 500 if quick else SEARCH_IMAGES},
            )
            for name in SEARCHED
            for how in ("alone", "MPS")
        ]
    trials, images = (2, 500) if quick else (SEARCH_TRIALS, SEARCH_IMAGES)
    return [
        Job(
            part,
            "gpu_search:search",
            ("svhn",),
            {"trials": trials, "images": images, "quick": quick},
        )
    ]


def _test_files() -> list[str]:
    """Returns the files with tests that need a GPU, below ``tests``; the short ones come first."""
    folder = ROOT / "tests"
    found = [p for p in folder.rglob("test_*.py") if "mark.gpu" in p.read_text()]
    return sorted((str(p.relative_to(folder)) for p in found), reverse=True)


def _step_jobs(net: str, sizes: Mapping[str, Any]) -> list[Job]:
    """The user's loop has a process without searchae's settings of memory."""
    names = [n for n in SIDES if net in NOISY or "noise" not in SIDES[n]]
    loops = tuple(f"{net}/{n}" for n in names if "loader_workers" in SIDES[n])
    own = tuple(f"{net}/{n}" for n in names if "loader_workers" not in SIDES[n])
    return [
        Job("steps", "gpu_steps:loops", loops, sizes),
        Job("steps", "gpu_steps:steps", own, sizes),
    ]
