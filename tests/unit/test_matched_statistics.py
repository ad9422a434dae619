"""A matched experiment's figures by hand, what may not change them, how often they are false."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from searchae.compare.matched_design import Limits, next_design, progress
from searchae.compare.matched_results import RESOLUTION_DB, estimate
from searchae.compare.matched_statistics import SEQUENTIAL_SHARE, MatchedVerdict, analyse
from searchae.compare.tuning_luck import tuning_variance
from tests.unit.matched_experiments import BASELINE_DB, drawn, results, the_pair


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
    finals = np.full((2, 4, 2), np.nan)
    finals[0, 0] = 30.0, 29.0
    found = estimate(results(psnr, population=5, finals_db=finals))
    between = (3 * 1 + 9) / 3  # around the mean, 3
    within = (2 + 0 + 8 + 0) / 4
    tuning = 2 * tuning_variance(finals[0, 0], within / 2) / 8
    noise = 0.8 * (within / 2 + tuning) / 4
    variance = 0.2 * between / 4 + noise
    assert found.mean[0] == 3
    assert found.error[0] == pytest.approx(math.sqrt(variance + RESOLUTION_DB**2))
    parts = [(0.2 * between / 4, 3), (noise, 4)]
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
    finals = np.full((2, 1, 2), [27.3, 27.0])
    wider = analyse(results(psnr, population=1, finals_db=finals), sequential=False).pairs[0]
    assert wider.half_width_db > 1.3 * pair.half_width_db


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


def test_a_choice_that_fails_sometimes_is_compared_by_the_rest() -> None:
    psnr = drawn(7, choices=3, bases=6)
    failed = np.zeros(psnr.shape, bool)
    failed[2, 1, 0] = True
    stuck = psnr.copy()
    stuck[2, 1, 0] = BASELINE_DB + 0.1  # it neither diverged nor died, but learned next to nothing
    missing = np.where(failed, np.nan, psnr)
    expected = analyse(results(missing))
    for found in (analyse(results(psnr, failed=failed)), analyse(results(stuck))):
        assert errors(found) == errors(expected)
        assert all(p.half_width_db < 1 for p in found.pairs)
        assert [c.failed for c in found.choices] == [0, 0, 1], "and it is said how often"
        assert all(c.trains for c in found.choices)
        assert found.choices[2].mean_db == pytest.approx(expected.choices[2].mean_db)


def test_a_base_in_which_a_choice_never_trains_does_not_stand_for_one_that_is_unseen() -> None:
    psnr = drawn(7, choices=2, bases=6)
    failed = np.zeros(psnr.shape, bool)
    failed[1, 5] = True
    lacking = analyse(results(psnr, failed=failed, population=6)).pairs[0]
    seen = analyse(results(psnr[:, :5], population=5)).pairs[0]
    assert lacking.half_width_db == pytest.approx(seen.half_width_db)
    assert [b.base for b in lacking.by_base] == [0, 1, 2, 3, 4]


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


def test_effects_that_differ_from_base_to_base_are_told_from_noise() -> None:
    finals = np.full((2, 6, 2), [27.0, 26.7])
    luck_db = math.sqrt(2 * tuning_variance(finals[0, 0], 0.2**2))

    def share(spread_db: float, finals_db: np.ndarray | None = None) -> float:
        found = []
        for seed in range(200):
            psnr = drawn(seed, choices=2, bases=6, seeds=4, base_db=0, seed_db=0.2)
            own = np.random.default_rng(1000 + seed)
            psnr[0] += own.normal(0, spread_db, 6)[:, None]
            found.append(analyse(results(psnr, finals_db=finals_db)).pairs[0].varies)
        return float(np.mean(found))

    assert share(0.0) < 0.09, "said falsely at most 5% of the time"
    assert share(0.6) > 0.9
    assert luck_db > 0.1
    assert share(luck_db, finals) < 0.09, "what tuning owes to luck is no effect of the base"


def test_luck_in_tuning_is_that_of_repeated_finals() -> None:
    true, seed_db = np.array([27.0, 26.8, 26.1]), 0.3
    draws = true + seed_db * np.random.default_rng(0).normal(size=(200_000, 3))
    expected = true[draws.argmax(1)].var()
    padded = np.array([*true, np.nan, -np.inf])
    assert tuning_variance(padded, seed_db**2) == pytest.approx(expected, rel=0.02)
    assert tuning_variance(true + np.array([10, 0, 0]), seed_db**2) == pytest.approx(0, abs=1e-9)
    assert tuning_variance(true[:1], seed_db**2) == 0.0
    draws[:, :2] = true[:2] + (draws[:, :2] - true[:2]) / math.sqrt(2)
    twice = true[draws.argmax(1)].var()
    found = tuning_variance(true, seed_db**2, seeds=[2, 2, 1])
    assert found == pytest.approx(twice, rel=0.02)


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


def test_the_best_choice_is_never_one_that_a_shown_pair_is_lost_by() -> None:
    """B is better in the bases that C was tried in, and worse in all others."""
    rng = np.random.default_rng(0)
    psnr = 24 + 0.02 * rng.normal(size=(3, 8, 2))
    psnr[1, :3] += 0.9
    psnr[1, 3:] -= 1.0
    psnr[2] = BASELINE_DB
    psnr[2, 3:] = np.nan
    verdict = analyse(results(psnr, population=8))
    assert verdict.best == 0
    pair = the_pair(verdict, 0, 1)
    assert pair.shown
    assert pair.first == 0


def test_whether_a_choice_trains_does_not_depend_on_the_seeds_of_its_bad_bases() -> None:
    """Bases in which its tries failed are trained with two seeds, however many others have."""
    psnr = drawn(3, choices=2, bases=5, seeds=4)
    psnr[1, :3] = BASELINE_DB
    psnr[1, :3, 2:] = np.nan
    found = results(psnr)
    assert found.trains.tolist() == [True, False]
    assert not analyse(found).choices[1].trains


def test_a_base_in_which_a_choice_was_not_tried_is_still_unseen() -> None:
    psnr = drawn(4, choices=2, bases=4)
    psnr[1] -= np.array([1.0, 6.0, 11.0, 0.0])[:, None]
    psnr[1, 3] = np.nan
    given_up = estimate(results(psnr, population=4)).error[0]
    all_there_is = estimate(results(psnr[:, :3], population=3)).error[0]
    assert given_up > 1.5 * all_there_is


def test_two_choices_that_never_train_in_one_base_have_no_difference() -> None:
    psnr = drawn(5, choices=2, bases=4)
    psnr[0, :2] = psnr[1, 2:] = BASELINE_DB
    found = results(psnr)
    verdict = analyse(found)
    (pair,) = verdict.pairs
    assert all(c.trains for c in verdict.choices)
    assert not pair.shown
    assert pair.half_width_db == math.inf
    step = next_design(found, Limits(until_db=0.5, bases=4))
    assert (step.next, step.half_width_db) == (None, None)
