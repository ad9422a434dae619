"""The dashboard in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard_server import STUDY, Made, Server, draw_picture, make_study, running

pytestmark = pytest.mark.fleet

TRIALS = 12
BEST = 6  # of the trials that ``make_study`` makes
HOSTILE = (
    "x` ``` <img src=x onerror=document.title='ran'> ![a](//evil.test/p) [b](javascript:alert(1))"
)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A new page; a violated policy or an error of its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None,
    )
    page.problems = problems
    yield page
    context.close()


def picture(page: Any, name: str) -> None:
    """Keeps a screenshot where somebody wants to look at them."""
    folder = os.environ.get("SEARCHAE_TEST_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1000)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'searchae.db'}"


@pytest.fixture(scope="module")
def made(folder: Path, url: str) -> Made:
    return make_study(url, folder / "artifacts", trials=TRIALS)


@pytest.fixture(scope="module")
def told(folder: Path, url: str) -> Made:
    """A study that nobody has written notes on."""
    made = make_study(url, folder / "artifacts", "told", trials=TRIALS, note="")
    draw_picture(url, folder / "artifacts", "told", BEST, 26.0)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, url: str, made: Made) -> Iterator[Server]:
    assert made.study_id, "the study is there before the server"
    with running(url, folder, "--read-only") as server:
        yield server


def at(server: Server, path: str) -> str:
    return f"http://{server.address}:{server.port}{path}"


def test_the_list_leads_to_the_study_whose_plots_are_drawn(page: Any, server: Server) -> None:
    page.goto(at(server, "/"))
    page.get_by_text(STUDY).first.click()
    page.wait_for_selector("#plot-history .point")
    assert page.locator("#plot-history path.point").count() >= TRIALS
    page.wait_for_selector("#graph-intermediate-values .scatterlayer .trace")
    assert page.locator("#graph-intermediate-values .scatterlayer .trace").count() == TRIALS
    picture(page, "study")
    assert page.problems == []


def test_the_first_page_tells_how_far_each_study_is(
    page: Any, server: Server, made: Made, told: Made
) -> None:
    page.goto(at(server, "/"))
    for study in (made, told):
        card = page.locator(f"a[href$='/studies/{study.study_id}']")
        card.get_by_text(f"{TRIALS} of 100 trials, 1 running, best 26.00 dB").wait_for()
    assert not page.get_by_role("button", name="Create").is_visible()
    picture(page, "home")
    page.get_by_text(STUDY).first.click()
    page.get_by_text("Study User Attributes").wait_for()
    assert page.get_by_text("searchae:baseline_db").count()
    assert not page.get_by_text("searchae:spec").count(), "raw JSON"
    page.go_back()
    page.locator(".searchae-progress").nth(1).wait_for()
    assert page.problems == []


def test_a_read_only_page_shows_that_a_note_was_refused(
    page: Any, server: Server, made: Made
) -> None:
    page.goto(at(server, f"/dashboard/studies/{made.study_id}/note"))
    page.get_by_text("A note.").wait_for()
    answers: list[int] = []
    page.on("response", lambda r: answers.append(r.status) if r.request.method == "PUT" else None)
    page.keyboard.press("Control+e")
    edit = page.locator("textarea").first
    if not edit.is_visible():
        page.locator("button:has(svg[data-testid=EditIcon])").first.click()
    edit.fill("overwritten")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("read-only").wait_for()
    picture(page, "refused")
    assert answers == [403]
    page.reload()
    page.get_by_text("A note.").wait_for()


def test_the_trials_pages_open(page: Any, server: Server, made: Made) -> None:
    for name, text in (("trials", "Trial 3"), ("analytics", "")):
        page.goto(at(server, f"/dashboard/studies/{made.study_id}/{name}"))
        if text:
            page.get_by_text(text).first.wait_for()
        else:
            page.wait_for_selector(".js-plotly-plot .main-svg")
        picture(page, name)
    assert page.problems == []


def test_a_trial_s_page_shows_its_pictures_and_how_to_train_it_again(
    page: Any, server: Server, told: Made
) -> None:
    page.goto(at(server, f"/dashboard/studies/{told.study_id}/trials?numbers={BEST}"))
    page.get_by_text(f"searchae train --study told --trial {BEST} --out trial-{BEST}").wait_for()
    page.get_by_text("26.00 dB").first.wait_for()
    assert page.get_by_text("15.50 dB above the baseline").count() == 1
    for name in ("reconstructions", "curves"):
        shown = page.locator(f"img[src*='/{name}']")
        page.wait_for_function(
            "name => [...document.querySelectorAll(`img[src*='/${name}']`)]"
            ".filter(i => i.complete && i.naturalWidth > 0).length == 2",
            arg=name,
        )
        assert shown.count() == 2, "in the note, and among the artifacts"
        assert shown.first.bounding_box()["width"] > 300
    picture(page, "trial")
    assert page.problems == []


@pytest.mark.parametrize("width", [1400, 900])
def test_a_trial_s_page_is_not_wider_than_the_window(
    page: Any, server: Server, told: Made, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(at(server, f"/dashboard/studies/{told.study_id}/trials?numbers={BEST}"))
    page.get_by_text(f"searchae train --study told --trial {BEST} --out trial-{BEST}").wait_for()
    page.wait_for_function("document.querySelector(`img[src*='/curves']`)?.naturalWidth > 0")
    picture(page, f"trial-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = "e => e.closest('.MuiCard-root').getBoundingClientRect().right"
    assert page.locator("pre").first.evaluate(right) <= width, "nothing is cut off"


def test_a_pruned_trial_s_page_says_so(page: Any, server: Server, told: Made) -> None:
    page.goto(at(server, f"/dashboard/studies/{told.study_id}/trials?numbers=3"))
    page.get_by_text("Pruned after epoch 5 of 5").wait_for()
    assert page.locator("img[src*='/reconstructions']").count() == 0
    page.wait_for_function("document.querySelector(`img[src*='/curves']`)?.naturalWidth > 0")


def test_a_study_s_page_tells_its_best_and_draws_the_baseline(
    page: Any, server: Server, told: Made
) -> None:
    page.goto(at(server, f"/dashboard/studies/{told.study_id}/note"))
    page.get_by_text(f"26.00 dB: trial {BEST} is the best so far").wait_for()
    page.get_by_text("searchae report --study told").wait_for()
    page.wait_for_function(
        "document.querySelector(`img[src*='/reconstructions']`).naturalWidth > 0"
    )
    picture(page, "study-note")
    page.goto(at(server, f"/dashboard/studies/{told.study_id}"))
    for name in ("history", "curves"):
        plot = page.locator(f"[id='user-defined-plot:searchae:{name}']")
        plot.locator(".legendtext", has_text="baseline").wait_for()
    picture(page, "study-plots")
    assert page.problems == []


def test_a_person_s_note_stands_instead_of_ours(
    page: Any, folder: Path, url: str, told: Made
) -> None:
    with running(url, folder) as server:
        page.goto(at(server, f"/dashboard/studies/{told.study_id}/trials?numbers=1"))
        page.get_by_text("searchae train --study told --trial 1").wait_for()
        page.locator("button:has(svg[data-testid=EditIcon])").first.click()
        page.locator("textarea").first.fill("Looked at **by hand**.")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Looked at by hand.").wait_for()
        page.reload()
        page.get_by_text("Looked at by hand.").wait_for()
        assert page.get_by_text("searchae train --study told --trial 1").count() == 0
        assert page.locator("img[src*='/curves']").count() == 1, "still among the artifacts"


def test_a_study_s_name_is_only_text(page: Any, server: Server, folder: Path, url: str) -> None:
    made = make_study(url, folder / "artifacts", HOSTILE, trials=TRIALS, note="")
    for path in ("trials?numbers=6", "note", ""):
        page.goto(at(server, f"/dashboard/studies/{made.study_id}/{path}"))
        if path:
            page.get_by_text("searchae train --study 'x` ``` <img").first.wait_for()
        else:
            page.wait_for_selector("[id='user-defined-plot:searchae:history'] .main-svg")
        assert page.locator("img[src='x'], img[src*=evil], a[href^=javascript]").count() == 0
        assert page.title() != "ran"
    assert page.problems == []


def test_an_uploaded_page_runs_no_script(page: Any, server: Server, made: Made) -> None:
    path = f"/artifacts/{made.study_id}/{made.best_id}/{made.artifact_id}"
    page.goto(at(server, path))
    picture(page, "uploaded")
    assert page.locator("body").inner_text() == "uploaded"


def test_the_same_page_would_run_it_elsewhere(page: Any, folder: Path) -> None:
    """That the test above can fail."""
    page.goto((folder / "artifacts" / "page.html").as_uri())
    assert page.locator("body").inner_text() == "script ran"


def test_another_site_s_page_cannot_write(
    page: Any, folder: Path, url: str, made: Made, tmp_path: Path
) -> None:
    """A form needs nobody's leave to be sent across sites."""
    with running(url, folder) as server:
        target = at(server, f"/api/studies/{made.study_id}/rename")
        form = tmp_path / "form.html"
        form.write_text(
            f'<form method=post enctype="text/plain" action="{target}">'
            '<input name=\'{"study_name": "stolen", "x": "\' value=\'"}\'></form>'
            "<script>document.forms[0].submit()</script>"
        )
        with page.expect_response(target) as answered:
            page.goto(form.as_uri())
        assert answered.value.status == 403
        assert STUDY in server.ask("GET", "/api/studies").body.decode()
