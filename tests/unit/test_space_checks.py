"""What of a search space does less than it seems to, said before anything runs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from searchae.config import StudySpec
from searchae.config.loader import spec_from_document
from searchae.errors import SpecError
from searchae.search import expected_epochs
from searchae.tuning.first_rung import choose_first_rung, stored_first_rung
from searchae.tuning.model_checks import (
    build_networks,
    check_active_latents,
    check_shift,
    largest_trial,
)
from searchae.tuning.space_checks import check_space, settings_count

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
Table = dict[str, Any]


def study(model: Table | None = None, train: Table | None = None, **search: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "model": model or {},
        "train": train or {},
        "search": search,
    }
    return spec_from_document(document, source="my.toml")


def notes(spec: StudySpec) -> list[str]:
    found: list[str] = []
    check_space(spec, found.append)
    return found


def test_a_study_that_searches_nothing_trains_one_trial_only() -> None:
    with pytest.raises(SpecError, match=r"nothing is searched.*--trials 1"):
        check_space(study(trials=2), print)
    assert notes(study(trials=1)) == []


def test_a_step_that_never_reaches_the_end_of_its_range_is_said() -> None:
    spec = study(
        {"latent_dim": {"low": 4, "high": 15, "step": 4}},
        {"noise_std": {"low": 0.0, "high": 0.25, "step": 0.1}, "learning_rate": RATE},
    )
    first, second = notes(spec)
    assert first.startswith("model.latent_dim: steps of 4 from 4 do not reach high = 15; ")
    assert first.endswith("the largest value that is tried is 12")
    assert second.startswith("train.noise_std: steps of 0.1 from 0 do not reach high = 0.25; ")
    assert second.endswith("the largest value that is tried is 0.2")


def test_a_wide_range_without_a_logarithm_is_said() -> None:
    (said,) = notes(study(train={"learning_rate": {"low": 1e-4, "high": 1e-1}}))
    assert said == (
        "train.learning_rate: its range spans a factor of 1,000, and without log = true nine of "
        "ten trials are above 0.01"
    )
    assert notes(study(train={"learning_rate": {"low": 1e-3, "high": 5e-2}})) == []
    assert notes(study({"latent_dim": {"low": 1, "high": 512}})) == [], "a whole number"
    assert notes(study(train={"learning_rate": RATE})) == []


def test_a_parameter_that_is_never_sampled_is_said() -> None:
    rates = {"momentum": {"low": 0.1, "high": 0.9}, "learning_rate": RATE}
    (said,) = notes(study(train=rates))
    assert said.startswith("train.momentum: is never sampled, since it is used only with train.op")
    assert said.endswith("timizer = rmsprop or sgd")
    some = {"choices": ["adam", "sgd"]}
    assert notes(study(train={**rates, "optimizer": some})) == []


def test_one_setting_is_counted_in_the_singular() -> None:
    (said,) = notes(study({"latent_dim": {"choices": [4]}}, trials=3))
    assert "the space has only 1 setting:" in said


FOUR = {"activation": {"choices": ["relu", "elu", "gelu", "silu"]}}


@pytest.mark.parametrize("trials", [1, 10, 23, 24, 100])
def test_fewer_trials_than_the_choices_should_get_are_said(trials: int) -> None:
    three = {"optimizer": {"choices": ["adam", "sgd", "rmsprop"]}, "learning_rate": RATE}
    said = notes(study(FOUR, three, trials=trials))
    if trials >= 24:
        assert said == []
        return
    (line,) = said
    assert line.startswith(f"search.trials: {trials} is")
    assert "few for the 4 choices of activation: so that each gets 6" in line
    assert "it takes 24 trials or more" in line


@pytest.mark.parametrize("search", [{"min_trials_per_choice": 0}, {"sampler": "random"}])
def test_where_choices_are_promised_no_trials_few_are_no_fault(search: Table) -> None:
    assert notes(study(FOUR, {"learning_rate": RATE}, trials=3, **search)) == []


def test_trials_of_all_settings_there_are_are_not_few() -> None:
    assert notes(study(FOUR, trials=4)) == []


@pytest.mark.parametrize(("high", "step"), [(0.25, 0.05), (0.3, 0.1), (0.7, 0.1)])
def test_a_step_that_fits_but_for_rounding_is_no_fault(high: float, step: float) -> None:
    spec = study(
        train={"noise_std": {"low": 0.0, "high": high, "step": step}, "learning_rate": RATE}
    )
    assert notes(spec) == []


def test_more_trials_than_settings_are_said() -> None:
    spec = study({"latent_dim": {"choices": [2, 4]}}, trials=4)
    (note,) = notes(spec)
    assert "4 trials, but the space has only 2 settings" in note


def test_settings_are_counted_with_parameters_that_depend_on_others() -> None:
    weights = {"low": 0.0, "high": 0.4, "step": 0.1}  # 5 values, under one regularizer of two
    count = settings_count(
        study(
            {"latent_dim": {"low": 1, "high": 3}},
            {"regularizer": {"choices": ["clip", "clip+l1"]}, "l1_weight": weights},
        )
    )
    assert count == 3 * (1 + 5)
    assert settings_count(study(train={"learning_rate": RATE})) == math.inf


def test_no_more_latents_can_be_kept_than_the_smallest_net_has() -> None:
    def check(model: Table, **train: Any) -> None:
        spec = study(model, {"regularizer": {"choices": ["clip", "k-sparse"]}, **train})
        check_active_latents(spec, build_networks(spec, (1, 16, 16)))

    dims = {"latent_dim": {"low": 8, "high": 64}}
    check(dims, active_latents={"low": 2, "high": 8})
    check(dims, active_latents=16, regularizer="clip+l1")
    for active in (9, {"choices": [2, 9]}, {"low": 2, "high": 9}):
        with pytest.raises(SpecError, match=r"9 of the latent's values cannot be .* has only 8;"):
            check(dims, active_latents=active)
    last_map = {"bottleneck": "none", "channels": [4, 1]}
    check(last_map, active_latents=16)
    with pytest.raises(SpecError, match=r"17 of the latent's values cannot be .* has only 16;"):
        check(last_map, active_latents=17)


def test_images_are_not_moved_out_of_sight() -> None:
    for shift in (7, {"low": 0, "high": 7}, {"choices": [0, 7]}):
        spec = study(train={"shift_pixels": shift})
        check_shift(spec, (3, 8, 9))
        with pytest.raises(SpecError, match=r"7 would move images of 7 pixels out of sight"):
            check_shift(spec, (3, 9, 7))


def test_memory_is_measured_with_the_regularizer_that_takes_most() -> None:
    choices = {"choices": ["clip", "clip+contractive", "clip+l1"]}
    for regularizer, wanted in ((choices, "clip+contractive"), ("clip+l1", "clip+l1")):
        spec = study(train={"regularizer": regularizer})
        largest = largest_trial(spec, build_networks(spec, (1, 16, 16)))
        assert largest.train.regularizer == wanted


def chosen(spec: StudySpec, images: int, batch_size: int) -> tuple[int, list[str]]:
    said: list[str] = []
    found = choose_first_rung(spec, images=images, batch_size=batch_size, note=said.append)
    return found.search.min_epochs, said


def test_trials_of_few_steps_an_epoch_are_not_pruned_after_the_first() -> None:
    epochs, (note,) = chosen(study(train={"epochs": 20}), 500, 128)
    assert epochs == 7, "4 steps an epoch"
    assert "500 training images in batches of 128 are 4 steps an epoch" in note
    assert "from epoch 7 on (search.min_epochs)" in note


def test_trainings_too_short_to_rank_are_not_pruned() -> None:
    epochs, (note,) = chosen(study(train={"epochs": 3}), 500, 128)
    assert epochs == 3
    assert "nothing is pruned" in note


@pytest.mark.parametrize("search", [{"min_epochs": 2}, {"pruner": "none"}])
def test_what_a_study_gives_is_kept(search: Table) -> None:
    spec = study(train={"epochs": 20}, **search)
    assert chosen(spec, 500, 128) == (spec.search.min_epochs, [])


def test_enough_steps_an_epoch_change_nothing() -> None:
    assert chosen(study(train={"epochs": 20}), 1768, 64) == (1, [])


def test_a_stored_study_goes_on_with_its_own() -> None:
    stored = study(train={"epochs": 20}, min_epochs=1)
    assert stored_first_rung(study(train={"epochs": 20}), stored).search.min_epochs == 1
    given = study(train={"epochs": 20}, min_epochs=5)
    assert stored_first_rung(given, stored).search.min_epochs == 5, "which is refused as another"


def test_a_first_report_within_less_than_a_step_is_refused() -> None:
    spec = study(train={"epochs": 20}, first_report=0.125)
    with pytest.raises(SpecError, match=r"first_report: 0\.125 of an epoch is less than a step"):
        chosen(spec, 500, 128)
    assert chosen(spec, 8 * 128, 128) == (1, [])


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"first_report": 0.3}, r"0\.3 is not 1 divided by a power of .* = 2, as 0\.5, 0\.25"),
        ({"first_report": 0.25, "reduction_factor": 3}, r"0\.25 .* = 3, as 0\.3333, 0\.1111"),
        ({"first_report": 0.5, "min_epochs": 2}, r"contradicts search\.min_epochs = 2"),
        ({"first_report": 2}, "first_report"),
        ({"first_report": 0}, "first_report"),
    ],
)
def test_a_first_report_that_is_no_rung_is_refused(search: Table, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        study(train={"epochs": 20}, **search)


@pytest.mark.parametrize(
    ("share", "factor", "shares"),
    [(1, 2, ()), (0.5, 2, (0.5,)), (0.125, 2, (0.125, 0.25, 0.5)), (0.1111, 3, (1 / 9, 1 / 3))],
)
def test_trials_report_at_the_rungs_within_the_first_epoch(
    share: float, factor: int, shares: tuple[float, ...]
) -> None:
    search = study(train={"epochs": 20}, first_report=share, reduction_factor=factor).search
    assert search.report_shares == pytest.approx(shares)
    assert search.epochs_at(search.reports_per_epoch * 7) == 7
    assert search.epochs_at(1) == pytest.approx(share, rel=0.01)


def test_rungs_within_the_first_epoch_save_epochs() -> None:
    by_share = [
        expected_epochs(study(train={"epochs": 16}, pruner="asha", first_report=share))
        for share in (1, 0.5, 0.125)
    ]
    assert by_share == sorted(by_share, reverse=True)
    assert by_share[0] > 1.5 * by_share[2]


def test_more_first_trials_than_trials_are_said() -> None:
    first = [{"learning_rate": 0.01}, {"learning_rate": 0.02}, {"learning_rate": 0.03}]
    rate = {"low": 1e-4, "high": 1e-1, "log": True}
    document = {
        "data": {"name": "svhn"},
        "train": {"learning_rate": rate},
        "search": {"trials": 2, "first": first},
    }
    told: list[str] = []
    check_space(spec_from_document(document, source="test"), told.append)
    assert told == [
        "search.first: lists 3 trials, of which only the first 2 are run: --trials 3 or more runs "
        "all of them"
    ]
