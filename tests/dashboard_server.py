"""A small study, and `searchae dashboard` in a process of its own, for the tests of both."""

from __future__ import annotations

import base64
import http.client
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState, create_trial
from optuna_dashboard import save_note
from PIL import Image

from searchae.config.loader import spec_from_document
from searchae.dashboard import home_page
from searchae.search import distributions
from searchae.storage.connection import connect
from searchae.study import gallery
from searchae.study.stored_study import load_study, open_study
from tests.forked_commands import ForkedProcess, start_command

STUDY = "looked-at"
RATE = {"low": 1e-4, "high": 1e-1, "log": True}
SCRIPT = "<html><body>uploaded<script>document.body.textContent='script ran'</script></body></html>"


@dataclass(frozen=True)
class Made:
    """What ``make_study`` made."""

    study_id: int
    best_id: int
    artifact_id: str


def make_study(
    url: str, artifacts: Path, name: str = STUDY, trials: int = 8, *, note: str = "A **note**."
) -> Made:
    """Adds trials that nobody trained, and an HTML page that somebody uploaded to the last."""
    spec = spec_from_document(
        {"data": {"name": "svhn"}, "train": {"epochs": 5, "learning_rate": RATE}}, source="test"
    )
    storage = connect(url)
    stored, _ = open_study(storage, name, spec=spec, data_hash="a" * 64, baseline_db=10.5)
    (parameter,) = spec.space
    for number in range(trials):
        stored.study.add_trial(
            create_trial(
                state=TrialState.PRUNED if number % 4 == 3 else TrialState.COMPLETE,
                value=20.0 + number % 7,
                params={"learning_rate": 1e-3 * (number % 50 + 1)},
                distributions={"learning_rate": distributions.to_distribution(parameter)},
                intermediate_values={k: 15.0 + k + number % 7 for k in range(1, 6)},
            )
        )
    if note:
        save_note(stored.study, note)
    # Optuna takes no file for a trial that has ended.
    running = stored.study.ask({"learning_rate": distributions.to_distribution(parameter)})
    (artifacts / "pictures").mkdir(parents=True, exist_ok=True)
    page = artifacts / "page.html"
    page.write_text(SCRIPT)
    artifact_id = upload_artifact(
        artifact_store=FileSystemArtifactStore(artifacts / "pictures"),
        file_path=str(page),
        study_or_trial=running,
        mimetype="text/html",
    )
    made = Made(stored.id, running._trial_id, artifact_id)
    storage.engine.dispose()
    return made


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Server:
    """A running dashboard."""

    process: ForkedProcess
    address: str = ""
    port: int = 0
    said: list[str] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        *,
        login: str | None = None,
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """Asks once; ``headers``' underscores stand for hyphens.

        No encoding is named unless it is given, as curl does it.
        """
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if login is not None:
            given["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection = http.client.HTTPConnection(self.address, self.port, timeout=60)
        try:
            connection.putrequest(
                method, path, skip_host="Host" in given, skip_accept_encoding=True
            )
            for name, value in given.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextmanager
def running(
    url: str, folder: Path, *words: str, environment: Sequence[tuple[str, str]] = ()
) -> Iterator[Server]:
    """``searchae dashboard`` in a forked process on a free port, from when it answers."""
    process = start_command(
        *("dashboard", "--port", "0", *words),
        cwd=folder,
        env={**os.environ, "SEARCHAE_STORAGE": url, **dict(environment)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    server = Server(process)
    output = process.stderr
    assert output is not None
    try:
        for line in output:
            server.said.append(line)
            if found := re.search(r"at http://\[?([^/\]]+)\]?:(\d+)/", line):
                server.address, server.port = found[1], int(found[2])
                break
        assert server.port, "".join(server.said)
        # Whoever does not read a pipe stops its writer in the end.
        reader = threading.Thread(target=server.said.extend, args=(output,), daemon=True)
        reader.start()
        yield server
    finally:
        process.kill()
        process.wait()


def draw_picture(url: str, artifacts: Path, name: str, number: int, psnr_db: float) -> bytes:
    """A picture of a trial, as its worker keeps it; the file's bytes."""
    folder = gallery.gallery_folder(artifacts, name)
    owner = gallery.picture_owner(load_study(connect(url), name))
    drawn = Image.new("RGB", (320, 90), "teal")
    gallery.save_picture(folder, number, drawn, psnr_db=psnr_db, owner=owner)
    return gallery.picture_path(folder, number).read_bytes()


def routes() -> list[tuple[str, str]]:
    """Every route that Optuna's dashboard has, and ours, filled in: method and path."""
    import optuna_dashboard

    app = optuna_dashboard.wsgi(optuna.storages.InMemoryStorage())
    values = {"filename": "bundle.js", "artifact_id": "ab-12", "plot_type": "edf", "": ""}

    def fill(rule: str) -> str:
        return re.sub(r"<(\w*)[^<>]*>", lambda m: values.get(m[1], "1"), rule)

    ours = [f"/artifacts/1/1/{name}" for name in ("curves", "reconstructions")]
    ours += [home_page.SCRIPT_PATH, home_page.PROGRESS_PATH]
    theirs = ((route.method, fill(route.rule)) for route in app.routes)
    return sorted([*theirs, *(("GET", path) for path in ours)])


def page_status(port: int, path: str, login: str = "") -> int:
    """The status of one of the dashboard's pages on 127.0.0.2; 0 while nothing answers there."""
    request = urllib.request.Request(f"http://127.0.0.2:{port}{path}")
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code
    except urllib.error.URLError:
        return 0
