"""`searchae dashboard` as a process: who gets what from which route."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from searchae.dashboard.logins import login_line
from searchae.dashboard.slow_clients import MAX_PER_ADDRESS
from tests.dashboard_server import STUDY, Made, Server, make_study, routes, running

ANN = "ann:correct horse"
OTHER_METHODS = ("HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
READS = [path for method, path in routes() if method == "GET"]
WRITES = [(method, path) for method, path in routes() if method != "GET"]
EVERY = sorted({*routes(), *((m, path) for m in OTHER_METHODS for _, path in routes())})


class Place:
    """A folder with a database, a study and a login."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'searchae.db'}"
        self.made: Made = make_study(self.url, folder / "artifacts")
        self.login = folder / "login.txt"
        self.login.write_text(f"# who may look\n\n{login_line('ann', 'correct horse')}\n")
        self.login.chmod(0o600)

    def contents(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        engine = sa.create_engine(self.url)
        tables = sa.MetaData()
        tables.reflect(engine)
        with engine.connect() as connection:
            return {t.name: [*connection.execute(t.select())] for t in tables.sorted_tables}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("dashboard"))


@pytest.fixture(scope="module")
def local(place: Place) -> Iterator[Server]:
    with running(place.url, place.folder) as server:
        yield server


@pytest.fixture(scope="module")
def behind_login(place: Place) -> Iterator[Server]:
    with running(place.url, place.folder, "--login", "login.txt") as server:
        yield server


# -- without a login, nothing


def test_the_routes_were_found() -> None:
    assert {"/dashboard", "/api/studies", "/api/studies/1", "/artifacts/1/1/ab-12"} <= set(READS)
    assert ("DELETE", "/api/studies/1") in WRITES
    assert len(routes()) > 25


def test_nothing_is_served_without_a_login(behind_login: Server) -> None:
    for method, path in EVERY:
        answer = behind_login.ask(method, path)
        assert answer.status == 401, (method, path)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert answer.body == (b"" if method == "HEAD" else b'{"reason": "log in"}')


def test_whoever_watches_over_the_process_needs_no_login_and_learns_nothing(
    behind_login: Server,
) -> None:
    answer = behind_login.ask("GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert behind_login.ask("HEAD", "/healthz").body == b""
    for method, path in (("POST", "/healthz"), ("GET", "/healthz/"), ("GET", "/healthz/../api")):
        assert behind_login.ask(method, path).status == 401, (method, path)


@pytest.mark.parametrize(
    "header", ["Bearer abc", "Basic", "Basic !", "Basic YW5u", "Basic /w==", "Negotiate YTpi"]
)
def test_half_a_login_is_none(behind_login: Server, header: str) -> None:
    assert behind_login.ask("GET", "/api/studies", Authorization=header).status == 401


def test_wrong_logins_get_nothing_and_are_slowed_down(place: Place) -> None:
    logged = []
    with running(place.url, place.folder, "--login", "login.txt") as server:
        assert server.ask("GET", "/api/studies", login=ANN).status == 200
        seen = []
        for number, (method, path) in enumerate(EVERY):
            wrong = ("ann:wrong horse", "nobody:correct horse", "ann:", ":")[number % 4]
            answer = server.ask(method, path, login=wrong)
            seen.append(answer.status)
            assert STUDY.encode() not in answer.body
            assert len(answer.body) < 100
        assert seen[:5] == [401] * 5
        assert set(seen[5:]) == {429}
        # Who was right before is not locked out by the others behind the same proxy.
        assert server.ask("GET", "/api/studies", login=ANN).status == 200
        assert server.end(signal.SIGTERM) == 0
        logged = [line for line in server.said if "a wrong login from 127.0.0.1" in line]
    assert len(logged) == 5
    assert "horse" not in "".join(server.said)


# -- a login that may look


def test_a_login_may_look_everywhere_and_changes_nothing(
    place: Place, behind_login: Server
) -> None:
    before = place.contents()
    for path in READS:
        answer = behind_login.ask("GET", path, login=ANN, Accept_Encoding="identity")
        # 404: nothing has the made-up ids.
        assert answer.status in (200, 302, 404), (path, answer.body)
    assert place.contents() == before


def test_who_may_look_may_not_write(place: Place, behind_login: Server) -> None:
    before = place.contents()
    body = json.dumps({"study_name": "x", "directions": ["minimize"], "state": "FAIL"}).encode()
    for method, path in EVERY:
        if method in ("GET", "HEAD"):
            continue
        answer = behind_login.ask(method, path, login=ANN, body=body)
        refusal = (403, b'{"reason": "this dashboard is read-only"}')
        assert (answer.status, answer.body) == refusal, (method, path)
    assert place.contents() == before


def test_the_login_may_come_from_the_environment(place: Place) -> None:
    lines = (("SEARCHAE_DASHBOARD_LOGIN", login_line("bob", "battery staple")),)
    with running(place.url, place.folder, environment=lines) as server:
        assert server.ask("GET", "/api/studies").status == 401
        assert server.ask("GET", "/api/studies", login="bob:battery staple").status == 200
        assert server.ask("GET", "/api/studies", login=ANN).status == 401


# -- writes


def test_a_login_may_write_where_that_is_allowed(place: Place) -> None:
    path = f"/api/studies/{place.made.study_id}/note"
    with running(place.url, place.folder, "--login", "login.txt", "--allow-writes") as server:
        host = f"127.0.0.1:{server.port}"

        def note() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(server.ask("GET", path[:-5], login=ANN).body)["note"]
            return found

        change = json.dumps({"version": note()["version"] + 1, "body": "changed"}).encode()

        def write(**headers: str) -> int:
            return server.ask("PUT", path, body=change, **headers).status

        assert write() == 401
        for foreign in ("http://evil.example", "null", f"http://{host}.evil.example", "http://["):
            assert write(login=ANN, Origin=foreign) == 403
        assert write(login=ANN, Sec_Fetch_Site="cross-site") == 403
        assert write(login=ANN, Sec_Fetch_Site="same-site") == 403
        assert note()["body"] != "changed"
        assert write(login=ANN, Origin=f"http://{host}", Sec_Fetch_Site="same-origin") == 200
        assert note()["body"] == "changed"


def test_the_page_makes_no_study_that_cannot_be_searched(place: Place) -> None:
    create = json.dumps({"study_name": "made", "directions": ["maximize"]}).encode()
    with running(place.url, place.folder, "--login", "login.txt", "--allow-writes") as server:
        answer = server.ask("POST", "/api/studies", body=create, login=ANN)
        assert answer.status == 403
        assert b"searchae tune" in answer.body
        names = json.loads(server.ask("GET", "/api/studies", login=ANN).body)["study_summaries"]
        assert [s["study_name"] for s in names] == [STUDY]


def test_on_this_machine_one_may_write_unless_read_only(place: Place, local: Server) -> None:
    path = f"/api/studies/{place.made.study_id}/note"
    version = json.loads(local.ask("GET", path[:-5]).body)["note"]["version"]
    note = json.dumps({"version": version + 1, "body": "mine"}).encode()
    assert local.ask("PUT", path, body=note, Origin="http://evil.example").status == 403
    assert local.ask("PUT", path, body=note).status == 200
    assert json.loads(local.ask("GET", path[:-5]).body)["note"]["body"] == "mine"
    with running(place.url, place.folder, "--read-only") as server:
        assert server.ask("GET", path[:-5]).status == 200
        assert server.ask("PUT", path, body=note).status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8080", "LOCALHOST:1"])
def test_this_machine_s_names_are_answered(local: Server, host: str) -> None:
    assert local.ask("GET", "/api/studies", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", "", "[", "0"],
)
def test_other_names_for_this_machine_are_not(local: Server, host: str) -> None:
    answer = local.ask("GET", "/api/studies", Host=host)
    assert answer.status == 403
    assert STUDY.encode() not in answer.body


# -- what is served


def test_what_was_uploaded_runs_no_script(place: Place, local: Server) -> None:
    made = place.made
    answer = local.ask("GET", f"/artifacts/{made.study_id}/{made.best_id}/{made.artifact_id}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    policy = answer.headers["Content-Security-Policy"].split(";")
    assert policy[0] == "sandbox"
    assert " default-src 'none'" in policy
    assert "script" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_every_answer_is_guarded(local: Server) -> None:
    for path in READS:
        headers = local.ask("GET", path, Accept_Encoding="identity").headers
        names = ("X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options")
        assert [headers.get_all(n) for n in names[:2]] == [["nosniff"], ["no-referrer"]], path
        assert len(headers.get_all(names[2]) or ()) == 1
        (policy,) = headers.get_all("Content-Security-Policy") or [""]
        assert "frame-ancestors" in policy
        assert ("sandbox" in policy) == (not path.startswith("/dashboard")), path


def test_a_client_that_names_no_encoding_gets_files_too(local: Server) -> None:
    """Like curl; the page names the files that it loads."""
    page = local.ask("GET", "/dashboard")
    paths = re.findall(r'src="(/static/[^"]+\.js)"', page.body.decode())
    answers = [local.ask("GET", path) for path in paths]
    assert {answer.status for answer in answers} == {200}
    assert max(len(answer.body) for answer in answers) > 100_000


@pytest.mark.parametrize(
    "name",
    ["..", "../../secret", "..%2f..%2fsecret", "%2e%2e%2fsecret", "/etc/passwd", "ab/../../secret"],
)
def test_an_artifact_s_id_does_not_leave_the_folder(place: Place, local: Server, name: str) -> None:
    (place.folder / "artifacts" / "secret").write_text("top secret")
    (place.folder / "secret").write_text("top secret")
    for path in (f"/artifacts/1/{name}", f"/artifacts/1/1/{name}", f"/static/{name}"):
        answer = local.ask("GET", path, Accept_Encoding="identity")
        assert answer.status in (403, 404), path
        assert b"top secret" not in answer.body


def test_an_id_from_the_database_does_not_leave_the_folder_either(tmp_path: Path) -> None:
    """Deleting a study deletes the files that it names."""
    url = f"sqlite:///{tmp_path / 'searchae.db'}"
    made = make_study(url, tmp_path / "artifacts")
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    meta = json.dumps({"artifact_id": "../../kept.txt", "filename": "x", "mimetype": "a/b"})
    with sa.create_engine(url).begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO study_system_attributes (study_id, key, value_json) "
                "VALUES (:study, 'artifacts:../../kept.txt', :meta)"
            ),
            {"study": made.study_id, "meta": json.dumps(meta)},
        )
    with running(url, tmp_path) as server:
        server.ask("DELETE", f"/api/studies/{made.study_id}", body=b"{}")
        assert server.ask("GET", "/api/studies").status == 200
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("kind", ["gone", "pipe", "link"])
def test_a_picture_that_is_gone_or_no_file_is_not_found(tmp_path: Path, kind: str) -> None:
    """A pipe would keep a thread for ever, and a link could show any file."""
    url = f"sqlite:///{tmp_path / 'searchae.db'}"
    made = make_study(url, tmp_path / "artifacts")
    upload = tmp_path / "artifacts" / "pictures" / made.artifact_id
    upload.unlink()
    if kind == "pipe":
        os.mkfifo(upload)
    elif kind == "link":
        (tmp_path / "secret").write_text("top secret")
        upload.symlink_to(tmp_path / "secret")
    with running(url, tmp_path) as server:
        path = f"/artifacts/{made.study_id}/{made.best_id}/{made.artifact_id}"
        assert server.ask("GET", path).status == 404
        assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(server.said)


def test_a_database_without_a_study_is_shown_empty(postgres_url: str, tmp_path: Path) -> None:
    with running(postgres_url, tmp_path) as server:
        assert server.ask("GET", "/dashboard").status == 200
        assert json.loads(server.ask("GET", "/api/studies").body) == {"study_summaries": []}
        assert server.ask("GET", "/api/studies/1").status == 404
    assert list(tmp_path.iterdir()) == [], "looking makes no folders"


# -- starting and ending


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_cleanly(place: Place, number: signal.Signals, code: int) -> None:
    with running(place.url, place.folder) as server:
        assert server.ask("GET", "/api/studies").status == 200
        assert server.end(number) == code
    assert "Traceback" not in "".join(server.said)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.address, server.port), timeout=5)


def test_a_port_in_use_is_said(
    command_line: Callable[..., subprocess.CompletedProcess[str]], place: Place
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command_line("dashboard", "--port", str(port), SEARCHAE_STORAGE=place.url)
    assert done.returncode == 2
    assert f"--port {port}: something else listens there" in done.stderr
    assert f"take another port: --port {port + 1}" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "db.example.org"])
def test_other_addresses_need_a_login(
    command_line: Callable[..., subprocess.CompletedProcess[str]], place: Place, host: str
) -> None:
    done = command_line("dashboard", "--host", host, SEARCHAE_STORAGE=place.url)
    assert done.returncode == 2
    assert "needs a login" in done.stderr
    assert "searchae dashboard --hash-password" in done.stderr


def test_a_login_opens_every_address(place: Place) -> None:
    with running(place.url, place.folder, "--host", "0.0.0.0", "--login", "login.txt") as server:
        assert server.ask("GET", "/api/studies", Host="tunes.example.org").status == 401
        answer = server.ask("GET", "/api/studies", Host="tunes.example.org", login=ANN)
        assert answer.status == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--login", "missing.txt"], "--login missing.txt: No such file or directory"),
        (["--login", "bad.txt"], "bad.txt, line 2: no login; write USER:scrypt$"),
        (["--login", "empty.txt"], "empty.txt: holds no login"),
        (["--allow-writes", "--read-only"], "exclude each other"),
        (["--host", "192.0.2.1", "--login", "login.txt"], "cannot listen there"),
        (["--storage", "sqlite:///missing.db"], "there is no database at "),
    ],
)
def test_mistakes_are_told(
    command_line: Callable[..., subprocess.CompletedProcess[str]],
    folder: Path,
    place: Place,
    words: list[str],
    said: str,
) -> None:
    (folder / "bad.txt").write_text("# a comment\nann:plain-password\n")
    (folder / "empty.txt").write_text("# nobody\n")
    (folder / "login.txt").write_text(place.login.read_text())
    done = command_line("dashboard", *words, SEARCHAE_STORAGE=place.url)
    assert done.returncode == 2
    assert said in done.stderr
    assert "plain-password" not in done.stderr
    assert not (folder / "missing.db").exists()


def test_a_login_file_that_others_read_is_warned_of(place: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared.txt"
    shared.write_text(place.login.read_text())
    shared.chmod(0o644)
    with running(place.url, place.folder, "--login", str(shared)) as server:
        assert "may be read by others; mend it with: chmod 600" in "".join(server.said)
    with running(place.url, place.folder, "--login", "login.txt") as server:
        assert "may be read" not in "".join(server.said)


def test_a_hashed_password_lets_in(tmp_path: Path, place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "searchae", "dashboard", "--hash-password", "eve"],
        input="a long phrase: with a colon\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("eve:scrypt$")
    assert "phrase" not in done.stdout + done.stderr
    file = tmp_path / "login.txt"
    file.write_text(done.stdout)
    with running(place.url, place.folder, "--login", str(file)) as server:
        login = "eve:a long phrase: with a colon"
        assert server.ask("GET", "/api/studies", login=login).status == 200
        assert server.ask("GET", "/api/studies", login="eve:a long phrase").status == 401


def test_the_database_s_password_is_never_shown(postgres_url: str, tmp_path: Path) -> None:
    url = sa.make_url(postgres_url).set(password="s3cret-{}").render_as_string(hide_password=False)
    with running(url, tmp_path) as server:
        assert server.ask("GET", "/api/studies").status == 200
        argv = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        assert server.end(signal.SIGTERM) == 0
    assert "***" in server.said[0]
    assert "s3cret" not in "".join(server.said) + argv


# -- clients that mean harm


def test_a_login_that_is_no_text_is_asked_for_again(behind_login: Server) -> None:
    answer = behind_login.ask("GET", "/api/studies", Authorization="Basic h\u00e4")
    assert answer.status == 401


@pytest.mark.fleet
def test_slow_clients_keep_nobody_out_and_are_closed(behind_login: Server) -> None:
    slow = [socket.create_connection((behind_login.address, behind_login.port)) for _ in range(150)]
    for client in slow:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-a: ")
    began = time.monotonic()
    assert behind_login.ask("GET", "/api/studies", login=ANN).status == 200
    assert time.monotonic() - began < 5
    open_ones = list(slow)
    while open_ones and time.monotonic() - began < 40:
        time.sleep(1)  # a byte now and then does not keep them
        open_ones = [client for client in open_ones if _is_open(client)]
    for client in slow:
        client.close()
    assert open_ones == []


def _connections(server: Server, count: int, begin: bytes, *, of: str) -> list[socket.socket]:
    where = (server.address, server.port)
    found = [socket.create_connection(where, source_address=(of, 0)) for _ in range(count)]
    for client in found:
        with contextlib.suppress(OSError):  # closed already
            client.sendall(begin)
    return found


def test_one_address_does_not_get_all_connections(behind_login: Server) -> None:
    greedy = _connections(behind_login, MAX_PER_ADDRESS + 30, b"GET / HT", of="127.0.0.2")
    assert behind_login.ask("GET", "/api/studies", login=ANN).status == 200
    assert sum(map(_is_open, greedy)) <= MAX_PER_ADDRESS
    for client in greedy:
        client.close()
    deadline, stays = time.monotonic() + 30, False
    while not stays and time.monotonic() < deadline:  # until the server has seen them closed
        (again,) = _connections(behind_login, 1, b"GET / HT", of="127.0.0.2")
        time.sleep(0.5)
        stays = _is_open(again)
        again.close()
    assert stays, "its connections count only while they are open"


def test_one_visitor_of_a_proxy_does_not_get_all_connections(place: Place) -> None:
    begin = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n"
    begin += b"X-Forwarded-For: 203.0.113.%d\r\n\r\n"
    with running(place.url, place.folder, "--login", "login.txt", "--proxy", "127.0.0.1") as server:
        greedy = _connections(server, MAX_PER_ADDRESS + 30, begin % 5, of="127.0.0.1")
        others = [_connections(server, 1, begin % (6 + i), of="127.0.0.1")[0] for i in range(20)]
        deadline = time.monotonic() + 30
        while sum(map(_is_open, greedy)) > MAX_PER_ADDRESS and time.monotonic() < deadline:
            time.sleep(1)
        assert 0 < sum(map(_is_open, greedy)) <= MAX_PER_ADDRESS
        assert all(map(_is_open, others))
        for client in (*greedy, *others):
            client.close()


def _is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        client.sendall(b"a")
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_behind_a_proxy_each_visitor_has_a_limit_of_their_own(place: Place) -> None:
    words = ("--login", "login.txt", "--proxy", "127.0.0.1")
    with running(place.url, place.folder, *words) as server:

        def status(login: str, visitor: str) -> int:
            return server.ask("GET", "/api/studies", login=login, X_Forwarded_For=visitor).status

        wrong = [status(f"ann:wrong {i}", "203.0.113.5") for i in range(6)]
        assert wrong == [401] * 5 + [429]
        assert status("ann:also wrong", "203.0.113.6") == 401
        assert status(ANN, "203.0.113.7") == 200
