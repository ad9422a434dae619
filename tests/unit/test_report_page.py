"""The report as text: what it says, what it escapes, that it asks nobody for anything."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from PIL import Image

from searchae.config.loader import spec_from_document
from searchae.config.toml_text import study_toml
from searchae.formatting import format_duration
from searchae.report import page as report
from searchae.report.findings import Findings, collect_findings
from searchae.report.html_parts import HtmlSection, html_table
from searchae.report.last_comparison import comparison_file, write_comparison_file
from searchae.report.sections import SECTIONS
from searchae.study import gallery
from searchae.study.stored_study import StoredStudy
from tests.reported_study import DOCUMENT, add, make_study

EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Text, tags and links of a page; scripts apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._words: list[str] = []
        self._inside = ""
        self.feed(html)
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self._words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    stored = make_study(folder, 30)
    add(stored, outcome="diverged", error="training diverged: the loss is nan")
    add(stored, outcome="diverged", error="again")
    add(stored, TrialState.FAIL, outcome="lost", error="three workers died", epochs=0)
    return collect_findings(stored, artifacts=folder)


@pytest.fixture(scope="module")
def html(found: Findings) -> str:
    return report.report_page(found)


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


def page_of(stored: StoredStudy, artifacts: Path) -> Reader:
    return Reader(report.report_page(collect_findings(stored, artifacts=artifacts)))


# -- what it says


def test_the_headline_has_the_figures_that_tune_prints(read: Reader, found: Findings) -> None:
    best = found.best[0]
    assert f"best PSNR {best.psnr_db:.2f} dB validation split" in read.text
    gain = f"over the baseline {best.psnr_db - 14.0:+.2f} dB"
    assert f"{gain} the mean training image has 14.00 dB" in read.text
    assert "1 machine cpu" in read.text
    assert "22 complete, 10 pruned, 1 failed" in read.text
    assert f"trial {best.row.number} reached {best.psnr_db:.2f} dB" in read.text


def test_what_the_search_gained_over_its_first_trial_is_said(read: Reader, found: Findings) -> None:
    gain_db = found.summary.shown_gain_db
    assert gain_db is not None
    first = f"the first trial (trial {found.summary.first_number})"
    assert gain_db > 0.005
    assert f"That is {gain_db:.2f} dB above {first}." in read.text
    alone = replace(found, summary=replace(found.summary, best=found.summary.rows[0]))
    assert f"No trial is better than {first}." in Reader(report.report_page(alone)).text


def test_what_is_not_known_is_said_and_how_to_find_out(read: Reader, found: Findings) -> None:
    assert f"whether trial {found.best[0].row.number} is really the best" in read.text
    assert "the best of 33 such values is too high by chance" in read.text
    assert "searchae train --study s --seeds 5 --out DIR" in read.text
    assert "searchae compare --study s" in read.text


def test_sections_come_in_the_order_of_a_reader_s_questions(read: Reader, html: str) -> None:
    order = ["search", "parameters", "best", "comparison", "bad-ends", "provenance"]
    assert re.findall(r'<section id="([^"]+)"', html) == ["result", *order]
    links = [a["href"] for tag, a in read.tags if tag == "a"]
    assert links == [f"#{name}" for name in order]


SIDE = {
    "psnr_db": 21.5,
    "ssim": 0.71,
    "mse": 0.0071,
    "sparsity": 0.125,
    "trials": [3, 7],
}


def compared(**other: Any) -> dict[str, Any]:
    sides = [{**SIDE, "name": EVIL}, {**SIDE, "name": "clip", "psnr_db": 21.1}]
    verdict = {
        "parameter": "regularizer",
        "sentence": f"regularizer: no difference shown between {EVIL} and clip",
        "notes": ["regularizer: few trials"],
        "sides": sides,
    }
    return {"data_hash": "0" * 64, "seeds": [1, 2], "comparisons": [verdict], **other}


def test_what_compare_found_is_told_with_its_notes(tmp_path: Path) -> None:
    stored = make_study(tmp_path, 6)
    assert "Not looked into yet" in page_of(stored, tmp_path).text
    write_comparison_file(tmp_path, stored, compared())
    read = page_of(stored, tmp_path)
    assert f"no difference shown between {EVIL} and clip ." in read.text.replace("clip.", "clip .")
    assert "regularizer: few trials" in read.text
    assert f"{EVIL} 21.50 0.7100 0.007100 12.5% 3, 7" in read.text
    assert "over up to 2 seeds" in read.text
    assert "says which regularizer" not in read.text, "it is said already"


@pytest.mark.parametrize("text", [json.dumps(compared(data_hash="1" * 64)), "{", ""])
def test_a_comparison_of_other_images_or_a_torn_one_is_none(tmp_path: Path, text: str) -> None:
    stored = make_study(tmp_path, 6)
    write_comparison_file(tmp_path, stored, compared())
    comparison_file(tmp_path, stored).write_text(text)
    assert "Not looked into yet" in page_of(stored, tmp_path).text


def test_bad_ends_are_counted_by_how(read: Reader) -> None:
    assert (
        "diverged its loss or weights became infinite 2 6% 30 training diverged: the loss is nan"
        in read.text
    )
    assert "lost its workers were lost, time and again 1 3% 32 three workers died" in read.text


def test_where_it_comes_from(read: Reader, found: Findings) -> None:
    assert "train 900 images validation 100 images test 50 images" in read.text
    assert "3 x 32 x 32" in read.text
    assert found.data_hash in read.text
    assert f"torch {found.versions['torch']}" in read.text
    assert "somewhere cpu 1" in read.text
    assert "searchae tune --study s --trials 30" in read.text


def test_every_place_of_a_figure_has_its_figure(read: Reader) -> None:
    places = {a["id"] for tag, a in read.tags if "plot" in (a.get("class") or "").split()}
    charts = json.loads(read.scripts[0])
    assert places == set(charts)
    assert {"history", "curves", "importances", "parallel", "losses", "sparsity"} < places
    assert "slice-learning-rate" in places


def test_without_pictures_the_report_says_where_they_would_be(read: Reader) -> None:
    assert "the artifact folder (s/pictures)" in read.text
    assert not [a for tag, a in read.tags if tag == "img"]


def test_the_study_file_in_it_makes_the_same_study(html: str, found: Findings) -> None:
    text = study_toml(found.spec.document())
    assert spec_from_document(tomllib.loads(text), source="report") == found.spec
    assert "learning_rate = { low = 0.0001, high = 0.1, log = true }" in html
    odd = {"description": 'quote " back \\ line\n tab\t bell \x07 del \x7f smile \U0001f600 é'}
    assert tomllib.loads(study_toml(odd)) == odd


def test_an_empty_study_has_a_report(tmp_path: Path) -> None:
    shown = page_of(make_study(tmp_path), tmp_path)
    assert "no trial has trained to its end" in shown.text
    assert "No trial diverged" in shown.text
    assert "best PSNR none yet" in shown.text
    assert json.loads(shown.scripts[0]) == {}


def test_a_search_that_goes_on_is_called_so(tmp_path: Path) -> None:
    shown = page_of(make_study(tmp_path, 6), tmp_path)
    assert "The search is not over: 6 of 30 trials have ended" in shown.text


def test_a_section_can_be_added(found: Findings) -> None:
    def comparison(given: Findings) -> HtmlSection:
        return HtmlSection("comparison", "Which wins", f"<p>{len(given.runs)} trials</p>")

    def nothing(_: Findings) -> None:
        return None

    shown = Reader(report.report_page(found, [*SECTIONS, comparison, nothing]))
    assert shown.text.rstrip().endswith("Which wins 33 trials The plots need JavaScript.")
    assert ("a", {"href": "#comparison"}) in shown.tags


# -- pictures


def test_the_pictures_of_the_best_five_are_in_it(tmp_path: Path) -> None:
    stored = make_study(tmp_path, 12)
    best = collect_findings(stored, artifacts=tmp_path).best
    place = gallery.gallery_folder(tmp_path, "s")
    for run in best:
        picture = Image.new("RGB", (4, 4), (run.row.number, 0, 0))
        gallery.save_picture(
            place,
            run.row.number,
            picture,
            psnr_db=run.psnr_db,
            owner=gallery.picture_owner(stored),
        )
    shown = page_of(stored, tmp_path)
    sources = [str(a["src"]) for tag, a in shown.tags if tag == "img"]
    expected = [gallery.picture_path(place, r.row.number).read_bytes() for r in best[:5]]
    prefix = "data:image/png;base64,"
    assert [base64.b64decode(s.removeprefix(prefix)) for s in sources] == expected


def test_a_picture_of_an_older_study_of_the_same_name_is_left_out(tmp_path: Path) -> None:
    stored = make_study(tmp_path, 3)
    place = gallery.gallery_folder(tmp_path, "s")
    owner = gallery.picture_owner(stored)
    gallery.save_picture(place, 0, Image.new("RGB", (4, 4)), psnr_db=1.0, owner=owner)
    assert collect_findings(stored, artifacts=tmp_path).pictures == {}


# -- what it must not do


def test_it_asks_nobody_for_anything(read: Reader, html: str) -> None:
    for tag, attributes in read.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, target)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    policy = next(a["content"] for t, a in read.tags if a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none';")


def test_plotly_s_script_is_in_it_once(html: str) -> None:
    assert html.count("plotly.js v") == 1
    assert len(html) < 8_000_000


def test_nothing_that_a_user_wrote_becomes_part_of_the_page(tmp_path: Path) -> None:
    document: dict[str, Any] = {**DOCUMENT, "description": f"</p>{EVIL}"}
    stored = make_study(tmp_path, 12, name=f'x"{EVIL}', document=document)
    add(stored, outcome="diverged", error=f"</td>{EVIL}</script>{EVIL}", host=f"<b>{EVIL}")
    shown = page_of(stored, tmp_path)
    kinds = [a.get("type") for tag, a in shown.tags if tag == "script"]
    assert kinds == ["application/json", None, None], "the page's own three"
    assert all("alert(1)" not in s for s in shown.scripts[1:])
    assert shown.text.count(EVIL) >= 6, "as text, where it was written"
    assert "</script" not in shown.scripts[0]
    json.loads(shown.scripts[0])


def test_a_study_s_name_is_quoted_in_a_command(tmp_path: Path) -> None:
    shown = page_of(make_study(tmp_path, 3, name="my study; rm x"), tmp_path)
    assert "searchae train --study 'my study; rm x' --seeds 5" in shown.text


def test_a_table_escapes_its_cells() -> None:
    made = html_table(["<i>"], [["<b>", "2"]], numeric={1})
    assert "&lt;i&gt;" in made
    assert '<td>&lt;b&gt;</td><td class="n">2</td>' in made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (3599.6, "1 h 00 min")],
)
def test_durations_are_rounded_before_they_are_split(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_file_is_written_whole(tmp_path: Path, found: Findings) -> None:
    target = tmp_path / "r.html"
    target.write_text("old")
    report.write_report(target, found)
    assert target.read_text(encoding="utf-8").endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [target]
