"""What ``--hosts`` takes, how hosts get to the database, and the wheel that is installed there."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from searchae import __version__
from searchae.errors import UserError
from searchae.launch.ssh_database import is_on_this_machine, tunnel_target, tunnel_url
from searchae.launch.ssh_hosts import Host, HostState, parse_hosts
from searchae.launch.ssh_install import build_wheel, environment_name, package_files
from searchae.storage.url import parse_url


def test_hosts_are_named_in_a_list_or_in_a_file(tmp_path: Path) -> None:
    assert parse_hosts("gpu1, me@gpu2:2") == [Host("gpu1"), Host("me@gpu2", workers=2)]
    file = tmp_path / "hosts.txt"
    file.write_text(
        "# ours\n\ngpu1:3  # the new one\ngpu2 workers=2 python=~/venv/bin/python data=/big\n"
    )
    assert parse_hosts(str(file)) == [
        Host("gpu1", workers=3),
        Host("gpu2", workers=2, python="~/venv/bin/python", data="/big"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no host"),
        ("gpu1,", None),
        ("gpu1:0", "'gpu1:0': write HOST or HOST:WORKERS"),
        ("gpu1:x", "write HOST or HOST:WORKERS"),
        ("::1", "an IPv6 address belongs into ~/.ssh/config"),
        ("-oProxyCommand=touch x", "write HOST or HOST:WORKERS"),
        ("gpu1,gpu1", "gpu1 is named twice; write gpu1:2 for two workers"),
        ("no/such/file", "there is no such file"),
    ],
)
def test_what_is_no_host_is_refused(text: str, told: str | None) -> None:
    if told is None:
        assert parse_hosts(text) == [Host("gpu1")]
        return
    with pytest.raises(UserError, match=told) as refused:
        parse_hosts(text)
    assert str(refused.value).startswith(f"--hosts {text}: ")


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hosts.txt"
    file.write_text("gpu1 pyton=/x")
    with pytest.raises(UserError, match="gpu1: 'pyton=/x': did you mean 'python'"):
        parse_hosts(str(file))


def test_a_host_gets_as_many_workers_as_were_asked_for_else_gpus_else_cores_up_to_four() -> None:
    found = {"cores": 64, "gpus": 2}
    assert HostState(Host("a", workers=5), found).workers == 5
    assert HostState(Host("a"), found).workers == 2
    assert HostState(Host("a"), {"cores": 64, "gpus": 0}).workers == 4
    assert HostState(Host("a"), {"cores": 2, "gpus": 0}).workers == 2


@pytest.mark.parametrize(
    ("text", "is_here", "target", "there"),
    [
        (
            "postgresql://me:pw@db.example.org/x?sslmode=verify-full",
            False,
            "db.example.org:5432",
            "me:pw@db.example.org:4444/x?hostaddr=127.0.0.1&sslmode=verify-full",
        ),
        ("postgresql://me@localhost:5433/x", True, "localhost:5433",
         "me@localhost:4444/x?hostaddr=127.0.0.1"),
        ("postgresql://me@[::1]/x", True, "[::1]:5432", None),
        ("postgresql://me@/x?host=/run/pg&port=5433", True, "/run/pg/.s.PGSQL.5433",
         "me@127.0.0.1:4444/x"),
        ("postgresql://me@10.0.0.7:5444/x", False, "10.0.0.7:5444", None),
    ],
)  # fmt: skip
def test_a_tunnel_leads_to_the_database(
    text: str, is_here: bool, target: str, there: str | None
) -> None:
    url = parse_url(text)
    assert is_on_this_machine(url) == is_here
    assert tunnel_target(url) == target
    if there is not None:
        shown = tunnel_url(url, 4444).render_as_string(hide_password=False)
        assert shown == f"postgresql+psycopg://{there}"


def test_the_wheel_has_the_package_with_its_studies_and_pip_takes_it(tmp_path: Path) -> None:
    wheel = tmp_path / f"searchae-{__version__}-py3-none-any.whl"
    wheel.write_bytes(build_wheel())
    names = zipfile.ZipFile(io.BytesIO(build_wheel())).namelist()
    assert {"searchae/__main__.py", "searchae/studies/svhn.toml"} <= set(names)
    assert not [n for n in names if "__pycache__" in n]
    words = ("install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path / "at"))
    subprocess.run([sys.executable, "-m", "pip", *words, str(wheel)], check=True, timeout=120)
    installed = tmp_path / "at" / "searchae" / "errors.py"
    assert installed.read_bytes() == package_files()["searchae/errors.py"]


def test_an_environment_is_named_after_the_code() -> None:
    version, _, code = environment_name().rpartition("-")
    assert version == __version__
    assert len(code) == 12
