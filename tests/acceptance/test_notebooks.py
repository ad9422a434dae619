"""The notebooks in docs/, run as a reader does: in a new kernel, from first to last cell."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.fleet

nbclient = pytest.importorskip("nbclient", reason="install nbclient")
nbformat = pytest.importorskip("nbformat", reason="install nbclient")
pytest.importorskip("ipykernel", reason="install ipykernel")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TIME_LIMIT_S = 1200
"""Of a cell; on two idle cores a whole notebook takes two minutes."""
LONG = """
import searchae
options = {"trials": 3, "workers": 2, "device": "cpu"}
overrides = {"train.epochs": 200, "search.pruner": "none"}
"""
TUNE = 'search = searchae.tune("tiny", set=overrides, **options)'
REPORT = """
import asyncio
import json
status = search.status()
print(json.dumps([status["trials"], status["epochs"]]))
"""


@pytest.fixture
def kernel_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel finds this checkout, and starts workers of its own."""
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.delenv("SEARCHAE_FACTORY", raising=False)


def outputs(notebook: Any) -> str:
    """All that the cells show, as JSON text."""
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells])


@pytest.mark.timeout(3 * TIME_LIMIT_S)
@pytest.mark.parametrize("name", ["quickstart", "own-net"])
@pytest.mark.usefixtures("kernel_s_environment")
def test_a_notebook_runs_from_a_clean_kernel(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=TIME_LIMIT_S, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = outputs(notebook)
    assert "of 24 trials" in shown if name == "quickstart" else "of 18 trials" in shown
    assert "application/vnd.plotly.v1+json" in shown
    assert "image/png" in shown
    assert "dB on " in shown
    assert "Warning" not in shown
    assert not left_over(tmp_path)
    if folder := os.environ.get("SEARCHAE_KEEP_NOTEBOOKS"):  # to look at them
        nbformat.write(notebook, Path(folder) / f"{name}.ipynb")


@pytest.mark.parametrize("name", ["quickstart", "own-net"])
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    notebook = nbformat.read(DOCS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.timeout(3 * TIME_LIMIT_S)
@pytest.mark.usefixtures("kernel_s_environment")
def test_interrupting_a_cell_leaves_no_worker_and_the_next_cell_finishes(folder: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in (LONG, TUNE, TUNE, REPORT)]
    )
    client = nbclient.NotebookClient(
        notebook, timeout=TIME_LIMIT_S, resources={"metadata": {"path": str(folder)}}
    )
    setup, interrupted, again, report = notebook.cells
    with client.setup_kernel():
        client.execute_cell(setup, 0)
        thread = threading.Thread(target=interrupt_when_training, args=(client, folder))
        thread.start()
        with pytest.raises(nbclient.exceptions.CellExecutionError):
            client.execute_cell(interrupted, 1)
        thread.join()
        assert not left_over(folder), "no worker is left, and the kernel lives"
        error = next(o for o in interrupted.outputs if o.output_type == "error")
        assert error.ename == "SearchInterrupt"
        assert len("\n".join(error.traceback).splitlines()) == 1
        begun = states(folder)
        assert begun
        assert "RUNNING" not in begun, "the running trials were put back"
        client.execute_cell(again, 2)
        client.execute_cell(report, 3)
    trials, epochs = json.loads(report.outputs[0].text)
    assert trials == {"complete": 3, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert epochs["repeated"] == 0, "each went on from its last epoch"
    assert not left_over(folder)


def interrupt_when_training(client: Any, folder: Path) -> None:
    """Interrupts the kernel once two trials are running."""
    deadline = time.monotonic() + TIME_LIMIT_S
    while states(folder).count("RUNNING") < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    asyncio.run(client.km.interrupt_kernel())


def states(folder: Path) -> list[str]:
    """The states of the trials in the database."""
    database = folder / "searchae.db"
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return [str(state) for (state,) in connection.execute("SELECT state FROM trials")]
        except sqlite3.OperationalError:  # its tables are being made
            return []


def left_over(folder: Path) -> list[str]:
    """Command lines of the workers whose files are below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if "worker" in words and any(word.startswith(str(folder)) for word in words):
            found.append(" ".join(words))
    return found


def test_an_error_in_a_notebook_is_two_lines(tmp_path: Path, kernel_s_environment: None) -> None:
    cell = nbformat.v4.new_code_cell('import searchae\nsearchae.tune("quickstrat")')
    notebook = nbformat.v4.new_notebook(cells=[cell])
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIME_LIMIT_S,
        allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    (error,) = notebook.cells[0].outputs
    lines = "\n".join(error.traceback).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith('searchae.tune("quickstrat")')
    assert "did you mean 'quickstart'?" in lines[1]
