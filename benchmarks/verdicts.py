"""How often the verdicts of a matched experiment are wrong, and what they cost: a simulation.

    python -m benchmarks.verdicts [--runs N]

Trainings are drawn from a model with the noise seen on real SVHN digits; everything after that is
the product's own code: the looks, the growth of the design, the tests; in the last table also the
choice of bases and the tuning of learning rates. ``benchmarks/verdicts.md`` has the results.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from multiprocessing import Pool

import numpy as np

from benchmarks import verdicts_looks, verdicts_product
from benchmarks.verdicts_model import Outcome, World, sentence
from searchae.compare.matched_design import Design

PLANTED_DB = 0.5
SENTENCES = (4, 3, 2)
"""Numbers of choices of the parameters that are compared at once."""

WORLDS = [
    World("little noise", interaction=0.15, tuning=0.1),
    World("as on SVHN"),
    World("much noise", interaction=0.4, tuning=0.2),
    World("bases do not matter", interaction=0.0, tuning=0.0),
    World("seeds hardly matter", interaction=0.5, tuning=0.0, seed=0.05),
    World("t tails, 5 degrees", tails=5),
    World("one choice scatters twice as much", last=2.0),
    World("one choice fails in 5% of trainings", fails=0.05),
    World("6 bases exist", population=6, bases=6, seeds=20),
    World("3 bases exist", population=3, bases=3, seeds=30),
    World("1 base exists", population=1, bases=1, seeds=60),
    World("3 bases exist, tuned anew", population=3, bases=3, seeds=30, retuned=True),
    World("1 base exists, tuned anew", population=1, bases=1, seeds=60, retuned=True),
]
FIXED = (None, Design(5, 2), Design(8, 3), Design(16, 3))


def run(
    world: World, gains_db: Sequence[float], until_db: float, fixed: Design | None, runs: int
) -> dict[str, float]:
    """Returns the mean of each field of ``Outcome``; ``found`` and ``best`` where it reached."""
    one = partial(sentence, world, tuple(gains_db), until_db, fixed)
    with Pool(2) as pool:
        found = pool.map(one, range(runs), chunksize=25)
    means = {f.name: float(np.mean([getattr(o, f.name) for o in found])) for f in fields(Outcome)}
    for name in ("found", "best"):
        counted = [getattr(o, name) for o in found if o.reached or fixed]
        means[name] = float(np.mean(counted)) if counted else math.nan
    return means


def null_table(worlds: Sequence[World], until_db: float, runs: int) -> Iterator[str]:
    """Yields the rows of the error rates where choices do not differ."""
    yield (
        "| noise | sentences with a difference | with a false one | intervals hold | all of a "
        "sentence at once | bases' intervals, all at once | false opposite effects | trainings of "
        "4, 3, 2 choices |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for world in worlds:
        each = [run(world, (0.0,) * choices, until_db, None, runs) for choices in SENTENCES]

        def mean(name: str, each: list[dict[str, float]] = each) -> str:
            return f"{np.mean([e[name] for e in each]):.1%}"

        trainings = [f"{e['trainings']:.0f}" for e in each]
        worst = max(e["false"] for e in each)
        yield (
            f"| {world.name} | {mean('shows')} | {mean('false')} (at most {worst:.1%}) | "
            f"{mean('covered')} | {mean('all_covered')} | {mean('bases_covered')} | "
            f"{mean('false_opposite')} | {', '.join(trainings)} |"
        )


def planted_table(worlds: Sequence[World], until_db: float, runs: int) -> Iterator[str]:
    """Yields the rows on one choice of four that is better by ``PLANTED_DB``."""
    yield (
        "| noise | design | half-width reached | shown better than all three | named best | "
        "a false difference | half-width | bases x seeds | trainings | with tuning |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for world in worlds:
        for fixed in FIXED:
            if fixed and (fixed.bases > world.bases or fixed.seeds > world.seeds):
                continue
            got = run(world, (PLANTED_DB, 0.0, 0.0, 0.0), until_db, fixed, runs)
            reached = "" if fixed else f"{got['reached']:.0%}"
            yield (
                f"| {world.name} | {'fixed' if fixed else 'grows'} | "
                f"{reached} | {got['found']:.1%} | "
                f"{got['best']:.1%} | {got['false']:.1%} | {got['half_db']:.2f} dB | "
                f"{got['bases']:.1f} x {got['seeds']:.1f} | {got['trainings']:.0f} | "
                f"{got['cost']:.0f} |"
            )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="simulations of each row")
    parser.add_argument("--until", type=float, default=0.3, help="wanted half-width, in dB")
    parser.add_argument("--tables", nargs="+", default=["null", "planted", "looks", "product"])
    parser.add_argument("--worlds", nargs="+", help="names of the rows, instead of all")
    asked = parser.parse_args()
    worlds = [w for w in WORLDS if not asked.worlds or w.name in asked.worlds]
    steady = [w for w in worlds if not w.fails and w.population is None]
    tables = (("null", null_table, worlds), ("planted", planted_table, steady))
    for name, make, rows in tables:
        if name in asked.tables:
            for line in make(rows, asked.until, asked.runs):
                print(line, flush=True)
            print()
    if "looks" in asked.tables:
        print(verdicts_looks.table(20 * asked.runs))
        print()
    if "product" in asked.tables:
        for line in verdicts_product.table(asked.runs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
