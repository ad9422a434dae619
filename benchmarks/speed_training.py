"""Parts of ``benchmarks.speed`` about trainings: their speed, quality, limits and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.speed_base import (
    Options,
    cores,
    images,
    interleaved,
    ratios,
    say,
    spread,
    table,
    together,
)
from benchmarks.speed_worker import prepared

USER = "the user's loop"
RESIDENT = "the user's loop, images resident"
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    USER: ("speed_sides:user", {}),
    RESIDENT: ("speed_sides:user", {"resident": True}),
    "searchae": ("speed_sides:searchae", {}),
}
MARGIN_DB = 0.3
Figures = list[dict[str, Any]]

# -- images a second


@dataclass(frozen=True)
class Case:
    """What a side is measured on.

    Attributes:
        pixels: An ``.npy`` file of images.
        processes: How many at once.
        threads: Of each; None for what torch takes by itself.
        net: Of ``speed_user.NETS``.
    """

    pixels: Path
    processes: int = 1
    threads: int | None = 1
    net: str = "pool-conv"


def _measured(options: Options, side: str, case: Case) -> Callable[[int], Figures]:
    """A side for ``interleaved``: the figures of each of its processes."""
    job, special = SIDES[side]
    settings = {
        "net": case.net,
        "images": str(case.pixels),
        "device": options.device,
        "seconds": options.size(5.0, 0.2),
        **special,
    }
    return lambda _: together([(job, settings)] * case.processes, threads=case.threads)


def _sums(runs: list[Figures], key: str = "images_per_s") -> list[float]:
    """Each round's sum over its processes."""
    return [sum(one[key] for one in run) for run in runs]


def training(options: Options) -> str:
    """The part ``training``."""
    nets = {"pool-conv": ("cifar10", 2000), "conv": ("mnist", 10_000), "dense": ("mnist", 20_000)}
    blocks = []
    for net, (source, count) in nets.items():
        pixels, name = images(options, source, options.size(count, 336))
        rows = []
        base: list[float] = []
        for setup, processes in (
            (f"1 process, {cores()} threads", 1),
            ("2 processes, 1 thread", 2),
        ):
            sides = {}
            for n in SIDES:
                # A user leaves the threads to torch; a worker is told its own.
                alone = cores() if n == "searchae" else None
                case = Case(pixels, processes, alone if processes == 1 else 1, net)
                sides[n] = _measured(options, n, case)
            found = interleaved(options, sides, what=f"{net}, {setup}")
            _check_same_net(found)
            own = _sums(found[USER])
            base = base or own
            rows += [
                {
                    "set-up": setup,
                    "side": n,
                    "images/s": spread(_sums(runs)),
                    "times the user's": spread(ratios(_sums(runs), own), 2),
                    "times the user's in 1 process": f"{median(ratios(_sums(runs), base)):.2f}",
                }
                for n, runs in found.items()
            ]
        blocks.append(f"`{net}`, {len(np.load(pixels)):,} images of {name}:\n\n{table(rows)}")
    text = (
        "Images a second of a training (batches of 128, Adam at 1e-3, weights clipped to 0.5), "
        "summed over the processes; the first two steps are left out, nothing is validated. The "
        "user's loop: PIL images, ToTensor, a DataLoader without workers, float32, clamping "
        "parameter by parameter, `loss.item()` each step."
    )
    return "\n\n".join([text, *blocks])


def _check_same_net(found: Mapping[str, list[Figures]]) -> None:
    sizes = {name: runs[0][0]["parameters"] for name, runs in found.items()}
    if len(set(sizes.values())) > 1:
        raise SystemExit(f"these are not the same nets: parameters {sizes}")


def growth(options: Options) -> str:
    """The part ``growth``."""
    sides = [USER, "searchae"]
    pixels, source = images(options, "cifar10", options.size(2000, 384))
    few = options.size(10_000, 640)
    sources = [(pixels, source), images(options, "cifar10", few)]
    sources.append(images(options, "house-numbers", options.size(73_257, 1024)))

    blocks = []
    by_workers = {f"{n}": Case(pixels, n) for n in (1, 2, 4)}
    by_images = {f"{len(np.load(p)):,} of {name}": Case(p) for p, name in sources}
    for head, cases in (("processes", by_workers), ("images", by_images)):
        calls = {f"{c}|{n}": _measured(options, n, cases[c]) for c in cases for n in sides}
        found = interleaved(options, calls, what=f"growth, {head}")
        first = next(iter(cases))
        rows = []
        for case in cases:
            row = {head: case}
            for name in sides:
                own, least = (_sums(found[f"{c}|{name}"]) for c in (case, first))
                row[f"{name}, images/s"] = spread(own)
                row[f"{name}, times the first row"] = f"{median(ratios(own, least)):.2f}"
            rows.append(row)
        blocks.append(table(rows))
    text = (
        f"`pool-conv` as in `training`, one thread a process: over processes (images/s summed, "
        f"{cores()} cores), and over images in one process. With trials: see `overhead`."
    )
    return "\n\n".join([text, *blocks])


# -- quality


def quality(options: Options) -> str:
    """The part ``quality``; as many seeds as it says, whatever the rounds."""
    seeds, epochs = options.size(10, 3), options.size(6, 1)
    pixels, source = images(options, "cifar10", options.size(4400, 512))
    everything = np.load(pixels)
    held = options.size(400, 128)
    files = {"images": everything[held:], "validation": everything[:held]}
    settings: dict[str, Any] = {"net": "pool-conv", "device": options.device, "epochs": epochs}
    for name, part in files.items():
        settings[name] = str(options.work / "images" / f"quality-{name}.npy")
        np.save(settings[name], part)
    found: dict[str, list[float]] = {USER: [], "searchae": []}
    for seed in range(seeds):
        say(f"quality: seed {seed + 1} of {seeds}")
        jobs = [(f"speed_sides:{n}_quality", {**settings, "seed": seed}) for n in _QUALITY.values()]
        for name, one in zip(_QUALITY, together(jobs, threads=1), strict=True):
            found[name].append(one["psnr_db"])
    rows = [
        {
            "side": name,
            "mean, dB": f"{fmean(values):.2f}",
            "sd, dB": f"{stdev(values):.2f}",
            "each seed, dB": ", ".join(f"{v:.2f}" for v in sorted(values)),
        }
        for name, values in found.items()
    ]
    text = (
        f"Validation PSNR after {epochs} epochs of {len(files['images']):,} images of {source}, "
        f"{held} more to validate on, `pool-conv` as in `training`, {seeds} seeds a side. A seed "
        "gives each side another start and another order, so the sides are compared as two "
        "independent samples."
    )
    return f"{text}\n\n{table(rows)}\n\n{verdict(found['searchae'], found[USER])}"


_QUALITY = {USER: "user", "searchae": "searchae"}


def verdict(ours: list[float], theirs: list[float]) -> str:
    """The difference of two means by Welch's t, and whether it is within the margin (TOST)."""
    parts = [np.var(values, ddof=1) / len(values) for values in (ours, theirs)]
    error = float(np.sqrt(sum(parts)))
    if not error > 0:
        return "No statement: the PSNRs are not finite, or are all the same."
    freedom = error**4 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (ours, theirs), strict=True)
    )
    difference = fmean(ours) - fmean(theirs)
    half = float(stats.t.ppf(0.975, freedom)) * error
    above, below = (
        float(stats.t.sf((MARGIN_DB + s * difference) / error, freedom)) for s in (1, -1)
    )
    p = max(above, below)
    said = "shown" if p < 0.05 else "not shown"
    return (
        f"searchae minus the user's loop: {difference:+.2f} dB, 95% interval "
        f"{difference - half:+.2f} to {difference + half:+.2f} (Welch's t, {freedom:.1f} degrees "
        f"of freedom). Equivalence within {MARGIN_DB} dB is {said}: two one-sided Welch tests, the "
        f"larger p = {p:.3f} (below 0.05 shows it)."
    )


# -- limit, memory


def limit(options: Options) -> str:
    """The part ``limit``."""
    from torch.nn import ReLU

    from benchmarks.speed_sides import work_per_image
    from benchmarks.speed_user import NETS

    flop, moved = work_per_image(NETS["pool-conv"](ReLU), (3, 32, 32))
    pixels, _ = images(options, "cifar10", options.size(2000, 384))
    processes = 1 if options.device == "cuda" else cores()
    seconds = options.size(2.0, 0.2)

    def bare(job: str, **settings: str) -> Callable[[int], Figures]:
        about = {"device": options.device, "seconds": seconds, **settings}
        return lambda _: together([(f"speed_sides:{job}", about)] * processes, threads=1)

    kinds = _products(options)
    case = Case(pixels, processes)
    sides: dict[str, Callable[[int], Figures]] = {
        **{f"matmul {kind}": bare("matmul", kind=kind) for kind in kinds},
        "copy": bare("copy"),
        **{name: _measured(options, name, case) for name in (USER, "searchae")},
    }
    found = interleaved(options, sides, what="limit")
    keys = {name: "images_per_s" if name in SIDES else "rate" for name in found}
    rates = {name: _sums(runs, keys[name]) for name, runs in found.items()}
    rows = []
    for name in (USER, "searchae"):
        reached = [rate * flop / 1e12 for rate in rates[name]]
        row = {"side": name, "images/s": spread(rates[name]), "TFLOP/s": spread(reached, 3)}
        for kind in kinds:
            shares = [100 * r for r in ratios(reached, rates[f"matmul {kind}"])]
            row[f"of matmul in {kind}"] = spread(shares) + " %"
        gigabytes = [rate * moved / 1e9 for rate in rates[name]]
        row["of copy bandwidth"] = (
            spread([100 * r for r in ratios(gigabytes, rates["copy"])]) + " %"
        )
        rows.append(row)
    measured = [
        {"bare": name, "rate": spread(rates[name], digits) + unit}
        for name, digits, unit in [
            *((f"matmul {kind}", 3, " TFLOP/s") for kind in kinds),
            ("copy", 1, " GB/s"),
        ]
    ]
    text = (
        f"`pool-conv` takes {flop / 1e6:.1f} MFLOP an image forwards and backwards (torch's "
        f"counter), and {moved / 1e6:.2f} MB if each layer's output and its gradient were written "
        f"and read once in float32; weights are left out. {processes} processes of one thread, all "
        "rates summed."
    )
    return f"{text}\n\n{table(measured)}\n\n{table(rows)}"


def _products(options: Options) -> list[str]:
    """In which formats this machine has units for products of matrices."""
    if options.device == "cuda":
        return ["fp32", "tf32", "bf16"]
    flags = Path("/proc/cpuinfo").read_text().split()
    return ["fp32", *(["bf16"] if {"amx_bf16", "avx512_bf16"} & set(flags) else [])]


def memory(options: Options) -> str:
    """The part ``memory``."""
    counts = options.size([2000, 10_000], [384])

    def user(count: int) -> Callable[[int], float]:
        run = _measured(options, USER, Case(images(options, "cifar10", count)[0]))
        return lambda number: float(run(number)[0]["peak_mib"])

    def worker(count: int) -> Callable[[int], float]:
        def run(_: int) -> float:
            settings = prepared(options, count=count, trials=2, epochs=1)
            (found,) = together([("speed_worker:worker", settings)], threads=1)
            return float(found["peak_mib"])

        return run

    sides = {f"{n:,}|{USER}": user(n) for n in counts}
    sides |= {f"{n:,}|a worker of a search": worker(n) for n in counts}
    found = interleaved(options, sides, what="memory, images")
    rows = [
        {"images": name.partition("|")[0], "process": name.partition("|")[2], "MiB": spread(values)}
        for name, values in sorted(found.items(), key=lambda item: len(item[0].partition("|")[0]))
    ]
    text = (
        "The most memory that a process has held (VmHWM), on the CPU's side: the user's loop with "
        "torch and torchvision; a worker with all of searchae, Optuna and SQLAlchemy besides."
    )
    return f"{text}\n\n{table(rows)}"
