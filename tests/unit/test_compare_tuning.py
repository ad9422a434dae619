"""The compass search for a choice's own learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from searchae.compare.tuning import EDGE_FACTOR, Grid, Point, Score, Tuned, tune
from searchae.config.parameters import Parameter

RATE = Grid.of(Parameter("train.learning_rate", low=1e-4, high=1e-1, log=True))
WEIGHT = Grid.of(Parameter("train.l1_weight", low=1e-7, high=1e-2, log=True))
TRIES = 7


def searched(
    quality: Callable[..., float], start: Point, *grids: Grid, tries: int = TRIES
) -> Tuned:
    """Runs a whole search; the results of a round come in before the next."""
    known: dict[Point, Score] = {}

    def score(point: Point) -> Score | None:
        return known.get(point)

    rounds = 0
    while (found := tune(grids, start, tries, score)).best is None:
        rounds += 1
        assert rounds < 50, "it ends"
        for point in found.wanted:
            values = [g.value(i) for g, i in zip(grids, point, strict=True)]
            known[point] = (True, quality(*values))
    return found


def hump(best: float) -> Callable[[float], float]:
    """A PSNR that falls by 2 dB a decade from the best learning rate."""
    return lambda rate: 25 - 2 * abs(math.log10(rate / best))


@pytest.mark.parametrize("best", [2e-3, 1e-2, 7e-4])
def test_the_best_learning_rate_is_found_from_a_decade_away(best: float) -> None:
    found = searched(hump(best), (RATE.index(best * 8),), RATE)
    assert found.best is not None
    assert abs(math.log10(float(RATE.value(found.best[0])) / best)) < 0.3
    assert not found.at_edge
    assert len(found.wanted) <= EDGE_FACTOR * TRIES


def test_every_choice_gets_the_same_number_of_tries_when_its_best_lies_within() -> None:
    counts = {
        len(searched(hump(best), (RATE.index(3e-3),), RATE).wanted) for best in (1.5e-3, 3e-3, 6e-3)
    }
    assert counts == {TRIES}


def test_a_best_value_at_the_end_of_the_range_is_said_to_be_there() -> None:
    rising = searched(math.log10, (RATE.index(1e-4),), RATE)
    assert len(rising.wanted) <= EDGE_FACTOR * TRIES
    assert rising.best is not None
    assert RATE.value(rising.best[0]) == 0.1
    assert rising.at_edge == {0}, "the end of the range"


def test_from_a_rate_at_which_nothing_learns_the_sweep_finds_one_that_does() -> None:
    def narrow(rate: float) -> float:
        return 25.0 if rate < 2e-4 else 14.0

    found = searched(narrow, (RATE.index(1e-2),), RATE)
    assert found.best is not None
    assert float(RATE.value(found.best[0])) <= 2e-4


def test_two_values_are_tuned_together() -> None:
    def quality(rate: float, weight: float) -> float:
        return hump(3e-3)(rate) - abs(math.log10(weight / 1e-4))

    start = (RATE.index(1e-3), WEIGHT.index(1e-6))
    found = searched(quality, start, RATE, WEIGHT, tries=9)
    assert found.best is not None
    began = quality(float(RATE.value(start[0])), float(WEIGHT.value(start[1])))
    rate, weight = RATE.value(found.best[0]), WEIGHT.value(found.best[1])
    assert quality(float(rate), float(weight)) > began + 1


def test_a_pruned_try_is_never_the_best() -> None:
    known: dict[Point, Score] = {
        (RATE.index(1e-3),): (True, 20.0),
        (RATE.index(3e-3),): (False, 30.0),
    }
    done = tune([RATE], (RATE.index(1e-3),), 2, lambda p: known.get(p, (True, 1.0)))
    assert done.best == (RATE.index(1e-3),)


def test_what_is_wanted_depends_on_the_results_alone() -> None:
    """A process that starts over with what another one stored wants the same."""
    whole = searched(hump(2e-3), (RATE.index(3e-2),), RATE)
    half = {p: (True, hump(2e-3)(float(RATE.value(p[0])))) for p in whole.wanted[:3]}
    found = tune([RATE], (RATE.index(3e-2),), TRIES, lambda p: half.get(p))  # noqa: PLW0108
    assert found.wanted[: len(found.wanted)] == whole.wanted[: len(found.wanted)]
    assert found.best is None


def test_values_lie_on_one_grid_within_the_range() -> None:
    assert RATE.value(RATE.index(1e-4)) == 1e-4
    assert RATE.value(RATE.index(0.1)) == 0.1
    assert RATE.value(RATE.index(5.0)) == 0.1
    assert RATE.value(RATE.index(3.1e-3)) == RATE.value(RATE.index(3.3e-3)) == 0.003162
    odd = Grid.of(Parameter("train.learning_rate", low=2e-4, high=5e-2, log=True))
    values = [float(odd.value(i)) for i in range(odd.lowest, odd.highest + 1)]
    assert (values[0], values[-1]) == (2e-4, 5e-2)
    assert values == sorted(set(values))
    few = Grid.of(Parameter("train.active_latents", low=2, high=9, integer=True))
    assert [few.value(i) for i in range(few.lowest, few.highest + 1)] == list(range(2, 10))
    momentum = Grid.of(Parameter("train.momentum", low=0.0, high=0.9))
    assert momentum.value(momentum.highest) == 0.9
    steps = Grid.of(Parameter("train.momentum", low=0.0, high=0.9, step=0.3))
    assert {steps.value(i) for i in range(steps.lowest, steps.highest + 1)} <= {0.0, 0.3, 0.6, 0.9}


def test_a_rate_that_diverges_in_the_end_does_not_end_the_search_for_one_that_learns() -> None:
    """It had stopped the others early, which had learned something."""
    trains_db = 15.0

    def score(point: Point) -> Score:
        rate = float(RATE.value(point[0]))
        return (True, 14.0) if rate > 5e-2 else (False, 17.0 - abs(math.log10(rate / 3e-3)))

    found = tune([RATE], (RATE.index(1e-1),), TRIES, score, trains_db=trains_db)
    assert found.best is not None
    assert len(found.wanted) >= TRIES
    assert score(found.best)[1] >= trains_db


def test_where_nothing_learns_only_rates_are_tried() -> None:
    start = (RATE.index(1e-2), WEIGHT.index(1e-4))
    known: list[Point] = []

    def score(point: Point) -> Score:
        known.append(point)
        return (True, 14.0)

    found = tune([RATE, WEIGHT], start, 11, score, trains_db=15.0)
    assert {p[1] for p in found.wanted} == {start[1]}
    assert len(found.wanted) <= TRIES
    assert (found.best, found.at_edge) == (found.wanted[0], frozenset())
