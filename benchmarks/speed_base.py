"""What the parts of ``benchmarks.speed`` share: images, processes of their own, tables.

    python -m benchmarks.speed_base MODULE:FUNCTION JSON

is such a process: the function gets the JSON's settings and warms up; what it returns is called
once all processes of the measurement are ready, and gives the figures. Nothing heavy is imported
here, so that a process holds no more than what it measures.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from searchae.launch import malloc

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
Job = tuple[str, Mapping[str, Any]]
"""``module:function`` of this package, and its settings."""


@dataclass(frozen=True)
class Options:
    """What the program was asked for.

    Attributes:
        data_dir: ``MNIST/raw`` and ``cifar10_10k.npz`` lie there, or not.
        work: Gets images, studies and logs.
        rounds: Each side is measured so often; the tables show medians.
        device: ``cpu`` or ``cuda``.
        quick: Small sizes, to see whether all of it runs.
        epochs: The most of a trial in ``search``.
        without: Sides that ``search`` leaves out.
    """

    data_dir: Path
    work: Path
    rounds: int
    device: str
    quick: bool
    epochs: int = 6
    without: Sequence[str] = ()

    def size(self, full: T, quick: T) -> T:
        """One of the two sizes."""
        return quick if self.quick else full


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# -- images


def images(options: Options, source: str, count: int) -> tuple[Path, str]:
    """Puts images into the work folder, once.

    Args:
        options: Where they come from, and go.
        source: ``cifar10`` or ``mnist``, replaced by drawn house numbers where they are missing;
            or ``house-numbers``.
        count: How many; fewer where there are fewer.

    Returns:
        An ``.npy`` file, uint8 (N, H, W, C), and what is in it, in words.
    """
    files = {"cifar10": "cifar10_10k.npz", "mnist": "MNIST/raw/train-images-idx3-ubyte*"}
    found = sorted(options.data_dir.glob(files[source])) if source in files else []
    name = source if found or source not in files else f"house-numbers-for-{source}"
    path = options.work / "images" / f"{name}-{count}.npy"
    if not path.exists():
        import numpy as np

        pixels = _read(source, found[0]) if found else _drawn(source, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ascontiguousarray(pixels[:count]))
    grey = ", grey, cut to 28x28" if source == "mnist" else ""
    return path, source if found else f"drawn house numbers{grey}"


def _read(source: str, path: Path) -> Any:
    import numpy as np

    if source == "cifar10":
        return np.load(path)["x_train"]
    content = path.read_bytes()
    plain = gzip.decompress(content) if path.suffix == ".gz" else content
    return np.frombuffer(plain, np.uint8, offset=16).reshape(-1, 28, 28, 1)


def _drawn(source: str, count: int) -> Any:
    from searchae.data import house_numbers

    pixels = house_numbers.generate("train", count, seed=0).transpose(0, 2, 3, 1)
    if source != "mnist":
        return pixels
    return pixels[:, 2:30, 2:30].mean(axis=3, keepdims=True).astype("uint8")


# -- processes


def environment(threads: int | None) -> dict[str, str]:
    """For a process with so many threads; with torch's own number where None."""
    rest = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**rest, **limit, "PYTHONPATH": os.pathsep.join(folders)}


def together(jobs: Sequence[Job], *, threads: int | None) -> list[dict[str, Any]]:
    """Runs jobs at the same time, each in a process of its own, from when all are ready.

    Returns:
        The figures of each, with ``peak_mib``: the most memory that its process has held.

    Raises:
        SystemExit: One has failed; it has said why.
    """
    running = [_start(job, threads) for job in jobs]
    try:
        for process in running:
            _line(process)
        for process in running:
            print("go", file=process.stdin, flush=True)
        return [json.loads(_line(process)) for process in running]
    except BaseException:
        for process in running:
            process.kill()
        raise
    finally:
        for process in running:
            process.communicate()


def _start(job: Job, threads: int | None) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "benchmarks.speed_base", job[0], json.dumps(job[1])]
    return subprocess.Popen(
        words,
        env={**environment(threads), **(malloc.HUGE_PAGES_ENVIRONMENT if _is_ours(job[0]) else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(map(str, process.args))} has failed")  # type: ignore[arg-type]
    return line


def _is_ours(function: str) -> bool:
    """Whether a process is to be like a search's worker, its memory settings included."""
    return ":searchae" in function


def _child() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    if _is_ours(sys.argv[1]):
        malloc.configure_malloc()
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    measure = function(json.loads(sys.argv[2]))
    print("ready", file=out, flush=True)
    sys.stdin.readline()
    print(json.dumps({**measure(), "peak_mib": _peak_mib()}), file=out, flush=True)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    (line,) = (s for s in status.splitlines() if s.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# -- rounds and tables


def interleaved(
    options: Options, sides: Mapping[str, Callable[[int], T]], *, what: str
) -> dict[str, list[T]]:
    """Calls every side once a round, with the round's number, in turns forwards and backwards."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            say(f"{what}, round {number + 1} of {options.rounds}: {name}")
            found[name].append(sides[name](number))
    return found


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the least and the most where there are several."""
    texts = [f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values))]
    return texts[0] if len(values) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round, so that what slows a whole round down cancels out."""
    return [v / b for v, b in zip(values, base, strict=True)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as Markdown."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    _child()
