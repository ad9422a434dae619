"""When a tuning try is stopped."""

from __future__ import annotations

import pytest

from searchae.search.group_pruner import falls_behind

BEST = {e: 20.0 + 0.1 * e for e in range(1, 17)}


def own(epoch: int, behind_db: float) -> dict[int, float]:
    return {e: BEST[e] - behind_db for e in range(1, epoch + 1)}


@pytest.mark.parametrize(
    ("epoch", "behind_db", "stopped"),
    [
        (2, 4.5, True),
        (2, 3.5, False),
        (4, 2.5, True),
        (4, 1.5, False),
        (8, 1.2, True),
        (8, 0.8, False),
        (3, 9.0, False),
        (12, 9.0, False),
    ],
)
def test_it_is_stopped_at_a_few_epochs_only_and_the_margin_narrows(
    epoch: int, behind_db: float, stopped: bool
) -> None:
    assert falls_behind(own(epoch, behind_db), [BEST], 16) is stopped


def test_without_another_one_nothing_is_stopped() -> None:
    assert not falls_behind(own(4, 9.0), [], 16)
    assert not falls_behind({}, [BEST], 16)
    assert not falls_behind(own(8, 9.0), [own(4, 0.0)], 16), "the other has not come so far"


def test_a_training_of_one_epoch_is_compared_at_its_end() -> None:
    assert falls_behind({1: 10.0}, [{1: 20.0}], 1)
