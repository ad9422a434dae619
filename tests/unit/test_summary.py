"""Summaries of a study, from trials made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config.loader import spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.search import distributions
from searchae.storage.connection import connect
from searchae.study.attributes import OUTCOME, WARM_START
from searchae.study.coordination import Coordinator
from searchae.study.epoch_history import HISTORY, HISTORY_COLUMNS
from searchae.study.stored_study import StoredStudy, open_study
from searchae.study.summary import Summary, TrialRow, best_of, summarize, trial_row
from searchae.study.work_time import wall_seconds

START = datetime(2026, 1, 1, 12)


def read(trials: int = 10, **searched_by: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "model": {"channels": {"choices": [[4, 8], [16]]}},
        "train": {"epochs": 10, "optimizer": {"choices": ["adam", "sgd"]}},
        "search": {"trials": trials, **searched_by},
    }
    return spec_from_document(document, source="test")


SPEC = read()


def trial(
    state: TrialState = TrialState.COMPLETE,
    psnr_db: float = 20.0,
    *,
    epochs: int = 10,
    spec: StudySpec = SPEC,
    **attributes: str,
) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=psnr_db if state == TrialState.COMPLETE else None,
        params={"optimizer": "sgd", "channels": "[16]"},
        distributions={p.name: distributions.to_distribution(p) for p in spec.space},
        intermediate_values={e: psnr_db - (epochs - e) for e in range(1, epochs + 1)},
        user_attrs={f"searchae:{k}": v for k, v in attributes.items()},
    )
    made.datetime_start = START
    if state.is_finished():
        made.datetime_complete = START + timedelta(seconds=90)
    return made


def row(number: int, psnr_db: float | None, state: str = "complete", outcome: str = "") -> TrialRow:
    return TrialRow(number, state, psnr_db, {}, 10, outcome, 1.0, imported=False)


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    storage = connect(f"sqlite:///{tmp_path}/s.db")
    return open_study(storage, "s", spec=SPEC, data_hash="0" * 64, baseline_db=10.0)[0]


def summary_of(stored: StoredStudy, *trials: FrozenTrial) -> Summary:
    for made in trials:
        stored.study.add_trial(made)
    return summarize(stored, Coordinator(stored))


# -- one trial


def test_a_trial_in_searchae_s_words() -> None:
    assert trial_row(SPEC, trial()) == TrialRow(
        number=-1,
        state="complete",
        psnr_db=20.0,
        params={"channels": [16], "optimizer": "sgd"},
        epochs=10,
        outcome="",
        seconds=90.0,
        imported=False,
    )


def test_a_trial_without_a_value_shows_its_last_report() -> None:
    pruned = trial_row(SPEC, trial(TrialState.PRUNED, 12.5, epochs=3))
    assert (pruned.state, pruned.psnr_db, pruned.epochs) == ("pruned", 12.5, 3)
    running = trial_row(SPEC, trial(TrialState.RUNNING, epochs=0))
    assert (running.psnr_db, running.epochs, running.seconds) == (None, 0, None)


def test_failure_and_origin_are_told() -> None:
    lost = trial_row(SPEC, trial(TrialState.FAIL, outcome="lost"))
    assert (lost.state, lost.outcome) == ("failed", "lost")
    assert trial_row(SPEC, trial(warm_start="other #3")).imported
    assert (OUTCOME, WARM_START) == ("searchae:outcome", "searchae:warm_start")


# -- the best


def test_the_best_has_the_highest_psnr_and_came_first() -> None:
    found = best_of([row(0, 20.0), row(1, 25.0), row(2, 25.0), row(3, None)])
    assert found is not None
    assert found.number == 1


def test_only_a_whole_training_can_be_the_best() -> None:
    bad = [row(0, 30.0, "pruned"), row(1, 31.0, "running"), row(2, 32.0, outcome="diverged")]
    assert best_of(bad) is None
    found = best_of([*bad, row(3, 1.0)])
    assert found is not None
    assert found.number == 3
    assert best_of([]) is None


# -- a study


def test_a_summary_reads_the_study_s_attributes_once(stored: StoredStudy) -> None:
    stored.study.add_trial(trial())
    coordinator, seen = Coordinator(stored), []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engine = stored.storage.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        summarize(stored, coordinator)
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    reads = [s for s in seen if "FROM" in s]
    assert sum("study_user_attributes" in s for s in reads) == 1
    assert sum("searchae_workers" in s for s in reads) == 1
    trials = [s for s in reads if "study_user_attributes" not in s and "searchae_" not in s]
    assert trials, "Optuna reads the trials"
    assert not any("count(" in s.lower() for s in reads), "counted from the trials that were read"


def test_an_empty_study(stored: StoredStudy) -> None:
    summary = summary_of(stored)
    assert summary.best is None
    assert (summary.epochs_run, summary.epochs_full, summary.epochs_saved) == (0, 0, 0)
    assert summary.wall_s == 0.0
    assert (summary.outcomes, summary.workers, summary.warnings) == ({}, (), ())
    assert (summary.study, summary.baseline_db, summary.counts.budget) == ("s", 10.0, 10)


def test_epochs_are_counted_by_what_finished_trials_did_not_run(stored: StoredStudy) -> None:
    summary = summary_of(
        stored,
        trial(epochs=10),
        trial(epochs=6),  # a plateau
        trial(TrialState.PRUNED, epochs=3),
        trial(TrialState.FAIL, epochs=2, outcome="lost"),
        trial(TrialState.RUNNING, epochs=5),
        trial(epochs=10, warm_start="other #1"),
    )
    assert summary.epochs_run == 10 + 6 + 3 + 2 + 5
    assert summary.epochs_full == 30
    assert summary.epochs_saved == 30 - (10 + 6 + 3)


def test_imported_trials_are_not_the_study_s_own(stored: StoredStudy) -> None:
    imported = trial(psnr_db=99.0, warm_start="other #1")
    imported.datetime_start = START - timedelta(days=1)
    summary = summary_of(stored, imported, trial(psnr_db=20.0))
    assert summary.best is not None
    assert summary.best.psnr_db == 20.0
    assert summary.wall_s == 90.0


def ran(begin_s: float, end_s: float | None, *, trained_s: float | None = None) -> FrozenTrial:
    """A trial by when it ran, in seconds since ``START``; running without an end."""
    made = trial(TrialState.COMPLETE if end_s is not None else TrialState.RUNNING)
    made.datetime_start = START + timedelta(seconds=begin_s)
    made.datetime_complete = None if end_s is None else START + timedelta(seconds=end_s)
    if trained_s is not None:
        made.set_user_attr(HISTORY, {c: [trained_s / 2, trained_s / 2] for c in HISTORY_COLUMNS})
    return made


@pytest.mark.parametrize(
    ("trials", "worked_for_s", "expected_s"),
    [
        ([], None, 0.0),
        ([(0, 90), (60, 200)], None, 200.0),
        ([(0, 90), (10, 20), (80, 100)], None, 100.0),
        ([(0, 90), (7200, 7260)], None, 150.0),
        ([(0, 86_460, 100.0)], None, 100.0),
        ([(0, 120, 100.0)], None, 120.0),
        ([(0, 90), (10, None)], 30.0, 120.0),
        ([(0, 90), (10, None)], None, 90.0),
        ([(86_390, None)], 1000.0, 10.0),
    ],
    ids=["none", "after", "within", "pause", "resumed", "slow", "resumes", "killed", "running"],
)
def test_wall_time_leaves_pauses_out(
    trials: list[tuple[Any, ...]], worked_for_s: float | None, expected_s: float
) -> None:
    """It is a day after ``START``."""
    made = [ran(t[0], t[1], trained_s=t[2] if len(t) > 2 else None) for t in trials]
    now = START + timedelta(days=1)
    assert wall_seconds(made, now=now, worked_for_s=worked_for_s) == expected_s


def test_bad_ends_are_counted_by_how(stored: StoredStudy) -> None:
    summary = summary_of(
        stored,
        trial(outcome="diverged"),
        trial(outcome="diverged"),
        trial(outcome="out-of-memory"),
        trial(),
    )
    assert summary.outcomes == {"diverged": 2, "out-of-memory": 1}


def test_choices_that_no_trial_has_had_are_named(stored: StoredStudy) -> None:
    assert summary_of(stored, trial()).untried == {"channels": [[4, 8]], "optimizer": ["adam"]}
    other = trial()
    other.params = {"optimizer": "adam", "channels": "[4, 8]"}
    assert "untried" not in summary_of(stored, other).document()


def test_the_json_object_is_the_documented_one(stored: StoredStudy) -> None:
    summary = summary_of(stored, trial(psnr_db=21.0), trial(TrialState.PRUNED, epochs=4))
    document = json.loads(json.dumps(summary.document()))
    assert document == {
        "study": "s",
        "storage": summary.storage,
        "budget": 10,
        "trials": {"complete": 1, "pruned": 1, "failed": 0, "running": 0, "waiting": 0},
        "best": {
            "number": 0,
            "psnr_db": 21.0,
            "params": {"channels": [16], "optimizer": "sgd"},
        },
        "baseline_db": 10.0,
        "gain_db": 0.0,
        "outcomes": {},
        "untried": {"channels": [[4, 8]], "optimizer": ["adam"]},
        "epochs": {"run": 14, "full": 20, "saved": 6, "repeated": 0},
        "wall_s": 90.0,
        "seconds_left": None,
        "warnings": [],
    }
    assert replace(summary, best=None).document()["best"] is None


def test_a_trial_s_seconds_are_those_of_its_epochs_not_of_the_time_it_lay_waiting() -> None:
    made = trial()
    history = {name: [1.0, 1.0] for name in HISTORY_COLUMNS} | {"seconds": [2.5, 4.0]}
    made.user_attrs[HISTORY] = history
    assert trial_row(SPEC, made).seconds == 6.5
    assert trial_row(SPEC, trial()).seconds == 90.0, "without a stored history"


# -- warnings


def test_trials_put_back_without_a_worker_are_spoken_of(stored: StoredStudy) -> None:
    waiting = warnings(stored, trial(TrialState.WAITING))
    assert (
        "1 trial waiting to be continued, and no worker is alive: the same `searchae tune`"
        in waiting
    )
    assert "to be continued" not in warnings(stored, trial(TrialState.RUNNING))


def warnings(stored: StoredStudy, *trials: FrozenTrial) -> str:
    return "\n".join(summary_of(stored, *trials).warnings)


def test_a_search_that_prunes_nothing_is_told_why(stored: StoredStudy) -> None:
    many = [trial() for _ in range(50)]
    assert "50 trials ended and none was pruned: no trial was worse" in warnings(stored, *many)
    assert "none was pruned" not in warnings(stored, trial(TrialState.PRUNED, epochs=1))


def test_many_bad_ends_are_told(stored: StoredStudy) -> None:
    bad = [trial(outcome="diverged") for _ in range(6)]
    assert "without a result" not in warnings(stored, *bad, *[trial() for _ in range(6)])
    told = warnings(stored, trial(outcome="diverged"))
    assert "7 of 13 trials ended without a result: the ranges may reach too far" in told


def test_a_spent_budget_without_a_whole_training_is_told(stored: StoredStudy) -> None:
    pruned = [trial(TrialState.PRUNED, epochs=1) for _ in range(9)]
    assert warnings(stored, *pruned) == ""
    told = warnings(stored, trial(TrialState.PRUNED, epochs=1))
    assert told == "no trial trained to its end: raise --trials or train fewer epochs"


def test_a_search_that_has_learned_nothing_says_so_once_it_is_over(stored: StoredStudy) -> None:
    below = [trial(psnr_db=9.0) for _ in range(9)]
    assert warnings(stored, *below) == "", "it goes on"
    told = warnings(stored, trial(psnr_db=10.0))
    assert "no trial came above the mean training image (10.00 dB)" in told
    assert "train.epochs" in told
