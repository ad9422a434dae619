"""``/metrics``: the figures of all studies for Prometheus, behind the dashboard's login."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from searchae.dashboard.logins import Logins, login_line
from searchae.dashboard.server import ServerOptions, application
from searchae.files import Backoff
from searchae.storage import reports
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study import study_metrics
from searchae.study.coordination import Coordinator
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import load_study
from tests.dashboard_server import make_study
from tests.integration.test_dashboard_reading import get

SAMPLE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


@pytest.fixture
def storage(database: str) -> Iterator[ResilientStorage]:
    storage = connect(database, backoff=Backoff(limit_s=0.3))
    yield storage
    storage.engine.dispose()


def samples(app: Any) -> dict[str, float]:
    """The figures: ``NAME{LABELS}`` -> value. Every line has to be one of the format's."""
    status, headers, body = get(app, "/metrics")
    assert status == "200 OK", body
    assert dict(headers)["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, float] = {}
    described: set[str] = set()
    for line in body.decode().splitlines():
        if line.startswith("# TYPE "):
            described.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in described, "its type comes before"
            found[f"{match[1]}{{{match[2]}}}" if match[2] else match[1]] = float(match[3])
    return found


def test_it_tells_of_each_study_and_goes_along(
    storage: ResilientStorage, database: str, tmp_path: Path
) -> None:
    app = application(storage, ServerOptions("localhost", 0, tmp_path))
    assert samples(app).keys() == {
        'searchae_info{version="0.1.0"}',
        "searchae_storage_latency_seconds",
    }
    name = 'quoted "q" \\ back'
    make_study(database, tmp_path, name, trials=8)
    make_study(database, tmp_path, "other", trials=3)
    optuna.create_study(storage=storage, study_name="another program's")
    found = samples(app)
    label = 'study="quoted \\"q\\" \\\\ back"'
    trials = {
        state: found[f'searchae_trials{{{label},state="{state}"}}']
        for state in ("complete", "pruned", "fail", "running", "waiting")
    }
    stored = load_study(storage, name)
    states = [t.state.name.lower() for t in stored.study.get_trials(deepcopy=False)]
    assert trials == {state: states.count(state) for state in trials}
    assert found[f"searchae_trials_budget{{{label}}}"] == 100
    assert found[f"searchae_best_psnr_db{{{label}}}"] == 26.0
    epochs = sum(len(t.intermediate_values) for t in stored.study.get_trials(deepcopy=False))
    assert found[f"searchae_epochs_total{{{label}}}"] == epochs > 8
    assert found[f"searchae_workers{{{label}}}"] == 0
    assert 0 < found["searchae_storage_latency_seconds"] < 10
    assert not any("another program" in key for key in found)

    running = Coordinator(stored, ProcessIdentity("w", "far", 1, "far away", "1:1"))
    running.join("cpu")
    trial_id = running.claim()
    assert isinstance(trial_id, int)
    storage.set_trial_intermediate_value(trial_id, 1, 20.0)
    storage.set_trial_intermediate_value(trial_id, 2, 20.5)
    storage.set_trial_intermediate_value(trial_id, 2, 21.5)  # again: the same epoch
    later = samples(app)
    assert later[f"searchae_epochs_total{{{label}}}"] == epochs + 2
    assert later[f"searchae_workers{{{label}}}"] == 1
    assert later['searchae_workers{study="other"}'] == 0


def test_epochs_are_counted_once_and_right_after_a_study_was_deleted(
    storage: ResilientStorage,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study_metrics, "SETTLED_ROWS", 5)
    app = application(storage, ServerOptions("localhost", 0, tmp_path))
    statements = list[tuple[str, Any]]()

    def of(name: str) -> float:
        return samples(app)[f'searchae_epochs_total{{study="{name}"}}']

    def expected(name: str) -> int:
        trials = load_study(storage, name).study.get_trials(deepcopy=False)
        return sum(len(t.intermediate_values) for t in trials)

    make_study(database, tmp_path, "one", trials=8)
    assert of("one") == expected("one")
    make_study(database, tmp_path, "two", trials=12)
    assert (of("one"), of("two")) == (expected("one"), expected("two"))
    (row_id,) = reports.primary_key

    @sa.event.listens_for(storage.engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if f"{reports.name}.{row_id.name} >" in statement:
            statements.append((statement, parameters))

    assert of("two") == expected("two")
    with storage.engine.connect() as connection:
        last = connection.scalar(sa.select(sa.func.max(row_id)))
    (counted,) = statements
    assert last - 5 in (dict(counted[1]).values() if isinstance(counted[1], dict) else counted[1])
    storage.delete_study(load_study(storage, "two").id)
    make_study(database, tmp_path, "three", trials=2)
    assert (of("one"), of("three")) == (expected("one"), expected("three"))


def test_it_is_behind_the_login(storage: ResilientStorage, tmp_path: Path) -> None:
    logins = Logins.parse(login_line("ann", "long enough"), source="test")
    app = application(storage, ServerOptions("0.0.0.0", 0, tmp_path, logins=logins))
    assert get(app, "/metrics")[0].startswith("401")
    basic = base64.b64encode(b"ann:long enough").decode()
    assert get(app, "/metrics", HTTP_AUTHORIZATION=f"Basic {basic}")[0] == "200 OK"
    open_app = application(storage, ServerOptions("localhost", 0, tmp_path))
    assert get(open_app, "/metrics", HTTP_HOST="evil.example")[0].startswith("403")
    assert get(open_app, "/metrics", method="HEAD")[2] == b""


def test_a_hundred_workers_are_counted_in_time(storage: ResilientStorage, tmp_path: Path) -> None:
    """The bound is that of a machine that does nothing else, so the process's time is measured."""
    make_study(str(storage.engine.url.render_as_string(hide_password=False)), tmp_path, "s")
    stored = load_study(storage, "s")
    for number in range(100):
        identity = ProcessIdentity(f"w{number}", "far", number, "far away", "1:1")
        Coordinator(stored, identity).join("cpu")
    app = application(storage, ServerOptions("localhost", 0, tmp_path))
    assert samples(app)['searchae_workers{study="s"}'] == 100
    times = []
    for _ in range(5):
        began = time.thread_time()
        get(app, "/metrics")
        times.append(time.thread_time() - began)
    assert min(times) < 0.05
