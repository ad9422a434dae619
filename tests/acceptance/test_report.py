"""`searchae report`: the command, and its file in a real browser without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from searchae.report.findings import collect_findings
from searchae.study import gallery
from tests.reported_study import add, make_study

Run = Callable[..., Any]

CONTRAST = """() => {
  // WCAG 2 contrast of each element with text of its own against the paper below it.
  const channels = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName)) continue;
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const s = getComputedStyle(e);
    const a = light(channels(e instanceof SVGElement ? s.fill : s.color));
    const b = light(paper(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, e.tagName, e.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of thirty trials and pictures of its best."""
    folder = tmp_path_factory.mktemp("report")
    stored = make_study(folder, 30)
    add(stored, outcome="diverged", error="<script>document.title = 'taken over'</script>")
    for run in collect_findings(stored, artifacts=folder).best[:5]:
        picture = Image.new("RGB", (950, 280), (90, 120, 150))
        place = gallery.gallery_folder(folder / "artifacts", "s")
        owner = gallery.picture_owner(stored)
        gallery.save_picture(place, run.row.number, picture, psnr_db=run.psnr_db, owner=owner)
    return folder


@pytest.fixture
def report(made: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(made)
    return lambda *words: command_line("report", "-s", "s", *words)


# -- the command


def test_it_writes_what_it_is_asked_for_and_says_so(report: Run, tmp_path: Path) -> None:
    done = report("--out", f"{tmp_path}/new/r.html", "--csv", f"{tmp_path}/t.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "r.html").read_text().startswith("<!doctype html>")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"report   {tmp_path}/new/r.html  (")
    assert lines[1].startswith(f"trials   {tmp_path}/t.csv  (")


def test_a_report_without_pictures_says_so(report: Run, tmp_path: Path) -> None:
    words = ("--out", f"{tmp_path}/r.html")
    assert "no pictures" not in report(*words).stderr
    done = report(*words, "--artifacts", f"{tmp_path}/elsewhere")
    assert done.returncode == 0, done.stderr
    assert f"no pictures in it: {tmp_path}/elsewhere holds none of s;" in done.stderr


def test_the_figures_data_are_printed_as_json(report: Run, tmp_path: Path) -> None:
    done = report("--csv", f"{tmp_path}/t.csv", "--json")
    document = json.loads(done.stdout)
    assert len(document["history"]) == 31
    best = [h["best_db"] for h in document["history"]]
    assert best[-1] == document["best"]["psnr_db"] == max(best)
    assert next(iter(document["importances"])) == "learning_rate"
    assert len(document["curves"]) == 5
    assert [w["path"] for w in document["written"]] == [f"{tmp_path}/t.csv"]
    assert document["written"][0]["bytes"] == (tmp_path / "t.csv").stat().st_size


def test_mistakes_are_told_in_a_line(report: Run, tmp_path: Path) -> None:
    done = report()
    assert done.returncode == 2
    assert "give --out, --csv, --parquet or --tensorboard" in done.stderr
    (tmp_path / "file").write_text("")
    done = report("--out", f"{tmp_path}/file/r.html")
    assert done.returncode == 2
    assert f"--out {tmp_path}/file/r.html: cannot be written" in done.stderr
    done = report("--out", str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unknown_study_is_named_with_those_there_are(report: Run, tmp_path: Path) -> None:
    done = report("-s", "other", "--csv", f"{tmp_path}/t.csv")
    assert done.returncode == 2
    assert "'other' is not in" in done.stderr
    assert not (tmp_path / "t.csv").exists()


# -- in a browser


@pytest.fixture(scope="module")
def file(made: Path) -> Path:
    from searchae.report import page
    from searchae.storage.connection import connect
    from searchae.study.stored_study import load_study

    stored = load_study(connect(f"sqlite:///{made}/searchae.db"), "s")
    page.write_report(made / "r.html", collect_findings(stored, artifacts=made / "artifacts"))
    return made / "r.html"


Open = Callable[..., Page]
Scheme = Literal["dark", "light"]


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the file without a network; a request or a complaint fails the test."""
    contexts, told = [], []

    def on_request(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            told.append(f"asked for {request.url}")

    def make(*, width: int = 1200, scheme: Scheme = "light", **more: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", on_request)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return page

    yield make
    for context in contexts:
        context.close()
    assert told == []


def look(page: Page, name: str) -> None:
    """Keeps a screenshot where somebody wants to look at them."""
    folder = os.environ.get("SEARCHAE_TEST_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"report-{name}.png"), full_page=True)


@pytest.mark.fleet
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_everything_in_its_width_and_legibly(
    opened: Open, width: int, scheme: str
) -> None:
    page = opened(width=width, scheme=scheme)
    look(page, f"{scheme}-{width}")
    places = page.locator(".plot")
    assert places.count() == 12
    for i in range(places.count()):
        box = places.nth(i).locator("svg.main-svg").first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 150
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title() == "searchae: s", "a trial's error text did not run"
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 150, "plots' labels among them"
    assert [c for c in contrasts if c[0] < 4.5] == []


@pytest.mark.fleet
def test_pictures_show(opened: Open) -> None:
    page = opened()
    sizes = page.eval_on_selector_all(
        ".picture img", "all => all.map((i) => [i.complete, i.naturalWidth])"
    )
    assert sizes == [[True, 950]] * 5


@pytest.mark.fleet
def test_a_change_of_the_scheme_recolours_what_is_drawn(opened: Open) -> None:
    page = opened(scheme="light")
    tick = page.locator("#history .xtick text").first
    fill = "e => getComputedStyle(e).fill"
    before = tick.evaluate(fill)
    line = "() => getComputedStyle(document.querySelector('#history .scatterlayer path')).stroke"
    data = page.evaluate(line)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        f"([e, before]) => ({fill})(e) !== before",
        arg=[tick.element_handle(), before],
        timeout=10_000,
    )
    assert page.evaluate(line) == data, "colours that mean something stay"


@pytest.mark.fleet
def test_pointing_at_a_trial_says_what_it_is(opened: Open) -> None:
    page = opened()
    page.locator("#history").scroll_into_view_if_needed()
    page.locator("#history .points path.point").nth(3).hover(force=True)
    page.wait_for_selector("#history .hoverlayer .hovertext", timeout=10_000)
    assert "learning_rate" in (page.locator("#history .hoverlayer").text_content() or "")


@pytest.mark.fleet
def test_it_prints_dark_on_white_paper(opened: Open, tmp_path: Path) -> None:
    page = opened(scheme="dark")
    ink = "document.getElementById('history').layout.font.color"
    # After the page's own listener has recoloured the plots.
    page.evaluate(f"() => addEventListener('beforeprint', () => {{ window.printed = {ink}; }})")
    before = page.evaluate(ink)
    page.pdf(path=tmp_path / "r.pdf")
    assert page.evaluate("window.printed") == "#333a41"
    assert page.evaluate(ink) == before, "and back"
    page.emulate_media(media="print", color_scheme="dark")
    colours = "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
    assert page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
