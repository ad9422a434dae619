"""The plateau rule: examples at its bounds, and what holds for any curve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchae.training.early_stopping import Plateau

# Multiples of 1/64, so that sums and differences are exact.
PSNRS = st.lists(st.integers(0, 64 * 60).map(lambda n: n / 64), max_size=30)
RULES = st.builds(
    Plateau, patience=st.integers(1, 8), min_delta_db=st.integers(0, 64).map(lambda n: n / 64)
)


@pytest.mark.parametrize(
    ("psnrs_db", "reached"),
    [
        ([], False),
        ([20.0], False),
        ([20.0, 20.0], False),
        ([20.0, 20.0, 20.0], True),
        ([20.0, 20.0, 20.5], False),
        ([20.0, 20.25, 20.5], False),  # a slow rise adds up to min_delta_db
        ([20.0, 20.25, 20.375], True),
        ([20.0, 19.0, 18.0], True),
        ([math.nan, math.nan], True),
    ],
)
def test_two_epochs_of_patience_for_half_a_decibel(psnrs_db: list[float], *, reached: bool) -> None:
    assert Plateau(patience=2, min_delta_db=0.5).after_all(psnrs_db).reached is reached


def test_an_equal_value_is_no_improvement_even_without_a_minimum() -> None:
    assert Plateau(patience=1, min_delta_db=0).after_all([20.0, 20.0]).reached


@pytest.mark.parametrize(
    ("psnrs_db", "reached"),
    [
        ([14.0, 14.0, 14.0, 14.0, 14.0], False),  # it still gives the mean image
        ([14.0, 14.0, 14.0, 18.0, 18.0], False),
        ([14.0, 14.0, 14.0, 18.0, 18.0, 18.0], True),
        ([18.0, 14.0, 14.0], True),  # it had learned, and lost it again
    ],
)
def test_patience_begins_once_the_net_has_learned_something(
    psnrs_db: list[float], *, reached: bool
) -> None:
    rule = Plateau(patience=2, min_delta_db=0, counts_from_db=15.0)
    assert rule.after_all(psnrs_db).reached is reached


def test_it_counts_from_then_on_though_the_rise_was_no_improvement() -> None:
    rule = Plateau(patience=2, min_delta_db=0.5, counts_from_db=15.5)
    assert rule.after_all([15.4, 15.6, 15.4]).reached


@given(PSNRS)
def test_no_patience_never_stops(psnrs_db: list[float]) -> None:
    assert not Plateau(patience=0, min_delta_db=0.5).after_all(psnrs_db).reached


@given(RULES, PSNRS)
def test_it_stops_when_no_recent_epoch_beats_the_best_before_by_the_minimum(
    rule: Plateau, psnrs_db: list[float]
) -> None:
    """Against a restatement that looks at the whole curve and keeps no state."""
    reference, improved = -math.inf, 0
    for epoch, psnr_db in enumerate(psnrs_db, start=1):
        if psnr_db > reference and psnr_db - reference >= rule.min_delta_db:
            reference, improved = psnr_db, epoch
    state = rule.after_all(psnrs_db)
    assert state.reached == (len(psnrs_db) - improved >= rule.patience)
    assert state.best_db == reference


@given(RULES, PSNRS, PSNRS)
def test_a_curve_in_two_parts_gives_the_same_state(
    rule: Plateau, first: list[float], second: list[float]
) -> None:
    assert rule.after_all(first).after_all(second) == rule.after_all(first + second)


@given(RULES, PSNRS)
def test_a_rising_curve_never_stops(rule: Plateau, psnrs_db: list[float]) -> None:
    curve = sorted(set(psnrs_db))
    steps = [i * rule.min_delta_db + psnr_db for i, psnr_db in enumerate(curve)]
    assert not rule.after_all(steps).reached


@given(RULES, PSNRS)
def test_more_patience_never_stops_earlier(rule: Plateau, psnrs_db: list[float]) -> None:
    patient = Plateau(patience=rule.patience + 1, min_delta_db=rule.min_delta_db)
    assert rule.after_all(psnrs_db).reached or not patient.after_all(psnrs_db).reached
