"""The Pareto front: what no other trial dominates."""

from __future__ import annotations

import random
from dataclasses import replace

import optuna
import pytest
from optuna.study import StudyDirection

from searchae.study.front import front_of
from searchae.study.summary import TrialRow


def row(number: int, **values: float) -> TrialRow:
    psnr_db = values["psnr"]
    return TrialRow(number, "complete", psnr_db, {}, 3, "", 1.0, imported=False, values=values)


def numbers(*rows: TrialRow) -> list[int]:
    return [r.number for r in front_of(rows)]


def test_trials_that_another_one_dominates_are_left_out() -> None:
    best, sparse = row(0, psnr=25.0, sparsity=0.0), row(1, psnr=20.0, sparsity=0.5)
    between, worse = row(2, psnr=22.0, sparsity=0.2), row(3, psnr=21.0, sparsity=0.2)
    assert numbers(worse, sparse, best, between) == [0, 2, 1], "the highest PSNR first"


def test_of_trials_that_are_equal_in_all_objectives_all_are_on_the_front() -> None:
    one, other = row(4, psnr=25.0, sparsity=0.1), row(2, psnr=25.0, sparsity=0.1)
    assert numbers(one, other) == [2, 4]
    assert numbers(one, row(5, psnr=25.0, sparsity=0.0)) == [4], "equal in one, worse in another"


def test_fewer_parameters_are_better() -> None:
    large = row(0, psnr=25.0, parameters=9000.0)
    small = row(1, psnr=25.0, parameters=500.0)
    assert numbers(large, small) == [1]


def test_only_trials_with_a_result_are_on_the_front() -> None:
    good, small = row(0, psnr=20.0, parameters=90.0), row(1, psnr=10.0, parameters=5.0)
    assert numbers(good, replace(small, outcome="diverged")) == [0]
    assert numbers(good, replace(small, imported=True)) == [0]
    assert numbers(good, replace(small, state="running", values={})) == [0]
    assert numbers(replace(good, values={})) == [], "one objective has no front"


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_the_one_that_optuna_finds(seed: int) -> None:
    draw = random.Random(seed)
    names = ["psnr", "sparsity", "parameters", "latent_dim"][: 2 + seed % 3]
    directions = [StudyDirection.MAXIMIZE] * 2 + [StudyDirection.MINIMIZE] * (len(names) - 2)
    rows = [
        row(n, **{name: float(draw.randrange(6)) for name in names}) for n in range(seed, seed + 60)
    ]
    study = optuna.create_study(directions=directions)
    for one in rows:
        study.add_trial(optuna.create_trial(values=list(one.values.values())))
    assert sorted(r.number - seed for r in front_of(rows)) == sorted(
        t.number for t in study.best_trials
    )
