"""What a notebook shows: progress, the head of the report, comparisons, and short errors."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from searchae import errors
from searchae.report import collect_findings, figure_by_name, notebook_head, notebook_table
from searchae.tuning import NotebookProgress, PlainLines, notebook_progress
from tests.reported_study import make_study
from tests.unit.test_cli_console import ROW, SUMMARY

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes[tag] = dict(attrs)


class Display:
    """Stands where IPython's ``display`` is: it keeps what is shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def display(self, what: Any, *, display_id: bool) -> Display:
        assert display_id
        self.shown.append(what._repr_mimebundle_())
        return self

    def update(self, what: Any) -> None:
        self.shown[-1] = what._repr_mimebundle_()


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Display:
    """A cell's output."""
    found = Display()
    ipython, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    vars(module)["display"] = found.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return found


def test_the_progress_takes_one_place_and_ends_with_the_last_state(cell: Display) -> None:
    progress = NotebookProgress()
    progress.note("study 'tiny' created")
    for number in range(20):
        progress.trial(replace(ROW, number=number), best_db=None)
    progress.progress(SUMMARY)
    (shown,) = cell.shown
    text, html = shown["text/plain"], shown["text/html"]
    assert "study 'tiny' created" in text
    assert "trial  19" in text
    assert "trial  14" not in text, "the last five only"
    bar = Tags(html).attributes["progress"]
    assert bar["value"] == str(SUMMARY.counts.finished)
    assert bar["max"] == str(SUMMARY.counts.budget)


def test_of_trainings_the_bar_shows_the_epochs(cell: Display) -> None:
    progress = NotebookProgress(epochs=50)
    running = replace(ROW, state="running", epochs=20, seed=3)
    progress.progress(replace(SUMMARY, trainings_of="tiny", rows=(running,)))
    assert "20 of at most 50 epochs" in cell.shown[0]["text/plain"]
    assert "seed 3: epoch 20, validation 21.34 dB" in cell.shown[0]["text/plain"]
    assert Tags(cell.shown[0]["text/html"]).attributes["progress"]["max"] == "50"


def test_names_from_a_database_are_shown_as_text(cell: Display) -> None:
    progress = NotebookProgress()
    progress.note(EVIL)
    progress.trial(replace(ROW, params={EVIL: EVIL}), best_db=None)
    progress.progress(replace(SUMMARY, study=EVIL, warnings=(EVIL,)))
    assert "script" not in Tags(cell.shown[0]["text/html"]).found
    assert "script" not in Tags(notebook_table([EVIL], [((EVIL, "b"), [(EVIL, "c")])])).found


def test_a_process_without_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook_progress.in_notebook()
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert notebook_progress.in_notebook()
    shell.get_ipython = types.SimpleNamespace  # type: ignore[attr-defined]  # a terminal's
    assert not notebook_progress.in_notebook()


def test_a_script_gets_a_line_a_trial_and_a_sign_of_life_a_minute() -> None:
    now = [0.0]
    lines: list[str] = []
    plain = PlainLines(lines.append, clock=lambda: now[0])
    plain.note("hello")
    plain.progress(SUMMARY)
    now[0] = 59.0
    plain.trial(ROW, best_db=None)
    now[0] = 100.0
    plain.progress(SUMMARY)
    assert [line[:7] for line in lines] == ["hello", "trial  "]
    now[0] = 120.0
    plain.progress(SUMMARY)
    plain.progress(SUMMARY)
    assert lines[2:] == [f"tiny: {lines[2].partition(': ')[2]}"]
    assert "of 10 trials" in lines[2]


def test_the_head_of_the_report_says_what_was_found_and_escapes_it(tmp_path: Path) -> None:
    stored = make_study(tmp_path, 6)
    found = collect_findings(stored, artifacts=None)
    html = notebook_head(found)
    assert f"{found.best[0].psnr_db:.2f} dB" in html
    assert "style=" in html
    assert "color: inherit" in html, "legible in light and in dark notebooks"
    evil = replace(found, summary=replace(found.summary, study=EVIL, warnings=(EVIL,)))
    tags = set(Tags(notebook_head(evil)).found)
    assert not tags & {"script", "link", "img", "iframe", "style", "a"}
    assert len(html) < 10_000


def test_figures_have_names_and_titles(tmp_path: Path) -> None:
    stored = make_study(tmp_path, 6)
    found = collect_findings(stored, artifacts=None)
    assert figure_by_name(found, "history").layout.title.text == "PSNR by trial"
    assert figure_by_name(found, "slice-activation").layout.title.text == "PSNR by activation"
    with pytest.raises(errors.UserError, match=r"did you mean 'curves'\? Valid: .*history"):
        figure_by_name(found, "curvs")


def test_a_figure_without_anything_to_draw_says_why(tmp_path: Path) -> None:
    found = collect_findings(make_study(tmp_path), artifacts=None)
    with pytest.raises(errors.UserError, match="No trial has ended an epoch yet"):
        figure_by_name(found, "history")


def test_ipython_shows_an_error_as_the_user_s_line_and_the_message() -> None:
    try:
        raise errors.SpecError("mine.toml: train.epochs: no", "mine.toml: seed: no")  # this line
    except errors.SpecError as e:
        shown = e._render_traceback_()
    assert shown[-1] == "SpecError: mine.toml: train.epochs: no\nmine.toml: seed: no"
    assert "# this line" in shown[0]
    assert len(shown) == 2


def test_an_interrupt_is_one_line_too() -> None:
    assert errors.SearchInterrupt("go on")._render_traceback_() == ["interrupted: go on"]
    assert issubclass(errors.SearchInterrupt, KeyboardInterrupt)
