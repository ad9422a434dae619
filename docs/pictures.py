"""Makes the README's pictures with the tool itself: a terminal, the dashboard, the report.

    python docs/pictures.py

It runs the quickstart in a new folder (some minutes), inside tmux, so that the terminal's picture
is what stood there. Needs Debian's tmux and chromium, and `pip install -e '.[dev]'`.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
PORT = 18099
COLUMNS, ROWS = 150, 18
SEARCHAE = str(Path(sys.executable).with_name("searchae"))
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


def tmux(*words: str) -> str:
    """One tmux command's output."""
    done = subprocess.run(
        ["tmux", "-L", "pictures", *words], capture_output=True, text=True, check=False
    )
    return done.stdout


def terminal(folder: Path) -> None:
    """Runs the search; the picture is of its middle."""
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    run = f"cd {folder} && {SEARCHAE} tune --study quickstart; sleep 600"
    tmux("-f", "/dev/null", "new-session", "-d", "-s", "tune", *size, run)
    shown = ""
    while "best " not in shown or "+" not in shown or "trial  16" not in shown:
        time.sleep(0.5)
        now = tmux("capture-pane", "-e", "-p", "-t", "tune")
        shown = now if " to go" in now else shown
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ searchae tune --study quickstart"))
    console.print(Text.from_ansi(shown.rstrip()))
    console.save_svg(str(HERE / "terminal.svg"), title="searchae")
    while "wall time" not in tmux("capture-pane", "-p", "-t", "tune"):
        time.sleep(1)
    tmux("kill-server")


@contextlib.contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """The dashboard of that folder's studies; its address."""
    server = subprocess.Popen([SEARCHAE, "dashboard", "--port", str(PORT)], cwd=folder)
    url = f"http://127.0.0.1:{PORT}/dashboard"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5)
                break
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def pages(folder: Path) -> None:
    """The best trial's page in the dashboard, and the report."""
    report = folder / "report.html"
    subprocess.run(
        [SEARCHAE, "report", "--study", "quickstart", "--out", str(report)], cwd=folder, check=True
    )
    best = subprocess.check_output([SEARCHAE, "best", "-s", "quickstart", "--json"], cwd=folder)
    number = json.loads(best)["number"]
    with dashboard(folder) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for name, address, shown in (
            ("trial", f"{url}/studies/1/trials?numbers={number}", f"Trial {number} "),
            ("report", report.as_uri(), "PSNR by trial"),
        ):
            page.goto(address, wait_until="networkidle")
            page.get_by_text(shown).first.wait_for(timeout=120_000)
            page.wait_for_timeout(3000)
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp(prefix="searchae-pictures-"))
    terminal(home)
    pages(home)
