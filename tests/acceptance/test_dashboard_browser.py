"""The dashboard in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard_server import STUDY, Made, Server, make_study, running

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TRIALS = 12


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"install chromium: {CHROMIUM} is not there")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


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
def server(folder: Path, url: str, made: Made) -> Iterator[Server]:
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
