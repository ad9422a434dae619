"""docker-compose.yml: accepted by docker-compose, and its services' commands run for real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dashboard_server import page_status
from tests.free_port import free_port
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
PASSWORD = "a pass{word} / of:the@database"
VARIABLES = {"STUDY": "tiny", "TRIALS": "6"}


def composed() -> dict[str, Any]:
    """The file's services, variables filled in."""
    text = (ROOT / "docker-compose.yml").read_text()
    filled = re.sub(r"\$\{(\w+):-(\w+)\}", lambda m: VARIABLES.get(m[1], m[2]), text)
    services: dict[str, Any] = yaml.safe_load(filled)["services"]
    return services


@pytest.mark.fleet
def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    if not shutil.which("docker-compose"):
        pytest.skip("install Debian's docker-compose to run this")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    done = subprocess.run(
        ["docker-compose", "--profile", "gpu", "--profile", "tune", "config"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"db", "dashboard", "tune", "worker", "worker-gpu"}
    assert "deploy" not in services["worker"], "it also runs where no GPU is"


def test_nothing_but_the_dashboard_is_published_and_that_to_this_machine_only() -> None:
    ports = {name: s.get("ports", []) for name, s in composed().items()}
    assert ports.pop("dashboard") == ["127.0.0.1:8080:8080"]
    assert not any(ports.values())


class Services:
    """Runs the services' own commands; what a container would give them lies in a folder."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.services, self.server, self.folder = composed(), server, folder
        self.port = free_port()
        (folder / "secrets").mkdir()
        password = folder / "secrets" / "db_password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        self._running: list[subprocess.Popen[str]] = []

    def here(self, word: str) -> str:
        """A word of the file as it reads outside a container."""
        word = word.replace("/run/secrets/", f"{self.folder}/secrets/")
        word = word.replace("@db:5432/", f"@127.0.0.1:{self.server.port}/")
        return {"8080": str(self.port), "0.0.0.0": "127.0.0.2"}.get(word, word)

    def start(self, name: str) -> subprocess.Popen[str]:
        service = self.services[name]
        environment = {k: self.here(v) for k, v in service["environment"].items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "searchae", *(self.here(w) for w in service["command"])],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def services(folder: Path) -> Iterator[Services]:
    database = composed()["db"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    quoted = PASSWORD.replace("'", "''").replace(":", r"\:")
    with PostgresServer(["127.0.0.1"], login="scram-sha-256", port=free_port()) as server:
        server.execute(
            f"CREATE ROLE {user} LOGIN PASSWORD '{quoted}'", f"CREATE DATABASE {name} OWNER {user}"
        )
        services = Services(folder, server)
        yield services
        services.close()


def healthy(services: Services) -> bool:
    _, program, *words = services.services["db"]["healthcheck"]["test"]
    argv = [services.server.program(program), *words]
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(services.server.port)}
    return subprocess.run(argv, env={**os.environ, **where}, check=False).returncode == 0


@pytest.mark.fleet
def test_the_services_commands_run_a_search_together(services: Services) -> None:
    login = subprocess.run(
        [sys.executable, "-m", "searchae", "dashboard", "--hash-password", "ann"],
        input="correct horse\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    secret = services.folder / "secrets" / "dashboard_login"
    secret.write_text(login)
    secret.chmod(0o600)
    assert healthy(services)
    for name in ("dashboard", "worker", "tune", "worker-gpu"):
        assert services.services[name]["depends_on"] == {"db": {"condition": "service_healthy"}}

    worker = services.start("worker")
    dashboard = services.start("dashboard")
    assert worker.stderr is not None
    assert "waiting" in worker.stderr.readline(), "it was started before there was a study"
    tune = services.start("tune")
    out, err = tune.communicate(timeout=120)
    assert tune.returncode == 0, err
    assert "6 of 6" in out
    assert PASSWORD not in out + err
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err

    deadline = time.monotonic() + 30
    while not (status := page_status(services.port, "/dashboard")):
        assert time.monotonic() < deadline, "the dashboard does not answer"
        assert dashboard.poll() is None
        time.sleep(0.1)
    assert status == 401
    assert page_status(services.port, "/dashboard", "ann:correct horse") == 200
    dashboard.send_signal(signal.SIGTERM)
    _, err = dashboard.communicate(timeout=30)
    assert dashboard.returncode == 0, err
    assert PASSWORD not in err
