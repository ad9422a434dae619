"""What is said of a comparison and of a ranking, from trainings made up here."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from searchae.compare.choices import ParameterSides, SideChoice, _parameter_sides
from searchae.compare.plots import losses_plot, reconstructions_plot
from searchae.compare.ranking import Ranking, rank_trials
from searchae.compare.training_record import TrainingRecord, shown_indices
from searchae.compare.verdict import Verdict, combined_notes, compare_sides
from searchae.config.parameters import Parameter
from searchae.study.summary import TrialRow
from searchae.training.epoch import EpochResult

SEEDS = (1, 2, 3)
IMAGES = 40


def record(
    trial: int, seed: int, psnr_db: float, *, epochs: int = 3, ended: str = ""
) -> TrainingRecord:
    draw = np.random.default_rng(100 * trial + seed)
    images = psnr_db + np.linspace(-3, 3, IMAGES) + 0.01 * draw.normal(size=IMAGES)
    history = [
        EpochResult(e, 0.1, 0.1 / e, psnr_db - 3 + e, psnr_db, 0.1, 1.0)
        for e in range(1, epochs + 1)
    ]
    return TrainingRecord(
        trial=trial,
        seed=seed,
        epoch=epochs,
        ended=ended or "epochs",
        history=tuple(history),
        sparsity=0.25,
        psnr_db=images,
        mse=10 ** (-images / 10),
        ssim=np.full(IMAGES, 0.5),
        pictures=np.full((8, 1, 4, 4), trial, dtype=np.uint8),
    )


def judged(levels: dict[str, float], *, finished: dict[str, int] | None = None) -> Verdict:
    """A verdict on sides of three trials, which have these mean PSNRs and a spread of 0.1 dB."""
    sides, trained = [], {}
    for i, (name, level) in enumerate(levels.items()):
        numbers = tuple(range(3 * i, 3 * i + 3))
        sides.append(SideChoice(name, (finished or {}).get(name, 10), 10, numbers))
        for j, trial in enumerate(numbers):
            for k, seed in enumerate(SEEDS):
                spread = 0.1 * (j - 1) + 0.03 * ((j + k) % 3 - 1)
                trained[trial, seed] = record(trial, seed, level + spread)
    contest = ParameterSides("activation", (*sides, SideChoice("gelu", 0, 0, ())))
    return compare_sides([contest], trained, seeds=SEEDS, best=3)[0]


def test_of_two_the_better_one_is_named_first_wherever_it_stands() -> None:
    said = judged({"relu": 20.0, "tanh": 21.5}).sentence
    assert said.startswith("activation: tanh beats relu by 1.50 dB (95% interval 1.")
    assert said == judged({"tanh": 21.5, "relu": 20.0}).sentence


def test_no_difference_is_said_with_its_interval() -> None:
    verdict = judged({"relu": 20.0, "tanh": 20.05})
    assert not verdict.shown
    assert verdict.sentence.startswith(
        "activation: no difference shown between tanh and relu (0.05 dB, -0."
    )


def test_of_several_it_is_said_which_are_beaten_and_which_are_not() -> None:
    said = judged({"relu": 22.0, "tanh": 20.0, "elu": 22.02, "sigmoid": 18.0}).sentence
    assert said.startswith("activation: elu beats tanh by 2.02 dB (95% intervals, all at once, ")
    assert " and sigmoid by 4.02 dB (" in said
    assert "; no difference shown to relu (0.02 dB, -0." in said
    said = judged({"relu": 22.0, "tanh": 22.01, "elu": 22.02}).sentence
    assert said.startswith(
        "activation: no difference shown between elu, tanh, relu (largest: elu over relu, 0.02 dB, "
    )


def test_one_knows_what_was_not_tried_and_who_had_more_chances() -> None:
    notes = judged({"relu": 20.0, "tanh": 20.0}, finished={"relu": 30, "tanh": 6}).notes
    assert "activation: gelu has no trial that ended well" in notes
    assert any("tried relu 30 times and tanh 6 times" in n for n in notes)
    assert not any("6 times" in n for n in judged({"relu": 20.0, "tanh": 20.0}).notes)


def test_what_holds_of_several_parameters_is_said_once() -> None:
    few, again = (replace(judged({"relu": 20.0, "tanh": 20.0}), wanted=1) for _ in range(2))
    again = replace(again, parameter="optimizer", untried=())
    notes = combined_notes([few, again])
    assert len([n for n in notes if "intervals are wide" in n]) == 1
    assert any(n.startswith("activation, optimizer: from so few trainings") for n in notes)
    assert "activation: gelu has no trial that ended well" in notes
    told = [text for v in (few, again) for text in (n.partition(": ")[2] for n in v.notes)]
    assert {n.partition(": ")[2] for n in notes} == set(told), "nothing is left out"


def test_a_choice_is_stood_for_by_whole_trials_then_by_those_that_came_furthest() -> None:
    row = TrialRow(0, "pruned", 0.0, {"activation": "relu"}, 6, "", 1.0, False)
    rows = [
        replace(row, number=0, psnr_db=30.0, epochs=1),
        replace(row, number=1, psnr_db=20.0, epochs=4),
        replace(row, number=2, psnr_db=18.0, epochs=3, state="complete"),
        replace(row, number=3, psnr_db=19.0, state="complete"),
        replace(row, number=4, psnr_db=21.0, epochs=4),
        replace(row, number=5, psnr_db=40.0, outcome="diverged", state="complete"),
        replace(row, number=6, psnr_db=40.0, state="failed"),
    ]
    of = Parameter("model.activation", choices=("relu", "tanh"))
    relu, tanh = _parameter_sides(of, rows, 4).sides
    assert (relu.trials, relu.pruned, relu.eligible) == ((3, 2, 4, 1), 2, 5)
    assert (tanh.trials, tanh.pruned) == ((), 0)


def test_all_of_it_is_json() -> None:
    document = judged({"relu": 20.0, "tanh": 21.5, "elu": 20.0}).document()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["pairs"][0]["first"] == "tanh"
    side = document["sides"][0]
    assert (side["name"], side["sparsity"], side["ssim"]) == ("tanh", 0.25, 0.5)
    assert side["psnr_db"] == pytest.approx(21.5, abs=0.01)


def test_a_curve_that_ended_early_keeps_its_last_value_in_the_mean() -> None:
    trained = {(t, s): record(t, s, 20, epochs=2 if t else 4) for t in (0, 1) for s in SEEDS}
    contest = ParameterSides(
        "activation", (SideChoice("relu", 1, 1, (0,)), SideChoice("tanh", 1, 1, (1,)))
    )
    verdict = compare_sides([contest], trained, seeds=SEEDS, best=1)[0]
    figure = losses_plot(verdict, trained).figure
    by_name = {t.name: list(t.y) for t in figure.data if t.name}
    assert by_name["relu"] == pytest.approx([0.1, 0.05, 0.1 / 3, 0.025])
    assert by_name["tanh"] == pytest.approx([0.1, 0.05])
    both = ParameterSides(
        "activation", (SideChoice("relu", 2, 2, (0, 1)), SideChoice("tanh", 1, 1, (1,)))
    )
    verdict = compare_sides([both], trained, seeds=SEEDS, best=2)[0]
    by_name = {t.name: list(t.y) for t in losses_plot(verdict, trained).figure.data if t.name}
    assert by_name["relu"] == pytest.approx([0.1, 0.05, (0.1 / 3 + 0.05) / 2, (0.025 + 0.05) / 2])


def test_the_picture_has_a_row_for_the_originals_and_each_side() -> None:
    import base64

    trained = {(t, s): record(t, s, 20) for t in (100, 200) for s in SEEDS}
    contest = ParameterSides(
        "activation", (SideChoice("relu", 1, 1, (100,)), SideChoice("tanh", 1, 1, (200,)))
    )
    verdict = compare_sides([contest], trained, seeds=SEEDS, best=1)[0]
    originals = np.full((8, 1, 4, 4), 50, dtype=np.uint8)
    png = base64.b64decode(reconstructions_plot(verdict, trained, originals))
    levels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    column = levels[:, levels.shape[1] // 2 - 80]
    rows = [int(v) for v in column if v in (50, 100, 200)]
    assert sorted(set(rows), key=rows.index) == [50, *(s.trials[0] for s in verdict.sides)]


@pytest.mark.parametrize(("count", "places"), [(3, [0, 1, 2]), (8, list(range(8)))])
def test_of_few_images_all_are_shown(count: int, places: list[int]) -> None:
    assert shown_indices(count) == places
    assert shown_indices(1000)[0] == 0
    assert shown_indices(1000)[-1] == 999
    assert len(set(shown_indices(1000))) == 8


def ranked(searched: dict[int, float], over_seeds: dict[int, list[float]], **how: bool) -> Ranking:
    rows = [
        TrialRow(n, "complete", v, {"latent_dim": n}, 3, "", 1.0, imported=False)
        for n, v in searched.items()
    ]
    trained = {
        (n, s): record(n, s, v)
        for n, vs in over_seeds.items()
        for s, v in zip(SEEDS, vs, strict=True)
    }
    given = {"same_schedule": True, **how}
    return rank_trials(rows, trained, seeds=SEEDS, baseline_db=10.0, **given)


def test_the_search_s_best_may_have_flattered_itself() -> None:
    found = ranked({7: 25.0, 3: 24.8}, {7: [24.0, 24.2, 24.4], 3: [24.6, 24.7, 24.8]})
    assert (found.winner.number, found.winner.searched_rank) == (3, 2)
    assert found.optimism_db == pytest.approx(0.8)
    assert found.sentence == (
        "trial 3 is the best over 3 new seeds: 24.70 dB; the search's best, trial 7, has 24.20 dB; "
        "the search's 25.00 dB flattered it by 0.80 dB"
    )


def test_it_may_also_stay_the_best() -> None:
    found = ranked({7: 25.0, 3: 24.8}, {7: [25.0, 25.0, 25.0], 3: [24.0, 24.0, 24.0]})
    assert found.sentence == (
        "trial 7 stays the best: 25.00 dB over 3 new seeds; the search's 25.00 dB held"
    )


def test_other_epochs_are_not_compared_with_the_search_s() -> None:
    found = ranked({7: 25.0}, {7: [26.0, 26.0, 26.0]}, same_schedule=False)
    assert found.optimism_db is None
    assert found.sentence == "trial 7 stays the best: 26.00 dB over 3 new seeds"


def test_the_test_split_has_no_part_in_the_rank() -> None:
    """The test PSNRs are reversed here: the order stays."""
    rows = [TrialRow(n, "complete", 25.0 - n, {}, 3, "", 1.0, imported=False) for n in (0, 1)]
    trained = {}
    for n, s in [(n, s) for n in (0, 1) for s in SEEDS]:
        made = record(n, s, 25.0 - n)
        trained[n, s] = TrainingRecord(**{**vars(made), "psnr_db": np.full(IMAGES, 10.0 + n)})
    found = rank_trials(rows, trained, seeds=SEEDS, baseline_db=10.0, same_schedule=True)
    assert found.winner.number == 0
    assert found.test["psnr_db"] == 10.0


def test_a_training_that_diverged_counts_as_it_does_in_the_search() -> None:
    assert record(0, 1, 30.0, ended="diverged").searched_psnr_db(10.0) == 10.0
    assert record(0, 1, 30.0).searched_psnr_db(10.0) == 30.0
