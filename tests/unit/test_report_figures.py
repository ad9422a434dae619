"""What the figures show, from studies made by hand."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from searchae.report import drawing, figures, importances, parameter_plots
from searchae.report.axes import log_axis
from searchae.report.drawing import Plot
from searchae.report.findings import Findings, collect_findings
from searchae.study.stored_study import StoredStudy
from tests.reported_study import BASELINE_DB, DOCUMENT, EPOCHS, add, make_study, make_trial


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Thirty trials, and one that diverged."""
    folder = tmp_path_factory.mktemp("figures")
    stored = make_study(folder, 30)
    add(stored, outcome="diverged", error="the loss is nan")
    return collect_findings(stored, artifacts=folder)


def empty(folder: Path) -> Findings:
    return collect_findings(make_study(folder), artifacts=folder)


def traces(plot: Plot) -> dict[str, Any]:
    assert plot.figure is not None, plot.note
    return {t.name: t for t in plot.figure.data if t.name}


def numbers(values: Any) -> list[float]:
    return [v for v in values if v is not None]


# -- the search


def test_each_trial_stands_in_the_history_by_how_it_ended(found: Findings) -> None:
    shown = traces(figures.history_plot(found))
    assert list(shown["pruned"].x) == list(range(2, 30, 3))
    assert len(shown["complete"].x) == 20
    assert (list(shown["ended badly"].x), list(shown["ended badly"].y)) == ([30], [BASELINE_DB])
    assert set(shown["baseline"].y) == {BASELINE_DB}
    assert shown["best"].y[0] == found.best[0].psnr_db


def test_the_best_so_far_only_rises_and_leaves_pruned_trials_out(found: Findings) -> None:
    line = traces(figures.history_plot(found))["best so far"]
    assert all(a <= b for a, b in itertools.pairwise(line.y))
    complete = {r.row.number: r.psnr_db for r in found.runs if r.row.state == "complete"}
    for number, best in zip(line.x, line.y, strict=True):
        assert best == max(v for n, v in complete.items() if n <= number)


def test_a_pruned_trial_better_than_all_is_not_the_best_so_far(tmp_path: Path) -> None:
    stored = make_study(tmp_path)
    add(stored, TrialState.PRUNED, value=99.0, epochs=1)
    add(stored, value=20.0)
    shown = traces(figures.history_plot(collect_findings(stored, artifacts=tmp_path)))
    assert list(shown["best so far"].y) == [20.0]


def test_every_curve_is_drawn_and_the_best_once_more(found: Findings) -> None:
    shown = traces(figures.curves_plot(found))
    assert len(numbers(shown["pruned"].x)) == 10 * 3
    assert len(numbers(shown["complete"].x)) == 21 * EPOCHS
    assert list(shown["best"].y)[:-1] == list(found.best[0].reports.values())


def test_of_a_thousand_curves_200_are_drawn_the_best_among_them_and_the_page_says_so(
    found: Findings,
) -> None:
    many = [
        replace(r, row=replace(r.row, number=30 * k + r.row.number, psnr_db=r.psnr_db - k / 100))
        for k in range(40)
        for r in found.runs[:30]
    ][:1000]
    best = sorted((r for r in many if r.is_good), key=lambda r: -r.psnr_db)
    found = replace(found, runs=tuple(many), best=tuple(best))
    plot = figures.curves_plot(found)
    shown = traces(plot)
    gaps = [list(shown[k].x).count(None) for k in ("pruned", "complete")]
    assert sum(gaps) == figures.MOST_CURVES
    assert "200 of 1,000 curves" in plot.note
    texts = set(shown["complete"].text)
    for run in best[:100]:
        assert any(f"trial {run.row.number}</b>" in t for t in texts)
    assert parameter_plots.parallel_plot(found).note.endswith("Drawn: 200 of 667 trials.")


# -- the parameters


def test_what_matters_is_found_to_be_important(found: Findings) -> None:
    shares = found.importances.shares
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    names = {p.name for p in found.spec.space}
    assert names - set(shares) <= {"l1_weight"}  # conditional: Optuna before 5.0 leaves it out
    plot = parameter_plots.importances_plot(found)
    assert list(plot.figure.data[0].y)[-1] == "learning_rate", "the first stands on top"
    assert "best 12 of 31" in plot.note


def test_a_choice_that_the_pruner_always_stopped_is_found_to_matter(tmp_path: Path) -> None:
    stored = make_study(tmp_path)
    draw = random.Random(0)
    for number in range(24):
        stopped = number % 2 == 1
        trial = make_trial(
            stored.spec,
            draw,
            TrialState.PRUNED if stopped else TrialState.COMPLETE,
            epochs=1 if stopped else EPOCHS,
            value=BASELINE_DB + draw.random() + (0 if stopped else 8),
        )
        trial.params["activation"] = "tanh" if stopped else "relu"
        stored.study.add_trial(trial)
    shares = collect_findings(stored, artifacts=tmp_path).importances.shares
    assert next(iter(shares)) == "activation"
    assert shares["activation"] > 0.5


@pytest.mark.filterwarnings("error:Target and region")
def test_where_most_trials_ended_badly_the_best_are_the_others(tmp_path: Path) -> None:
    stored = make_study(tmp_path)
    for number in range(24):
        bad = {"outcome": "dead", "error": "constant"} if number < 14 else {}
        add(stored, value=BASELINE_DB + number, **bad)
    found = collect_findings(stored, artifacts=tmp_path).importances
    assert (found.top, found.trials) == (10, 24)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert len(set(found.shares.values())) > 1


@pytest.mark.parametrize(("trials", "reason"), [(0, "0 trials"), (9, "9 trials ended")])
def test_too_few_trials_for_importances_are_told(tmp_path: Path, trials: int, reason: str) -> None:
    found = collect_findings(make_study(tmp_path, trials), artifacts=tmp_path)
    plot = parameter_plots.importances_plot(found)
    assert plot.figure is None
    assert reason in plot.note


def test_importances_copy_no_trial() -> None:
    """Optuna's own study in memory takes 0.2 ms for each."""
    trials = [create_trial(value=float(i)) for i in range(3)]
    study = importances._in_memory_study(trials)
    assert all(a is b for a, b in zip(study.get_trials(deepcopy=False), trials, strict=True))
    assert study.get_trials(states=(TrialState.PRUNED,)) == []


def test_equal_results_have_no_importances(tmp_path: Path) -> None:
    stored = make_study(tmp_path)
    for _ in range(12):
        add(stored, value=20.0)
    plot = parameter_plots.importances_plot(collect_findings(stored, artifacts=tmp_path))
    assert plot.figure is None
    assert "same PSNR" in plot.note


def test_a_line_of_the_parallel_coordinates_is_a_completed_trial(found: Findings) -> None:
    plot = parameter_plots.parallel_plot(found)
    lines = [t for t in plot.figure.data if t.mode == "lines"]
    assert sum(list(t.x).count(None) for t in lines) == 20
    assert {t.name for t in lines} == {"lower half", "upper half", "best tenth"}
    rows = len(found.spec.space) + 1
    best = next(t for t in lines if t.name == "best tenth")
    first = list(best.x)[:rows]
    assert first[-1] == 1.0, "the best ends at the right end of the PSNR's row"
    assert all(-0.2 <= x <= 1.1 for t in lines for x in numbers(t.x))


def test_a_trial_without_a_conditional_value_passes_beside_its_row(found: Findings) -> None:
    plot = parameter_plots.parallel_plot(found)
    names = [p.name for p in found.spec.space]
    row = names.index("l1_weight")
    beside = sum(
        x == parameter_plots.NOT_SAMPLED and y == row
        for t in plot.figure.data
        for x, y in zip(t.x, t.y, strict=True)
    )
    assert beside == sum("l1_weight" not in r.row.params for r in found.best) > 0


def test_names_in_the_parallel_coordinates_stand_beside_the_lines(found: Findings) -> None:
    layout = parameter_plots.parallel_plot(found).figure.layout
    names = [a for a in layout.annotations if a.text.startswith("<b>")]
    assert {(a.xref, a.x, a.xanchor) for a in names} == {("paper", 0, "right")}
    assert [a.text for a in names if "rate" in a.text] == ["<b>learning_<br>rate</b>"]
    longest = max(len(line) for a in names for line in a.text[3:-4].split("<br>"))
    assert 6.5 * longest < layout.margin.l < 140, "room for them, and on a phone for the lines"
    ends = {a.xanchor for a in layout.annotations if a.xref != "paper" and a.x == 1}
    assert ends == {"right"}, "within the plot"


def test_slices_have_the_parameter_s_own_axis(found: Findings) -> None:
    plots = {p.title: p.figure for p in parameter_plots.slice_plots(found)}
    assert list(plots) == [p.name for p in found.spec.space]
    assert plots["learning_rate"].layout.xaxis.type == "log"
    assert plots["batch_size"].layout.xaxis.type is None
    assert list(plots["channels"].layout.xaxis.ticktext) == ["[4, 8]", "[16]"]
    heights = {tuple(f.layout.yaxis.range) for f in plots.values()}
    assert len(heights) == 1, "so that they compare"
    sampled = sum("l1_weight" in r.row.params for r in found.runs)
    marked = sum(
        len(t.x) for t in plots["l1_weight"].data if t.name in ("pruned", "complete", "ended badly")
    )
    assert marked == sampled


# -- the best trials


def test_losses_are_the_recorded_ones_of_the_best_five(found: Findings) -> None:
    plot = figures.losses_plot(found)
    assert len(plot.figure.data) == 2 * figures.TOP_TRIALS
    first = found.best[0]
    assert list(plot.figure.data[0].y) == list(first.history["val_mse"])
    assert list(plot.figure.data[1].y) == list(first.history["train_mse"])
    assert plot.figure.layout.yaxis.type == "log"


def test_a_study_without_histories_says_so(tmp_path: Path) -> None:
    stored = make_study(tmp_path)
    add(stored, outcome="diverged")
    found = collect_findings(stored, artifacts=tmp_path)
    assert figures.losses_plot(found).figure is None
    assert "Not recorded" in figures.losses_plot(found).note


# -- all


def test_an_empty_study_has_reasons_in_the_place_of_figures(tmp_path: Path) -> None:
    found = empty(tmp_path)
    makers = (
        figures.history_plot,
        figures.curves_plot,
        figures.losses_plot,
        figures.sparsity_plot,
        parameter_plots.importances_plot,
        parameter_plots.parallel_plot,
    )
    for make in makers:
        plot = make(found)
        assert plot.figure is None
        assert plot.note
    assert parameter_plots.slice_plots(found) == []


def test_a_study_that_searches_nothing_has_a_history(tmp_path: Path) -> None:
    document = {k: v for k, v in DOCUMENT.items() if k not in ("model", "train")}
    stored = make_study(tmp_path, document=document)
    add_fixed(stored, 20.0)
    add_fixed(stored, 21.0)
    found = collect_findings(stored, artifacts=tmp_path)
    assert list(traces(figures.history_plot(found))["complete"].y) == [20.0, 21.0]
    assert parameter_plots.parallel_plot(found).figure is None
    assert parameter_plots.slice_plots(found) == []


def add_fixed(stored: StoredStudy, value: float) -> None:
    from optuna.trial import create_trial

    stored.study.add_trial(create_trial(value=value, intermediate_values={1: value}))


def test_text_that_looks_like_html_is_text_in_a_figure(tmp_path: Path) -> None:
    assert drawing.escape_plotly_text("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-5, 1e-1, ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        (1e-7, 1e-2, ["1e-07", "1e-05", "0.001"]),
        (0.003, 0.04, ["0.005", "0.01", "0.02"]),
        (0.021, 0.045, ["0.025", "0.03", "0.035", "0.04", "0.045"]),
        (0.003, 0.0032, ["0.003", "0.00305", "0.0031", "0.00315", "0.0032"]),
        (0.0311, 0.0311, ["0.0311"]),
        (1e-310, 2e-310, ["1e-310", "2e-310"]),
        (0.0311, math.nextafter(0.0311, 1), ["0.0311"]),
        (1_000_000, 1_000_005, ["1e+06"]),
        (2, 99, ["2", "5", "10", "20", "50"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_numbers_that_people_write(
    low: float, high: float, ticks: list[str]
) -> None:
    axis = log_axis(low, high)
    inside = [
        text
        for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
        if low * 0.999 <= value <= high * 1.001
    ]
    assert inside == ticks


@pytest.mark.parametrize("low", [0.01001, 0.2, 0.95, 3.0, 6e-5])
@pytest.mark.parametrize("times", [1.001, 1.05, 1.3, 2.0, 4.7, 9.9, 40.0])
def test_a_logarithmic_axis_has_some_ticks_but_not_many(low: float, times: float) -> None:
    axis = log_axis(low, low * times)
    inside = [
        text
        for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
        if low <= value <= low * times
    ]
    assert 2 <= len(inside) <= 6
    assert len(set(inside)) == len(inside)
