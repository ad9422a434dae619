"""The lines that a person reads."""

from __future__ import annotations

import io
import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from searchae import formatting
from searchae.cli import console, database, progress
from searchae.cli.terminal import LineFormatter
from searchae.errors import SpecError
from searchae.report import escape_plotly_text, html_table
from searchae.storage import password_file
from searchae.study import study_line, trial_line
from searchae.study.budget import TrialCounts
from searchae.study.overview import StudyOverview
from searchae.study.summary import Summary, TrialRow
from searchae.study.worker_registry import WorkerInfo

ROW = TrialRow(
    number=7,
    state="complete",
    psnr_db=21.3449,
    params={"activation": "relu", "channels": [4, 8], "learning_rate": 0.00123456},
    epochs=20,
    outcome="",
    seconds=3.14159,
    imported=False,
)
SUMMARY = Summary(
    study="tiny",
    storage="postgresql+psycopg://me:***@db/s",
    counts=TrialCounts(budget=10, complete=4, pruned=3, failed=1, running=2, waiting=0),
    best=ROW,
    outcomes={"diverged": 2, "dead": 1, "lost": 1},
    baseline_db=11.0,
    epochs_run=93,
    epochs_repeated=0,
    epochs_full=140,
    epochs_saved=35,
    wall_s=754.0,
    workers=(
        WorkerInfo(
            worker="far-1",
            host="far",
            pid=11,
            device="cuda:1",
            trial=8,
            epoch=3,
            age_s=65.0,
            silent_s=1.4,
        ),
        WorkerInfo(
            worker="far-2",
            host="far",
            pid=12,
            device="cpu",
            trial=None,
            epoch=None,
            age_s=2.0,
            silent_s=0.1,
        ),
    ),
    warnings=("the [ranges] may reach too far",),
    rows=(
        ROW,
        replace(ROW, number=8, state="running", psnr_db=17.5, epochs=3, worker="far-1"),
        *(
            replace(ROW, number=number, state=state, outcome=outcome)
            for number, state, outcome in (
                (2, "complete", "diverged"),
                (3, "complete", "diverged"),
                (4, "complete", "dead"),
                (5, "failed", "lost"),
            )
        ),
    ),
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (3.14159, "3.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60.0, "1 min 00 s"),
        (754.4, "12 min 34 s"),
        (3599.6, "1 h 00 min"),
        (3600.0 * 25 + 61, "25 h 01 min"),
    ],
)
def test_a_duration_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert formatting.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"choices": ["adam", "sgd"]}, "adam, sgd"),
        ({"choices": [[4, 8], [16]]}, "[4, 8], [16]"),
        ({"choices": [0.25, True]}, "0.25, True"),
        ({"low": 1e-5, "high": 0.1, "log": True}, "1e-05 to 0.1 (log)"),
        ({"low": 4, "high": 64}, "4 to 64"),
    ],
)
def test_a_range_in_words(document: dict[str, Any], text: str) -> None:
    assert console._range(document) == text


def test_a_trial_in_one_line() -> None:
    line = trial_line(ROW, best_db=25.0)
    assert line == (
        "trial   7  complete  21.34 dB   20 epochs   3.1 s  "
        "activation=relu channels=[4, 8] learning_rate=0.00123"
    )


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_on_a_narrow_terminal_a_trial_s_line_is_broken_between_words(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    monkeypatch.setenv("COLUMNS", str(columns))
    progress.ProgressDisplay().trial(ROW, best_db=None)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= columns
    whole = trial_line(ROW, best_db=None)
    assert " ".join(lines).split() == whole.split(), "no word is cut"
    assert all(line.startswith(" " * progress.INDENT) for line in lines[1:])
    assert (len(lines) == 1) == (columns > len(whole))


def test_the_best_is_marked_and_only_it() -> None:
    best_db = ROW.psnr_db
    assert trial_line(ROW, best_db=best_db).endswith("  <- best")
    for other in (
        replace(ROW, psnr_db=20.0),
        replace(ROW, state="pruned"),
        replace(ROW, outcome="diverged"),
    ):
        assert "best" not in trial_line(other, best_db=best_db)
    assert "best" not in trial_line(ROW, best_db=None)


def test_a_trial_that_ended_badly_says_how_and_needs_no_value() -> None:
    row = replace(ROW, psnr_db=None, outcome="diverged", epochs=0, seconds=None)
    line = trial_line(row, best_db=None)
    assert line.startswith("trial   7  diverged      -       0 epochs ")


def test_columns_stand_below_each_other() -> None:
    rows = [ROW, replace(ROW, psnr_db=None), replace(ROW, state="pruned", number=123, epochs=2)]
    places = {trial_line(r, best_db=None).index("epochs") for r in rows}
    assert len(places) == 1


def test_a_summary_tells_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_summary(SUMMARY, workers=True)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "study      tiny  (postgresql+psycopg://me:***@db/s)",
        "trials     7 of 10: 4 complete, 3 pruned, 1 failed, 2 running",
        "           of the 4 complete: 2 diverged (its loss or weights became infinite), 1 dead "
        "(its net gave the same picture for every image and could no longer learn)",
        "           of the 1 failed: 1 lost (its workers were lost, time and again)",
        "epochs     93 run, 35 of 140 saved by stopping trials early (25%)",
        "wall time  12 min 34 s",
        "baseline   11.00 dB  (the mean training image for every image)",
        "best       21.34 dB, 10.34 dB above the baseline: trial 7, "
        "activation=relu channels=[4, 8] learning_rate=0.00123",
        "gain       none: no trial is better than the first trial (trial 7)",
        "workers    2 alive",
        "  far pid 11 on cuda:1: trial 8, epoch 3 done; up 1 min 05 s, last seen 1 s ago",
        "  far pid 12 on cpu: idle; up 2.0 s, last seen 0 s ago",
        "warning    the [ranges] may reach too far",
    ]


def test_trials_of_another_program_are_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Enqueued ones failed, added ones are complete; neither is part of the budget."""
    rows = tuple(
        replace(ROW, number=20 + i, state=state, outcome="invalid")
        for i, state in enumerate(("failed", "complete", "complete"))
    )
    outcomes = {**SUMMARY.outcomes, "invalid": 3}
    counts = replace(SUMMARY.counts, failed=SUMMARY.counts.failed + 1)
    console.print_summary(replace(SUMMARY, rows=rows, outcomes=outcomes, counts=counts))
    assert (
        "trials     7 of 10: 4 complete, 3 pruned, 1 failed, 2 running; "
        "3 of another program, invalid and not counted\n"
    ) in capsys.readouterr().out


def test_a_summary_of_nothing_shows_zeros_and_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = TrialCounts(budget=10, complete=0, pruned=0, failed=0, running=0, waiting=0)
    empty = replace(
        SUMMARY,
        counts=nothing,
        best=None,
        outcomes={},
        rows=(),
        epochs_full=0,
        epochs_saved=0,
        warnings=(),
    )
    console.print_summary(empty)
    out = capsys.readouterr().out
    assert "trials     0 of 10: 0 complete, 0 pruned\n" in out
    assert "best" not in out
    assert "workers" not in out
    assert "%" not in out


def test_the_time_of_trials_that_were_all_put_back_is_not_called_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_summary(replace(SUMMARY, wall_s=0.0, epochs_run=4))
    assert "wall time  not known until a trial has ended\n" in capsys.readouterr().out


def test_the_best_trial_a_parameter_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_best(ROW)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "trial 7: 21.345 dB on the validation split, 20 epochs"
    assert [line.split(maxsplit=1) for line in others] == [
        ["activation", "relu"],
        ["channels", "[4, 8]"],
        ["learning_rate", "0.00123"],
    ]


def test_studies_are_listed_also_where_a_file_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {
        "good": 'description = "Größe"'.encode(),
        "latin": 'description = "Größe"'.encode("latin-1"),
        "broken": b"description =",
    }
    files = {name: tmp_path / f"{name}.toml" for name in (*contents, "absent")}
    for name, content in contents.items():
        files[name].write_bytes(content)
    console.print_studies(files, [])
    out = capsys.readouterr().out
    assert "  good           Größe" in out
    assert out.count("(cannot be read: ") == 3
    assert out.endswith("  none yet\n")
    studies = [
        StudyOverview(
            "one",
            finished=3,
            budget=10,
            running=2,
            best_db=21.34,
            complete=2,
            pruned=1,
            created="2026-01-02T12:00:00+00:00",
            last_trial="2026-01-04T12:00:00+00:00",
            artifact_bytes=12_300_000,
        ),
        StudyOverview("one.trainings", finished=1, budget=4, trainings_of="one"),
        StudyOverview("two", fault="not made by searchae"),
    ]
    console.print_studies({}, studies)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "  one            3 of 10 trials, 2 running, best 21.34 dB (2 complete, 1 pruned; "
        "2026-01-02 to 2026-01-04; 12.3 MB of files)",
        "  one.trainings  1 of 4 trainings of one (0 complete, 0 pruned)",
        "  two            cannot be read: not made by searchae",
    ]


def test_progress_off_a_terminal_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.ProgressDisplay() as shown:
        shown.note("fetching [svhn]")
        shown.trial(ROW, best_db=None)
        shown.progress(SUMMARY)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[:2] == [
        "fetching [svhn]",
        trial_line(ROW, best_db=None),
    ]
    assert "\x1b" not in captured.err


def test_a_long_silence_off_a_terminal_is_broken_by_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    with progress.ProgressDisplay(clock=lambda: now[0]) as shown:
        shown.progress(SUMMARY)
        now[0] = 59.0
        shown.progress(SUMMARY)
        assert capsys.readouterr().err == ""
        now[0] = 61.0
        shown.progress(SUMMARY)
        now[0] = 100.0
        shown.progress(SUMMARY)
    assert capsys.readouterr().err.splitlines() == [
        "tiny: 7 of 10 trials, 2 running, 3 pruned, 25% of the epochs saved, "
        "best 21.34 dB (trial 7), 2 workers"
    ]


def test_the_panel_shows_each_worker_and_the_best_in_a_narrow_terminal_too() -> None:
    summary = replace(SUMMARY, to_go_s=90.0, seconds_left=7200.0)
    paper = io.StringIO()
    Console(width=60, file=paper).print(progress.study_panel(summary))
    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    text = " ".join(paper.getvalue().split())
    assert "best 21.34 dB, 10.34 dB above the baseline, trial 7:" in text
    (busy,) = [line for line in lines if "far 11" in line]
    assert busy.split() == ["far", "11", "cuda:1", "trial", "8", "epoch", "4", "17.50", "dB"]
    (idle,) = [line for line in lines if "far 12" in line]
    assert idle.split() == ["far", "12", "cpu", "idle"]


def test_one_line_says_how_far_it_is_and_how_long_it_takes() -> None:
    line = study_line(replace(SUMMARY, to_go_s=90.0, seconds_left=7200.0))
    assert "about 1 min 30 s to go, 2 h 00 min of --max-hours left, best 21.34 dB" in line


@pytest.mark.parametrize(
    ("first_db", "text"),
    [
        (20.0, "gain       1.34 dB better than the first trial (trial 0)"),
        (21.34, "gain       none: no trial is better than the first trial (trial 0)"),
        (None, ""),
    ],
)
def test_what_the_search_gained_over_its_first_trial(
    first_db: float | None, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = replace(ROW, number=0, psnr_db=first_db)
    console.print_summary(replace(SUMMARY, rows=(first, ROW)))
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gain")]
    assert shown == ([text] if text else [])


def test_choices_never_tried_are_said_once_the_search_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    untried: dict[str, list[Any]] = {"activation": ["elu", "silu"], "channels": [[4, 8]]}
    console.print_summary(replace(SUMMARY, untried=untried))
    assert "not tried" not in capsys.readouterr().out, "they may still be"
    over = replace(SUMMARY.counts, complete=SUMMARY.counts.complete + 3)
    console.print_summary(replace(SUMMARY, untried=untried, counts=over))
    assert "not tried  activation elu and silu; channels [4, 8]\n" in capsys.readouterr().out


def test_epochs_of_trials_that_have_not_ended_are_told_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_summary(replace(SUMMARY, epochs_run=110))
    said = "\nepochs     110 run (5 of them in trials that have not ended), 35 of 140 saved by "
    assert said in capsys.readouterr().out


def test_a_training_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    listed = replace(SUMMARY, trainings_of="tiny")
    console.print_summary(listed)
    assert "\ntrainings  7 of 10: " in capsys.readouterr().out
    assert "7 of 10 trainings listed, 2 running" in study_line(listed)
    line = trial_line(replace(ROW, seed=3), best_db=None)
    assert line.startswith("training   7  complete")
    assert line.endswith(" seed=3 (tuning)"), "one that finds a learning rate"
    line = trial_line(replace(ROW, seed=3, is_measured=True), best_db=None)
    assert line.endswith(" seed=3 (measured)")


@pytest.mark.parametrize(
    ("psnr_db", "other_db", "shown"),
    [(25.484, 12.776, 12.7), (12.0, 12.004, 0.0), (1.0, 2.5, -1.5)],
)
def test_a_difference_is_that_of_the_numbers_shown(
    psnr_db: float, other_db: float, shown: float
) -> None:
    found = formatting.shown_difference(psnr_db, other_db)
    assert f"{found:+.2f}" == f"{shown:+.2f}"
    assert float(f"{psnr_db:.2f}") - float(f"{other_db:.2f}") == pytest.approx(found)


@pytest.mark.parametrize(
    ("shares", "texts"),
    [
        ([0.334, 0.333, 0.333], ["34%", "33%", "33%"]),
        ([0.005, 0.995], ["1%", "99%"]),
        ([1.0], ["100%"]),
        ([], []),
    ],
)
def test_percentages_add_up(shares: list[float], texts: list[str]) -> None:
    found = formatting.format_shares(shares)
    assert sum(int(text.removesuffix("%")) for text in found) == (100 if shares else 0)
    assert found == texts


def test_long_descriptions_wrap_at_a_terminal_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(f"word{i}" for i in range(30))
    path = tmp_path / "mine.toml"
    path.write_text(f'description = "{words}"\n')
    monkeypatch.setenv("COLUMNS", "80")
    console.print_studies({"mine": path}, [])
    assert f"  mine           {words}\n" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.print_studies({"mine": path}, [])
    shown = capsys.readouterr().out.partition("in the storage")[0]
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split()[-30:] == words.split()


TWO_LINES = "one\ntwo"


def test_a_name_of_two_lines_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A name from a database or a file must not look like a line of searchae's own."""
    row = replace(ROW, params={"activation": TWO_LINES}, state=TWO_LINES)
    worker = replace(SUMMARY.workers[0], host=TWO_LINES)
    found = replace(SUMMARY, study=TWO_LINES, best=row, workers=(worker,), warnings=(TWO_LINES,))
    console.print_summary(found, workers=True)
    console.print_best(row)
    console.print_studies({TWO_LINES: Path("none")}, [StudyOverview(TWO_LINES, fault=TWO_LINES)])
    console.print_note(TWO_LINES)
    with progress.ProgressDisplay() as shown:
        shown.note(TWO_LINES)
        shown.trial(row, best_db=None)
    panel = Console(file=io.StringIO(), width=200)
    panel.print(progress.study_panel(found))
    printed = capsys.readouterr()
    assert isinstance(panel.file, io.StringIO)
    text = printed.out + printed.err + panel.file.getvalue()
    assert not [line for line in text.splitlines() if line.strip().startswith("two")]
    assert text.count("one\\ntwo") >= 14


def test_a_log_message_is_one_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 1, "%s: gone", (TWO_LINES,), None)
    assert LineFormatter("%(message)s").format(record) == "one\\ntwo: gone"


def test_an_error_has_the_lines_that_it_was_given() -> None:
    error = SpecError(f"{TWO_LINES}.toml: x", "  second")
    assert str(error) == "one\\ntwo.toml: x\n  second"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_name_of_two_lines_is_one_in_a_page() -> None:
    assert html_table(("a",), [(TWO_LINES,)]).count("one\\ntwo") == 1
    assert escape_plotly_text("<\n") == "&lt;\\n"


def test_a_pipe_among_the_study_files_is_listed_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "x.toml")
    console.print_studies({"x": tmp_path / "x.toml"}, [])
    assert "cannot be read" in capsys.readouterr().out


def test_a_pipe_without_a_password_is_waited_for_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(password_file, "SILENT_S", 0.1)
    monkeypatch.setenv("SEARCHAE_STORAGE_PASSWORD_FILE", str(pipe))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(database.storage_url, "postgresql://me@host/db")
        said = ""
        while "waiting for the password" not in said:
            assert not found.done()
            time.sleep(0.02)
            said += capsys.readouterr().err
        pipe.write_text("secret\n")
        assert found.result().password == "secret"
