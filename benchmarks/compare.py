"""How often `searchae compare` sees a difference that is not there, and misses one that is.

Run it with `python benchmarks/compare.py [REPETITIONS]`; 400 repetitions take two minutes. Studies
are drawn whose sides differ by nothing, then by 0.5 dB; the table says how often a difference was
shown. `trials` says how the quality of a side's trials is distributed before its best are chosen
by a noisy search PSNR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from searchae.compare.statistics import Side, differences, resample_images

IMAGES, IMAGE_DB, NET_DB, SIDE_DB = 400, 3.0, 0.7, 0.3
"""Deviations in dB: between images, of a net on an image, of a side on an image."""
SEED_DB, RUN_DB, SEARCH_DB = 0.04, 0.08, 0.08
"""Of a seed on a side, of a training, of a search PSNR."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
QUALITY: dict[str, Draw] = {
    "all taken, sd 0.1": lambda rng, n: 0.1 * rng.normal(size=n),
    "all taken, sd 0.05": lambda rng, n: 0.05 * rng.normal(size=n),
    "20, exponential, 1 dB": lambda rng, n: -rng.exponential(size=n),
    "20, 1 parameter": lambda rng, n: -(rng.uniform(-2, 2, n) ** 2),
    "40, 2 parameters": lambda rng, n: -(rng.uniform(-2, 2, (2, n)) ** 2).sum(0),
}


def study(
    rng: np.random.Generator, trials: str, *, sides: int, best: int, seeds: int, gain_db: float
) -> tuple[np.ndarray, list[Side]]:
    """PSNRs (trainings, images); the first side is better by ``gain_db``."""
    images = 20 + IMAGE_DB * rng.normal(size=IMAGES)
    rows: list[np.ndarray] = []
    found = []
    for number in range(sides):
        size = trials.partition(",")[0]
        count = best if size == "all taken" else int(size)
        quality = QUALITY[trials](rng, count)
        chosen = np.argsort(-(quality + SEARCH_DB * rng.normal(size=count)))[:best]
        by_seed = SEED_DB * rng.normal(size=seeds)
        likes = SIDE_DB * rng.normal(size=IMAGES)
        places = np.arange(len(rows), len(rows) + best * seeds).reshape(best, seeds)
        for trial in chosen:
            for seed in range(seeds):
                level = quality[trial] + by_seed[seed] + RUN_DB * rng.normal()
                level += gain_db * (number == 0)
                rows.append(images + likes + level + NET_DB * rng.normal(size=IMAGES))
        found.append(Side(places, selected=count > best))
    return np.array(rows), found


def rates(trials: str, *, sides: int, best: int, repetitions: int) -> tuple[float, float]:
    """Share of studies with a false difference, and of true differences that were shown."""
    rng = np.random.default_rng(1)
    shown = []
    for gain_db in (0.0, 0.5):
        hits = 0.0
        for _ in range(repetitions):
            how = {"sides": sides, "best": best, "seeds": 3, "gain_db": gain_db}
            psnr_db, made = study(rng, trials, **how)  # type: ignore[arg-type]
            draws = np.random.default_rng(7)
            means = resample_images(psnr_db, resamples=1000, rng=draws)
            found = differences(psnr_db, made, image_means=means, rng=draws)
            if gain_db:
                hits += sum(d.shown and d.first == 0 for d in found) / (sides - 1)
            else:
                hits += any(d.shown for d in found)
        shown.append(hits / repetitions)
    return shown[0], shown[1]


def main() -> None:
    """Prints the table."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("trials a side          sides  best   false   0.5 dB found")
    for trials in QUALITY:
        for sides, best in ((2, 3), (2, 5), (4, 3), (4, 5)):
            false, found = rates(trials, sides=sides, best=best, repetitions=repetitions)
            row = f"{trials:22s} {sides:5d} {best:5d}  {false:6.1%}  {found:8.0%}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
