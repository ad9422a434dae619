"""The bootstrap: silent where there is nothing, not silent about half a decibel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchae.compare.statistics import (
    CONFIDENCE_LEVEL,
    Difference,
    Side,
    differences,
    resample_images,
)

TRIALS, SEEDS, IMAGES = 3, 3, 300
TRIAL_DB, SEED_DB, RUN_DB, NET_DB, IMAGE_DB = 0.1, 0.05, 0.08, 0.7, 3.0
"""Deviations as trainings on small images have them: between the best trials of a side, between
seeds of a side, of a single training, of a net on an image, between images."""


def world(
    seed: int, *, sides: int = 2, gains_db: tuple[float, ...] = (), trials: int = TRIALS
) -> tuple[np.ndarray, list[Side]]:
    """PSNRs of trainings whose sides differ by ``gains_db`` alone."""
    draw = np.random.default_rng(seed)
    images = 20 + IMAGE_DB * draw.normal(size=IMAGES)
    rows: list[np.ndarray] = []
    found = []
    for number in range(sides):
        gain = gains_db[number] if gains_db else 0.0
        likes = 0.3 * draw.normal(size=IMAGES)  # images that this side does better or worse
        seeds = SEED_DB * draw.normal(size=SEEDS)
        places = np.empty((trials, SEEDS), dtype=np.intp)
        for t in range(trials):
            quality = TRIAL_DB * draw.normal()
            for s in range(SEEDS):
                run = gain + quality + seeds[s] + RUN_DB * draw.normal()
                places[t, s] = len(rows)
                rows.append(images + likes + run + NET_DB * draw.normal(size=IMAGES))
        found.append(Side(places, selected=True))
    return np.array(rows), found


def compare(
    psnr_db: np.ndarray, sides: list[Side], *, seed: int = 0, resamples: int = 1000
) -> list[Difference]:
    rng = np.random.default_rng(seed)
    means = resample_images(psnr_db, resamples=resamples, rng=rng)
    return differences(psnr_db, sides, image_means=means, rng=rng)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_net_on_both_sides_shows_no_difference(seed: int) -> None:
    one, sides = world(seed, sides=1)
    same = np.concatenate([one, one])
    both = [sides[0], Side(sides[0].rows + len(one), selected=True)]
    found = compare(same, both, seed=seed)[0]
    assert not found.shown
    assert found.mean_db == 0
    assert found.low_db <= 0 <= found.high_db


@pytest.mark.parametrize("sides", [2, 4])
def test_sides_that_differ_by_chance_alone_are_seldom_told_apart(sides: int) -> None:
    found = [any(d.shown for d in compare(*world(seed, sides=sides))) for seed in range(60)]
    assert sum(found[:20]) <= 1, "the 20 seeds that one would look at"
    assert sum(found) <= 3


def test_half_a_decibel_is_found() -> None:
    found = [compare(*world(seed, gains_db=(0.5, 0.0)), seed=seed)[0] for seed in range(40)]
    assert all((d.first, d.second) == (0, 1) for d in found)
    assert sum(d.shown for d in found) >= 25
    covered = [d.low_db <= 0.5 <= d.high_db for d in found]
    assert sum(covered) >= 37


def test_five_trials_a_side_find_half_a_decibel_nearly_always() -> None:
    found = [compare(*world(s, gains_db=(0.5, 0.0), trials=5))[0].shown for s in range(40)]
    assert sum(found) >= 36


def test_images_alone_do_not_make_a_difference_sure() -> None:
    """One seed is better, one worse: a million images would not change that."""
    draw = np.random.default_rng(0)
    images = 3 * draw.normal(size=IMAGES)
    gains = np.array([[0.6, -0.5, 0.2], [0.6, -0.5, 0.2], [0.6, -0.5, 0.2]])
    left = (20 + images + gains[..., None]).reshape(-1, IMAGES)
    right = np.broadcast_to(20 + images, (9, IMAGES))
    rows = np.arange(9).reshape(3, 3)
    found = compare(np.concatenate([left, right]), [Side(rows, False), Side(rows + 9, False)])[0]
    assert found.mean_db == pytest.approx(0.1)
    assert not found.shown
    assert found.seeds_agree == 2


def test_an_interval_is_student_s_t_where_only_the_seeds_differ() -> None:
    """Against the formula that it must then agree with."""
    from scipy import stats

    by_seed = np.array([0.3, 0.5, 0.9, 0.4])
    rows = np.arange(4)[None, :]
    psnr_db = np.concatenate([np.repeat(20 + by_seed[:, None], 50, 1), np.full((4, 50), 20.0)])
    found = compare(psnr_db, [Side(rows, False), Side(rows + 4, False)], resamples=20_000)[0]
    expected = stats.ttest_1samp(by_seed, 0)
    low, high = expected.confidence_interval(CONFIDENCE_LEVEL)
    assert found.degrees == pytest.approx(3)
    assert found.low_db == pytest.approx(low, abs=0.01)
    assert found.high_db == pytest.approx(high, abs=0.01)
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)


def test_trials_chosen_from_more_make_the_interval_wider() -> None:
    psnr_db, sides = world(3, gains_db=(0.5, 0.0))
    all_there_were = [Side(s.rows, selected=False) for s in sides]
    wide, narrow = compare(psnr_db, sides)[0], compare(psnr_db, all_there_were)[0]
    assert wide.mean_db == narrow.mean_db
    assert wide.high_db - wide.low_db > 1.15 * (narrow.high_db - narrow.low_db)


def test_a_side_of_a_single_trial_is_not_believed_more_for_it() -> None:
    found = []
    for seed in range(60):
        psnr_db, sides = world(seed)
        lone = [Side(sides[0].rows[:1], selected=True), sides[1]]
        found.append(compare(psnr_db, lone)[0].shown)
    assert sum(found) <= 3


def test_of_several_sides_each_pair_is_tested_and_the_intervals_say_what_is_shown() -> None:
    found = compare(*world(2, sides=4, gains_db=(2.0, 2.0, 0.0, -3.0)))
    assert len(found) == 6
    shown = {frozenset((d.first, d.second)) for d in found if d.shown}
    assert frozenset((0, 3)) in shown
    assert frozenset((0, 1)) not in shown
    assert all(d.shown == (d.low_db > 0) for d in found)
    assert [d.p_holm for d in found] == sorted(d.p_holm for d in found)
    assert all(d.p_holm >= d.p for d in found)
    assert found[0].level == pytest.approx(1 - 0.05 / 6)


def test_the_same_draw_gives_the_same_interval() -> None:
    assert compare(*world(1)) == compare(*world(1))


def test_means_over_drawn_images_have_the_variance_of_a_mean() -> None:
    draw = np.random.default_rng(0)
    psnr_db = draw.normal(size=(2, 40)) * [[1.0], [3.0]] + 20
    means = resample_images(psnr_db, resamples=20_000, rng=np.random.default_rng(1))
    expected = psnr_db.var(axis=1, ddof=1) / 40
    np.testing.assert_allclose(means.var(axis=0), expected, rtol=0.05)
    np.testing.assert_allclose(means.mean(axis=0), psnr_db.mean(axis=1), atol=0.02)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(-30, 30),
    st.integers(2, 4),
    st.sampled_from([(0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)]),
)
def test_what_is_common_to_all_changes_nothing(
    seed: int, common_db: float, sides: int, gains_db: tuple[float, ...]
) -> None:
    psnr_db, made = world(seed, sides=sides, gains_db=gains_db)
    easier = psnr_db + common_db * np.random.default_rng(seed).normal(size=IMAGES)
    for a, b in zip(compare(psnr_db, made), compare(easier, made), strict=True):
        assert (a.first, a.second, a.shown) == (b.first, b.second, b.shown)
        assert a.low_db == pytest.approx(b.low_db, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_it_does_not_matter_which_side_is_named_first(seed: int) -> None:
    psnr_db, sides = world(seed, gains_db=(0.4, 0.0))
    there, back = compare(psnr_db, sides)[0], compare(psnr_db, sides[::-1])[0]
    assert (there.first, there.second) == (1 - back.first, 1 - back.second)
    assert there.mean_db == pytest.approx(back.mean_db)
    # The draws differ, by what 1000 of them leave open.
    assert there.high_db == pytest.approx(back.high_db, rel=0.15)
