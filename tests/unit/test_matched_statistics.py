"""The matched experiment: its figures by hand, its error rates, designs that can be replayed."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from searchae.compare.matched_design import Design, Limits, first_design, next_design, progress
from searchae.compare.matched_results import RESOLUTION_DB, MatchedResults, estimate
from searchae.compare.matched_statistics import (
    SEQUENTIAL_SHARE,
    MatchedVerdict,
    PairDifference,
    analyse,
)

BASELINE_DB = 14.5
LIMITS = Limits(until_db=0.4, bases=16, seeds=6)


def results(
    psnr_db: object,
    *,
    population: int | None = None,
    tuning_db: float = 0.0,
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
        tuning_db=tuning_db,
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


def errors(verdict: MatchedVerdict) -> dict[tuple[int, ...], tuple[float, ...]]:
    return {
        tuple(sorted((p.first, p.second))): (p.mean_db, p.half_width_db, p.p, p.degrees)
        for p in verdict.pairs
    }


def test_two_choices_are_a_paired_t_test_on_the_bases_means() -> None:
    psnr = drawn(1, choices=2)
    pair = analyse(results(psnr), sequential=False).pairs[0]
    means = psnr.mean(2)
    expected = stats.ttest_rel(means[pair.first], means[pair.second])
    assert pair.p == pytest.approx(expected.pvalue, rel=1e-3)
    interval = expected.confidence_interval(0.95)
    assert (pair.low_db, pair.high_db) == pytest.approx((interval.low, interval.high), abs=1e-3)
    assert pair.degrees == pytest.approx(5, rel=1e-3)


def test_two_stage_sampling_by_hand() -> None:
    # Differences by base: (1, 3), (2, 2), (0, 4): means 2, 2, 2; one more base at 6 and 6.
    difference = np.array([[1.0, 3], [2, 2], [0, 4], [6, 6]])
    psnr = np.stack([27 + difference, np.full((4, 2), 27.0)])
    found = estimate(results(psnr, population=5, tuning_db=0.5))
    between = (3 * 1 + 9) / 3  # around the mean, 3
    within = (2 + 0 + 8 + 0) / 4
    variance = 0.2 * between / 4 + 0.8 * (within / 2 + 2 * 0.25) / 4
    assert found.mean[0] == 3
    assert found.error[0] == pytest.approx(math.sqrt(variance + RESOLUTION_DB**2))
    parts = [(0.2 * between / 4, 3), (0.8 * within / 8, 4)]
    degrees = (variance + RESOLUTION_DB**2) ** 2 / sum(v * v / f for v, f in parts)
    assert found.degrees[0] == pytest.approx(degrees, rel=1e-3)


def test_images_count_once_for_all_bases_and_seeds() -> None:
    rng = np.random.default_rng(3)
    by_image = rng.normal(size=400)
    psnr = np.full((2, 4, 2, 400), 27.0)
    psnr[0] += by_image
    found = estimate(results(psnr))
    assert found.error[0] == pytest.approx(by_image.std(ddof=1) / 20, rel=1e-2)


def test_one_base_that_is_all_there_is_counts_seeds_alone() -> None:
    psnr = np.stack([[27.0 + np.array([0.1, 0.5, 0.3, 0.7])], [np.full(4, 27.0)]])
    pair = analyse(results(psnr, population=1), sequential=False).pairs[0]
    low, high = stats.t.interval(0.95, 3, loc=0.4, scale=np.std([0.1, 0.5, 0.3, 0.7], ddof=1) / 2)
    assert (pair.low_db, pair.high_db) == pytest.approx((low, high), abs=1e-3)
    # The same tuning once more would be luck again.
    wider = analyse(results(psnr, population=1, tuning_db=0.15), sequential=False).pairs[0]
    assert wider.half_width_db > 0.4


def test_one_base_of_many_shows_nothing() -> None:
    psnr = np.stack([np.full((1, 4), 29.0), np.full((1, 4), 27.0)])
    pair = analyse(results(psnr)).pairs[0]
    assert not pair.shown
    assert (pair.mean_db, pair.half_width_db, pair.p) == (2.0, math.inf, 1.0)


def test_the_order_of_choices_and_bases_does_not_matter() -> None:
    psnr = drawn(4, choices=3) + np.array([0, 0.7, 0.2])[:, None, None]
    expected = errors(analyse(results(psnr)))
    for order in permutations(range(3)):
        verdict = analyse(results(psnr[list(order)][:, ::-1]))
        for (a, b), figures in errors(verdict).items():
            key = tuple(sorted((order[a], order[b])))
            assert figures == pytest.approx(expected[key])
        assert order[verdict.best] == 1


def test_the_interval_excludes_0_exactly_if_the_difference_is_shown() -> None:
    shown = hidden = 0
    for seed in range(60):
        gains = np.array([0, 0.3, 0.6, 0.9])[:, None, None]
        for sequential in (False, True):
            verdict = analyse(results(drawn(seed, choices=4) + gains), sequential=sequential)
            for p in verdict.pairs:
                assert p.shown == (p.low_db > 0) == (p.p_adjusted < 0.05)
                assert p.high_db - p.low_db <= 2 * p.half_width_db + 1e-12
                shown, hidden = shown + p.shown, hidden + (not p.shown)
    assert min(shown, hidden) > 50


def test_holms_levels() -> None:
    psnr = drawn(5, choices=3, seed_db=0.05, base_db=0.05)
    psnr += np.array([0, 0.02, 2.0])[:, None, None]  # two pairs are clear, one is not
    found = analyse(results(psnr), sequential=False).pairs
    assert [p.shown for p in found] == [True, True, False]
    assert [p.level for p in found] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 0.95])
    assert found[2].p_adjusted == pytest.approx(found[2].p)
    looked = analyse(results(psnr)).pairs
    assert looked[2].level == pytest.approx(1 - 0.05 * SEQUENTIAL_SHARE)


def test_a_choice_that_fails_does_not_widen_the_others() -> None:
    psnr = drawn(6, choices=4)
    without = analyse(results(psnr))
    failing = np.concatenate([psnr, np.full((1, *psnr.shape[1:]), np.nan)])
    failed = np.zeros(failing.shape, bool)
    failed[4] = True
    verdict = analyse(results(failing, failed=failed))
    for p in without.pairs:
        other = the_pair(verdict, p.first, p.second)
        # Only the number of pairs differs, 10 for 6.
        assert other.half_width_db < 1.15 * p.half_width_db
        assert other.p == pytest.approx(p.p)
    figures = verdict.choices[4]
    assert (figures.failed, figures.trainings, figures.trains) == (12, 12, False)
    assert figures.mean_db == BASELINE_DB
    assert all(the_pair(verdict, c, 4).shown for c in range(4))


def test_a_choice_that_fails_sometimes_does_not_widen_the_others() -> None:
    psnr = drawn(7, choices=3)
    failed = np.zeros(psnr.shape, bool)
    failed[2, 1, 0] = True
    sometimes = analyse(results(psnr, failed=failed))
    alone = analyse(results(psnr[:2]))
    assert the_pair(sometimes, 0, 1).p == pytest.approx(alone.pairs[0].p)
    assert the_pair(sometimes, 0, 2).half_width_db > 2


def test_a_choice_that_scatters_far_more_widens_the_others_little() -> None:
    psnr = drawn(8, choices=3, bases=10)
    quiet = the_pair(analyse(results(psnr)), 0, 1).half_width_db
    psnr[2] += 3 * np.random.default_rng(0).normal(size=(10, 1))
    loud = analyse(results(psnr))
    assert the_pair(loud, 0, 1).half_width_db < 1.5 * quiet
    assert the_pair(loud, 0, 2).half_width_db > 4 * quiet


def test_trainings_that_are_not_made_yet() -> None:
    psnr = drawn(9, choices=2, bases=5, seeds=3)
    psnr[:, 4:] = np.nan  # a base that has not begun
    whole = errors(analyse(results(psnr[:, :4])))
    assert errors(analyse(results(psnr)))[0, 1] == pytest.approx(whole[0, 1])
    psnr[0, 3, 2] = np.nan  # a seed that one choice still lacks is no pair
    pair = analyse(results(psnr)).pairs[0]
    signed = (psnr[pair.first] - psnr[pair.second])[:4]
    means = [float(np.nanmean(base)) for base in signed]
    assert pair.mean_db == pytest.approx(np.mean(means))
    assert [b.mean_db for b in pair.by_base] == pytest.approx(means)
    assert [b.seeds for b in pair.by_base] == [3, 3, 3, 2]


def test_equal_trainings_show_nothing_and_rounding_is_no_difference() -> None:
    one = drawn(10, choices=1)
    pair = analyse(results(np.concatenate([one, one]))).pairs[0]
    assert (pair.shown, pair.mean_db, pair.p) == (False, 0.0, 1.0)
    pair = analyse(results(np.concatenate([one + 0.004, one]))).pairs[0]
    assert not pair.shown
    pair = analyse(results(np.concatenate([one + 0.1, one]))).pairs[0]
    assert pair.shown
    assert not pair.opposite


def test_opposite_effects_are_seen_and_named_with_their_bases() -> None:
    psnr = drawn(11, choices=2, bases=4, seeds=3, base_db=0, seed_db=0.1)
    psnr[0] += np.array([1.0, 1.0, -1.0, 1.0])[:, None]
    pair = analyse(results(psnr)).pairs[0]
    assert pair.opposite
    assert not pair.shown
    assert [b.base for b in pair.by_base if b.high_db < 0] == [2]
    psnr[0, 2] += 1.0  # no effect there: not an opposite one
    assert not analyse(results(psnr)).pairs[0].opposite


def test_more_seeds_and_more_bases_make_intervals_narrower() -> None:
    def mean_half(bases: int, seeds: int) -> float:
        found = [
            analyse(results(drawn(s, bases=bases, seeds=seeds))).pairs[0].half_width_db
            for s in range(40)
        ]
        return float(np.mean(found))

    few, seeds, bases = mean_half(5, 2), mean_half(5, 6), mean_half(10, 2)
    assert seeds < 0.9 * few
    assert bases < 0.7 * few


def test_the_design_grows_until_the_half_width_is_reached() -> None:
    whole = results(drawn(12, choices=3, bases=16, seeds=6))
    state = progress(whole, LIMITS)
    assert state.looks[0] == Design(5, 2)
    assert len(state.looks) > 1
    assert state.reached
    last = whole.first(state.looks[-1].bases, state.looks[-1].seeds)
    assert max(p.half_width_db for p in analyse(last).pairs) <= LIMITS.until_db
    for before, after in zip(state.looks, state.looks[1:], strict=False):
        assert (before.bases, before.seeds) < (after.bases, after.seeds)
        half = [p.half_width_db for p in analyse(whole.first(before.bases, before.seeds)).pairs]
        assert max(half) > LIMITS.until_db


def test_every_look_is_recomputed_from_what_is_stored() -> None:
    psnr = drawn(12, choices=3, bases=16, seeds=6)
    expected = progress(results(psnr), LIMITS)
    stored = np.full_like(psnr, np.nan)
    for number, design in enumerate(expected.looks):
        state = progress(results(stored), LIMITS)
        assert state.looks == expected.looks[:number]
        assert state.next == design
        part = np.s_[:, : design.bases, : design.seeds]
        stored[part] = psnr[part]
        stored[0, design.bases - 1, design.seeds - 1] = np.nan  # killed before the last training
        assert progress(results(stored), LIMITS).next == design
        stored[part] = psnr[part]
    assert progress(results(stored), LIMITS) == expected


def test_differences_do_not_decide_how_the_design_grows() -> None:
    psnr = drawn(13, choices=3, bases=16, seeds=6)
    expected = progress(results(psnr), LIMITS)
    psnr += np.array([0, 1.3, -2.0])[:, None, None]
    assert progress(results(psnr), LIMITS).looks == expected.looks


def test_a_failing_choice_is_not_waited_for() -> None:
    psnr = drawn(14, choices=2, bases=16, seeds=6)
    failing = np.concatenate([psnr, np.full((1, 16, 6), BASELINE_DB)])
    rng = np.random.default_rng(0)
    failing[2] += np.abs(rng.normal(size=(16, 6))) * 0.3  # died close to the baseline
    state = progress(results(failing), LIMITS)
    assert state.reached
    assert state.last is not None
    assert state.last.half_width_db <= LIMITS.until_db
    assert not results(failing).trains[2]


def test_it_ends_where_a_half_width_is_out_of_reach_and_says_for_which_pairs() -> None:
    psnr = drawn(15, choices=3, bases=16, seeds=6)
    psnr[2] += 6 * np.random.default_rng(1).normal(size=(16, 1))
    limits = replace(LIMITS, until_db=0.6)
    state = progress(results(psnr), limits)
    assert state.next is None
    assert not state.reached
    assert state.last is not None
    assert state.last.out_of_reach == ((0, 2), (1, 2))
    last = analyse(results(psnr).first(state.looks[-1].bases, state.looks[-1].seeds))
    assert the_pair(last, 0, 1).half_width_db <= limits.until_db


def test_the_first_design_with_few_bases() -> None:
    assert first_design(Limits(until_db=0.3, bases=1), 1) == Design(1, 5)
    assert first_design(Limits(until_db=0.3, bases=3), 3) == Design(3, 3)
    assert first_design(Limits(until_db=0.3, bases=3), None) == Design(3, 2)
    single = results(drawn(16, bases=1, seeds=5), population=None)
    step = next_design(single, Limits(until_db=0.3, bases=1))
    assert step.next is None
    assert len(step.out_of_reach) == 3


def test_costly_tuning_asks_for_seeds_rather_than_bases() -> None:
    look = results(drawn(17, choices=2, bases=5, base_db=0.1, seed_db=0.4))
    cheap = next_design(look, Limits(until_db=0.3, bases=40, tuning_cost=0.0)).forecast
    dear = next_design(look, Limits(until_db=0.3, bases=40, tuning_cost=20.0)).forecast
    assert cheap.bases > dear.bases
    assert cheap.seeds < dear.seeds


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="6 bases of 5"):
        results(drawn(18), population=5)
    with pytest.raises(ValueError, match="16 bases of 6"):
        progress(results(drawn(18), population=6), LIMITS)
    good = results(drawn(18))
    with pytest.raises(ValueError, match="choices"):
        replace(good, choices=("a", "b"))
    with pytest.raises(ValueError, match="shapes"):
        replace(good, baseline_db=np.zeros(7))


def test_false_differences_with_looks_are_rare_where_a_naive_test_shows_many() -> None:
    limits = Limits(until_db=0.6, bases=20, seeds=4)
    runs, false, naive = 400, 0, 0
    for seed in range(runs):
        # Two choices: the stopping depends on a single variance, which is the hardest case.
        whole = results(drawn(1000 + seed, choices=2, bases=20, seeds=4, base_db=0.5))
        design = progress(whole, limits).looks[-1]
        part = whole.first(design.bases, design.seeds)
        false += analyse(part).pairs[0].shown
        four_seeds = whole.first(design.bases, 4).psnr_db
        trainings = (four_seeds[0] - four_seeds[1]).ravel()  # as if seeds were bases
        naive += stats.ttest_1samp(trainings, 0).pvalue < 0.05
    assert false / runs <= 0.07
    assert naive / runs > 0.2
