"""What is said of a comparison and of a ranking, from trainings made up here."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchae.compare.matched_results import MatchedResults
from searchae.compare.matched_statistics import analyse
from searchae.compare.page import write_comparison
from searchae.compare.plots import (
    NARROW_LABEL,
    effects_plot,
    losses_plot,
    reconstructions_plot,
    trainings_plot,
)
from searchae.compare.ranking import Ranking, rank_trials
from searchae.compare.rerank import top_trials
from searchae.compare.result import ComparisonResult, notes_on
from searchae.compare.verdict import NOT_TRIED, CellResult, Verdict
from searchae.study.summary import TrialRow
from searchae.training.epoch import EpochResult
from searchae.worker import TrainingRecord, shown_indices
from tests.reported_study import make_study

SEEDS = (1, 2, 3)
IMAGES = 40
BASES = ("adam clip", "rmsprop clip", "adam clip+l1", "rmsprop clip+l1")
BASELINE_DB = 14.0


def record(
    picture: int, seed: int, psnr_db: float, *, epochs: int = 3, ended: str = "epochs"
) -> TrainingRecord:
    draw = np.random.default_rng(100 * picture + seed)
    images = psnr_db + np.linspace(-3, 3, IMAGES) + 0.01 * draw.normal(size=IMAGES)
    history = [
        EpochResult(e, 0.1, 0.1 / e, psnr_db - 3 + e, psnr_db, 0.1, 1.0)
        for e in range(1, epochs + 1)
    ]
    return TrainingRecord(
        seed=seed,
        epoch=epochs,
        ended=ended,
        history=tuple(history),
        sparsity=0.25,
        hoyer=0.5,
        psnr_db=images,
        mse=10 ** (-images / 10),
        ssim=np.full(IMAGES, 0.5),
        pictures=np.full((8, 1, 4, 4), picture, dtype=np.uint8),
    )


def judged(levels: dict[str, float | list[float]], **changes: object) -> Verdict:
    """A verdict on choices with these mean PSNRs, in all bases or in each, and a little noise."""
    cells = []
    for i, level in enumerate(levels.values()):
        by_base = level if isinstance(level, list) else [level] * len(BASES)
        row = []
        for j, value in enumerate(by_base):
            noise = 0.04 * ((i + j) % 3 - 1)
            records = [
                record(50 * (i + 2), s, value + noise + 0.03 * ((i + j + k) % 3 - 1))
                for k, s in enumerate(SEEDS)
            ]
            row.append(
                CellResult(
                    f"{i} {j}",
                    {"learning_rate": 0.01},
                    (),
                    tuple(records),
                    (True,) * len(records),
                    (True,) * len(records),
                )
            )
        cells.append(tuple(row))
    psnr_db = np.array([[[r.psnr_db for r in c.records] for c in row] for row in cells])
    results = MatchedResults(
        choices=tuple(levels),
        psnr_db=psnr_db,
        failed=np.zeros(psnr_db.shape[:3], dtype=bool),
        baseline_db=np.full(IMAGES, BASELINE_DB),
        population=12,
    )
    made = Verdict(
        parameter="activation",
        statistics=analyse(results),
        bases=BASES,
        base_trials=(3, 5, 7, 9),
        cells=tuple(cells),
        tries=20,
        until_db=0.3,
        half_width_db=0.2,
        lacking="",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_best_setting_is_one_that_trained_with_every_seed() -> None:
    verdict = judged({"relu": 20.0, "tanh": 21.5})

    def best(*relu: bool, tanh: tuple[bool, ...]) -> str | None:
        # Failed trainings of a choice that mostly fails count, as the mean training image.
        rows = (relu, tanh)
        cells = tuple(
            tuple(replace(cell, trained=trained, counts=(True,) * 3) for cell in row)
            for row, trained in zip(verdict.cells, rows, strict=True)
        )
        found = ComparisonResult((replace(verdict, cells=cells),)).best
        return None if found is None else found.sentence

    assert "tanh" in (best(True, True, True, tanh=(True, True, True)) or "")
    assert "relu" in (best(True, True, True, tanh=(True, False, False)) or "")
    assert best(True, False, False, tanh=(True, True, False)) is None


def test_long_names_of_bases_are_shown_whole_on_several_lines() -> None:
    long = "channels=[32, 64, 128] latent_dim=64 leaky_relu rmsprop clip+contractive"
    verdict = judged({"relu": 20.0, "tanh": 21.5})
    short, plot = (
        trainings_plot(replace(verdict, bases=bases)) for bases in (BASES, (long, *BASES[1:]))
    )
    label = plot.figure.layout.yaxis.ticktext[0]
    lines = label.replace("\N{NO-BREAK SPACE}", " ").split("<br>")
    assert " ".join(lines) == f"tanh in {long}"
    assert len(lines) > 1
    assert max(map(len, lines)) <= NARROW_LABEL
    assert "channels=[32, 64, 128]" in "|".join(lines), "a list is not torn apart"
    assert plot.height_px > short.height_px


def test_of_two_the_better_one_is_named_first_wherever_it_stands() -> None:
    said = judged({"relu": 20.0, "tanh": 21.5}).sentence
    assert said.startswith("activation: tanh beats relu by 1.5")
    assert " dB (95% interval 1." in said
    swapped = judged({"tanh": 21.5, "relu": 20.0}).sentence
    assert swapped.startswith("activation: tanh beats relu by 1.")


def test_no_difference_is_said_with_its_interval() -> None:
    verdict = judged({"relu": 20.0, "tanh": 20.0})
    assert not verdict.shown
    assert "no difference shown between" in verdict.sentence
    assert ", -0." in verdict.sentence


def test_of_several_it_is_said_which_are_beaten_and_which_are_not() -> None:
    said = judged({"relu": 22.0, "tanh": 20.0, "elu": 22.02, "sigmoid": 18.0}).sentence
    assert " beats tanh by 1.9" in said or " beats tanh by 2.0" in said
    assert " and sigmoid by " in said
    assert "; not distinguishable from relu (" in said
    assert said.count("95% interval") == 1


def failing(verdict: Verdict, choice: int, failed: int) -> Verdict:
    """The same, where a choice has failed so often that its difference is not known."""
    figures = list(verdict.choices)
    figures[choice] = replace(figures[choice], trains=False, failed=failed, trainings=8)
    pairs = [
        replace(p, shown=False, low_db=-1.5, high_db=7.25) if choice in (p.first, p.second) else p
        for p in verdict.statistics.pairs
    ]
    statistics = replace(verdict.statistics, choices=tuple(figures), pairs=tuple(pairs))
    return replace(verdict, statistics=statistics)


def test_a_choice_that_mostly_fails_is_never_called_as_good_as_one_that_trains() -> None:
    two = failing(judged({"adam": 22.0, "sgd": 19.0}), 1, 6).sentence
    assert two.startswith("activation: adam trains; sgd mostly fails to train (6 of 8 trainings; ")
    assert "uncertain: " in two
    assert "no difference" not in two
    three = failing(judged({"adam": 22.0, "rmsprop": 22.0, "sgd": 19.0}), 2, 6).sentence
    assert "no difference shown between" in three.partition("; ")[0]
    assert "sgd" not in three.partition("; ")[0]
    assert "sgd mostly fails to train" in three
    beaten = failing(judged({"adam": 22.0, "rmsprop": 20.0, "sgd": 19.0}), 2, 6).sentence
    assert " beats rmsprop by " in beaten
    assert beaten.endswith(("to 7.25)", "to 1.50)"))


@pytest.mark.parametrize("tanh", [21.5, 20.0], ids=["a winner", "no difference"])
def test_a_choice_that_often_fails_is_not_praised_without_that(tanh: float) -> None:
    verdict = judged({"relu": 20.0, "tanh": tanh})

    def sentence(failed: int) -> str:
        figures = (
            verdict.choices[0],
            replace(verdict.choices[1], failed=failed, trainings=10),
        )
        statistics = replace(verdict.statistics, choices=figures)
        return replace(verdict, statistics=statistics).sentence

    said = "; 3 of 10 trainings of tanh failed, which the differences leave out"
    assert sentence(3) == verdict.sentence + said
    assert sentence(1) == sentence(0) == verdict.sentence, "one of ten is left to the table"


def test_each_net_is_said_to_have_failed_by_its_own_trainings() -> None:
    """Not by what the choice does in other bases."""
    cell = judged({"adam": 22.0, "sgd": 19.0}).cells[1][0]
    assert cell.text.startswith("19.0")
    assert "failed" not in cell.text
    some = replace(cell, trained=(True,) + (False,) * (len(cell.records) - 1))
    assert some.text.endswith(f" dB, {len(cell.records) - 1} of {len(cell.records)} failed")
    assert replace(cell, trained=(False,) * len(cell.records)).text == "failed"


def test_opposite_effects_are_not_hidden_by_their_mean() -> None:
    verdict = judged({"clip": 22.0, "clip+l1": [24.0, 20.0, 24.0, 20.0]})
    assert not verdict.shown, "their mean is nothing"
    (note,) = [n for n in notes_on([verdict]) if "depends on the rest" in n]
    assert "with adam clip" in note
    assert "with rmsprop clip" in note
    assert "+2." in note
    assert "-2." in note or "-1." in note


def test_means_are_of_the_bases_that_all_choices_have() -> None:
    """tanh fails in the base in which relu does worst: its mean is not the better for that."""
    verdict = judged({"relu": [24.0, 24.0, 24.0, 20.0], "tanh": [23.0, 23.0, 23.0, BASELINE_DB]})
    failed = replace(verdict.cells[1][3], counts=(False,) * len(verdict.cells[1][3].counts))
    verdict = replace(verdict, cells=(verdict.cells[0], (*verdict.cells[1][:3], failed)))
    relu, tanh = (verdict.means(c)["psnr_db"] for c in (0, 1))
    assert relu == pytest.approx(24, abs=0.1)
    assert tanh == pytest.approx(23, abs=0.1)
    assert [verdict.choices[c].name for c in verdict.order] == ["relu", "tanh"]


def test_a_choice_that_was_given_up_does_not_decide_which_bases_the_others_are_told_of() -> None:
    """Where sgd was tried rmsprop is better, and adam over all."""
    verdict = judged(
        {"adam": [24.0, 26.0, 26.0, 26.0], "rmsprop": [25.0, 25.0, 25.0, 25.0], "sgd": 20.0}
    )
    given_up = (verdict.cells[2][0], *[NOT_TRIED] * 3)
    verdict = replace(verdict, cells=(*verdict.cells[:2], given_up))
    adam, rmsprop, sgd = (verdict.means(c)["psnr_db"] for c in (0, 1, 2))
    assert adam == pytest.approx(25.5, abs=0.1)
    assert rmsprop == pytest.approx(25, abs=0.1)
    assert sgd == pytest.approx(20, abs=0.1)


def test_a_choice_that_nobody_can_train_is_told_of() -> None:
    verdict = judged({"relu": 22.0, "sigmoid": BASELINE_DB})
    (note,) = notes_on([verdict])
    assert note.startswith("these mostly fail to train, and their failed trainings count as")
    assert note.endswith("trainings failed, in 4 bases)")
    assert "relu beats sigmoid by " in verdict.sentence


def test_values_at_the_end_of_their_range_are_told_of() -> None:
    verdict = judged({"relu": 22.0, "tanh": 22.0})
    row = tuple(
        replace(
            c,
            settings={**c.settings, "momentum": 0.5},
            at_edge=("learning_rate",) if i == 1 else (),
        )
        for i, c in enumerate(verdict.cells[0])
    )
    verdict = replace(verdict, cells=(row, verdict.cells[1]))
    (note,) = notes_on([verdict])
    assert "the best values lie at the end of their range" in note
    assert note.endswith(": relu rmsprop clip (learning_rate=0.01)"), "not the momentum"


def test_what_holds_of_several_parameters_is_said_once() -> None:
    lacking = "known within 0.40 dB, not 0.3 dB: the time was up"
    one = judged({"relu": 20.0, "tanh": 20.0}, lacking=lacking)
    notes = notes_on([one, replace(one, parameter="optimizer")])
    assert notes == [f"activation, optimizer: {lacking}"]


def test_a_net_that_parameters_share_is_listed_once() -> None:
    """relu is a choice in the base rmsprop clip, and rmsprop one in the base relu clip."""
    activation = judged({"relu": 22.0, "tanh": 22.0})
    at_edge = tuple(
        replace(c, at_edge=("learning_rate",) if i == 1 else ())
        for i, c in enumerate(activation.cells[0])
    )
    activation = replace(activation, cells=(at_edge, activation.cells[1]))
    optimizer = judged({"rmsprop": 22.0, "adam": 22.0})
    optimizer = replace(
        optimizer,
        parameter="optimizer",
        bases=("tanh clip", "relu clip", *BASES[2:]),
        cells=(at_edge, optimizer.cells[1]),
    )
    (note,) = notes_on([activation, optimizer])
    assert note.count("learning_rate=0.01") == 1


def test_all_of_it_is_json() -> None:
    document = judged({"relu": 20.0, "tanh": 21.5, "elu": 20.0}).document()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["best"] == "tanh"
    side = document["sides"][0]
    assert (side["name"], side["sparsity"], side["ssim"], side["hoyer"]) == ("tanh", 0.25, 0.5, 0.5)
    assert side["psnr_db"] == pytest.approx(21.5, abs=0.05)
    assert side["cells"][1]["base"] == "rmsprop clip"
    assert side["cells"][1]["settings"] == {"learning_rate": 0.01}
    assert document["bases"][3] == {"trial": 9, "name": "rmsprop clip+l1"}


def test_one_base_alone_has_no_interval_and_no_verdict() -> None:
    """With further bases that were not looked at, nothing is known of them."""
    whole = judged({"relu": 20.0, "tanh": 25.0})
    row = tuple(cells[:1] for cells in whole.cells)
    psnr_db = np.array([[[r.psnr_db for r in c.records] for c in cells] for cells in row])
    results = MatchedResults(
        choices=("relu", "tanh"),
        psnr_db=psnr_db,
        failed=np.zeros(psnr_db.shape[:3], dtype=bool),
        baseline_db=np.full(IMAGES, BASELINE_DB),
        population=12,
    )
    verdict = replace(
        whole,
        statistics=analyse(results),
        bases=BASES[:1],
        base_trials=(3,),
        cells=row,
    )
    assert not verdict.shown
    assert "no interval: it takes two bases in which both train" in verdict.sentence
    assert "inf" not in verdict.sentence
    json.dumps(verdict.document(), allow_nan=False)
    effects_plot(verdict).figure.to_json()


def test_each_base_has_its_row_of_effects() -> None:
    verdict = judged({"relu": 20.0, "tanh": 21.5, "elu": 20.0})
    figure = effects_plot(verdict).figure
    assert len(figure.data) == 2 * (1 + len(BASES))
    assert "in rmsprop clip" in figure.layout.yaxis.ticktext
    assert all(trace.x[0] > 0 for trace in figure.data)


def test_a_choice_that_is_far_behind_does_not_flatten_the_others() -> None:
    figure = effects_plot(judged({"relu": 20.0, "tanh": 30.0, "elu": 29.5})).figure
    assert len(figure.data) == 1 + len(BASES), "elu's alone"
    texts = [a.text for a in figure.layout.annotations]
    assert [text for text in texts if text.endswith(" dB →")] == ["10.0 dB →"]
    assert "relu" in figure.layout.yaxis.ticktext
    both = effects_plot(judged({"relu": 20.0, "tanh": 30.0})).figure
    assert len(both.data) == 1 + len(BASES), "there is nothing else to see"


def test_a_curve_that_ended_early_keeps_its_last_value_in_the_mean() -> None:
    verdict = judged({"relu": 20.0, "tanh": 20.0})

    def row(*epochs: int) -> tuple[CellResult, ...]:
        return tuple(
            CellResult("", {}, (), (record(1, 1, 20, epochs=e),), (True,), (True,)) for e in epochs
        )

    verdict = replace(verdict, cells=(row(4, 2), row(2, 2)))
    by_name = {t.name: list(t.y) for t in losses_plot(verdict).figure.data if t.name}
    assert by_name["relu"] == pytest.approx([0.1, 0.05, (0.1 / 3 + 0.05) / 2, (0.025 + 0.05) / 2])
    assert by_name["tanh"] == pytest.approx([0.1, 0.05])


def test_the_picture_has_a_row_for_the_originals_and_each_choice() -> None:
    verdict = judged({"relu": 20.0, "tanh": 22.0})
    originals = np.full((8, 1, 4, 4), 50, dtype=np.uint8)
    png = base64.b64decode(reconstructions_plot(verdict, originals))
    levels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    column = levels[:, levels.shape[1] // 2 - 80]
    rows = [int(v) for v in column if v in (50, 100, 150)]
    assert sorted(set(rows), key=rows.index) == [50, 150, 100], "the best choice first"


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


@pytest.mark.fleet
def test_the_tables_of_the_page_fit_into_a_window(browser: Any, tmp_path: Path) -> None:
    verdict = judged({"leaky_relu": 22.0, "tanh": 20.0, "relu": 22.02, "sigmoid": 18.0})
    settings = {"learning_rate": 0.00316, "momentum": 0.9, "l1_weight": 7.57e-05}
    cells = tuple(tuple(replace(c, settings=settings) for c in row) for row in verdict.cells)
    bases = tuple(f"{name} channels=[16, 32] latent_dim=64 batch_size=64" for name in BASES)
    result = ComparisonResult((replace(verdict, cells=cells, bases=bases),), None)
    pictures = np.zeros((8, 1, 4, 4), np.uint8)
    write_comparison(tmp_path / "page.html", result, pictures, study="svhn", about="About.")
    context = browser.new_context(viewport={"width": 1000, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    too_wide = "all => all.map(e => [e.scrollWidth, e.clientWidth])"
    widths = page.eval_on_selector_all(".scroll:has(table)", too_wide)
    context.close()
    assert len(widths) == 2
    assert [w for w in widths if w[0] > w[1]] == []


def test_where_too_few_trained_to_their_end_pruned_trials_are_ranked_too(tmp_path: Path) -> None:
    rows = top_trials(make_study(tmp_path, 30), 25)
    whole = [row for row in rows if row.state == "complete"]
    assert 10 < len(whole) < len(rows) == 25
    assert rows[: len(whole)] == whole, "those that trained to their end come first"
    pruned = rows[len(whole) :]
    assert {row.state for row in pruned} == {"pruned"}
    assert [row.epochs for row in pruned] == sorted((row.epochs for row in pruned), reverse=True)
