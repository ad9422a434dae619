"""Simulated matched experiments for tests."""

from __future__ import annotations

import numpy as np

from searchae.compare.matched_design import Limits
from searchae.compare.matched_results import MatchedResults
from searchae.compare.matched_statistics import MatchedVerdict, PairDifference

BASELINE_DB = 14.5
LIMITS = Limits(until_db=0.4, bases=16, seeds=6)


def results(
    psnr_db: object,
    *,
    population: int | None = None,
    finals_db: np.ndarray | None = None,
    failed: np.ndarray | None = None,
) -> MatchedResults:
    """Results whose PSNRs are given by training (C, K, S) or by image (C, K, S, N)."""
    given = np.asarray(psnr_db, dtype=np.float64)
    given = given if given.ndim == 4 else given[..., None]
    return MatchedResults(
        choices=tuple("abcde"[: len(given)]),
        psnr_db=given,
        failed=np.zeros(given.shape[:3], bool) if failed is None else failed,
        baseline_db=np.full(given.shape[3], BASELINE_DB),
        population=population,
        finals_db=finals_db,
    )


def drawn(
    seed: int,
    *,
    choices: int = 3,
    bases: int = 6,
    seeds: int = 2,
    base_db: float = 0.25,
    seed_db: float = 0.35,
) -> np.ndarray:
    """PSNRs without a difference: (choices, bases, seeds)."""
    rng = np.random.default_rng(seed)
    levels = 27 + rng.normal(size=(1, bases, 1))
    own = base_db * rng.normal(size=(choices, bases, 1))
    return levels + own + seed_db * rng.normal(size=(choices, bases, seeds))


def the_pair(verdict: MatchedVerdict, first: int, second: int) -> PairDifference:
    return next(p for p in verdict.pairs if {p.first, p.second} == {first, second})
