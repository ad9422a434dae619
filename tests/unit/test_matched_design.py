"""How a matched experiment grows: until it knows enough, and the same whoever asks again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from searchae.compare.matched_design import Design, Limits, first_design, next_design, progress
from searchae.compare.matched_statistics import analyse
from tests.unit.matched_experiments import BASELINE_DB, LIMITS, drawn, results, the_pair


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


def test_a_choice_that_is_far_behind_is_not_measured_more_narrowly() -> None:
    psnr = drawn(13, choices=2, bases=16, seeds=6)
    behind = psnr[:1] - 30 * LIMITS.until_db
    behind += np.random.default_rng(1).normal(size=(1, 16, 6)) * 2.5
    state = progress(results(np.concatenate([psnr, behind])), LIMITS)
    assert state.reached
    assert state.last is not None
    assert (state.last.half_width_db or 9.0) <= LIMITS.until_db
    near = np.concatenate([psnr, behind + 29 * LIMITS.until_db])
    assert not progress(results(near), LIMITS).reached, "a close one with this noise is"


def test_a_choice_that_was_given_up_is_not_measured_more_narrowly() -> None:
    psnr = drawn(13, choices=2, bases=5, seeds=2, base_db=0.01, seed_db=0.01)
    poor = psnr[:1] - 5 + np.random.default_rng(1).normal(size=(1, 5, 2))
    look = results(np.concatenate([psnr, poor]))
    assert next_design(look, LIMITS).next is not None
    step = next_design(look, LIMITS, given_up=[2])
    assert step.next is None
    assert (step.half_width_db or 9.0) < LIMITS.until_db


def test_a_failing_choice_is_not_waited_for() -> None:
    psnr = drawn(14, choices=2, bases=16, seeds=6)
    failing = np.concatenate([psnr, np.full((1, 16, 6), BASELINE_DB)])
    rng = np.random.default_rng(0)
    failing[2] += np.abs(rng.normal(size=(16, 6))) * 0.3  # died close to the baseline
    state = progress(results(failing), LIMITS)
    assert state.reached
    assert state.last is not None
    assert (state.last.half_width_db or 9.0) <= LIMITS.until_db
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
