"""Real hosts for ssh on this machine, each with its own network, processes, name and home."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.ray_cluster import family

SSHD = "/usr/sbin/sshd"
_NUMBERS = itertools.count()
SERVER = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
AcceptEnv none
MaxStartups 100
MaxSessions 100
SetEnv HOME=/run/home TMPDIR=/run/tmp {environment}
"""
CLIENT = """
Host {names}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
# Its own /run: sshd wants a folder there, and it has the user's home.
ENTER = """
set -e
hostname "$0"
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/sshd /run/home /run/tmp
for folder in $HIDDEN; do mount -t tmpfs none "$folder"; done
if [ -n "$ALONE" ]; then
  mount -t tmpfs none /dev/shm
  awk '$1 ~ "^/|^overlay" && $2 !~ "^/run/" {print $2}' /proc/self/mounts |
    while read -r at; do mount -o remount,bind,ro "$at"; done
fi
ip link set lo up
exec "$@"
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def bare_python(folder: Path) -> Path:
    """Makes a Python with all that searchae needs, but without it; returns its path."""
    venv.create(folder, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    # Appended, and without its own .pth files: an editable searchae there stays unseen.
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


class SshHosts:
    """Hosts with one sshd each, on a bridge; use it in a ``with`` block.

    In the block, ``ssh`` of this process and its children knows the hosts by their names and can
    log in to them.

    Args:
        names: The hosts' names.
        hidden: Folders of this machine that no host sees; each host has empty ones there.
        environment: Variables of what runs on the hosts.
        alone: Whether a host can write nothing that another host, or this machine, would see. Its
            home and its temporary files are its own anyway.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        hidden: Sequence[Path] = (),
        environment: str = "",
        alone: bool = False,
    ) -> None:
        if os.geteuid() or not shutil.which("ip") or not Path(SSHD).exists():
            pytest.skip("needs root and Debian's iproute2 and openssh-server")
        self.folder = Path(tempfile.mkdtemp(prefix="ssh-hosts-", dir="/tmp"))
        number = os.getpid() + 1000 * next(_NUMBERS)
        self._mark = f"{number % 10000}"
        self._net = f"10.{177 + number % 70}.{number // 70 % 250}"
        self.address = f"{self._net}.1"
        self.names = list(names)
        self._hidden = list(hidden)
        self._environment, self._alone = environment, "yes" if alone else ""
        self._sshds: dict[str, subprocess.Popen[bytes]] = {}
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> SshHosts:
        try:
            self._write_keys()
            self._bridge()
            for name in self.names:
                self._add(name)
                self.start(name)
        except subprocess.CalledProcessError as e:
            self.__exit__(None, None, None)
            pytest.skip(f"no network can be made here: {e.stderr}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.undo()
        for name in list(self._sshds):
            self.cut_power(name)
        for name in self.names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", self._space(name))
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", f"hb{self._mark}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str) -> None:
        """Switches a host on, and waits until it can be logged in to."""
        enter = ["ip", "netns", "exec", self._space(name)]
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--mount"]
        hidden = " ".join(map(str, self._hidden))
        with (self.folder / f"{name}.log").open("ab") as log:
            self._sshds[name] = subprocess.Popen(
                [
                    *(*enter, *alone, "sh", "-c", ENTER, name),
                    *(SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")),
                ],
                env={**os.environ, "HIDDEN": hidden, "ALONE": self._alone},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while subprocess.run(["ssh", name, "true"], capture_output=True, check=False).returncode:
            log_text = (self.folder / f"{name}.log").read_text()
            assert time.monotonic() < deadline, f"{name} does not start: {log_text}"
            time.sleep(0.1)

    def cut_power(self, name: str) -> None:
        """Ends all that runs on a host, at once."""
        process = self._sshds.pop(name)
        for pid in family(process.pid)[1:2]:  # unshare's child, the host's first process
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()

    def plug(self, name: str, *, into: bool) -> None:
        """Plugs a host's cable in, or pulls it out."""
        ip("link", "set", self._outer(name), "up" if into else "down")

    def end_sessions(self, name: str) -> None:
        """Breaks every connection to a host off, as a router that is restarted does."""
        for pid in family(self._sshds[name].pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sshd: root@"):
                    os.kill(pid, signal.SIGKILL)

    def processes(self, name: str, text: str = "") -> list[int]:
        """Those on a host besides sshd whose command line holds a text, seen from outside."""
        found = []
        for pid in family(self._sshds[name].pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if text in line and not line.startswith(("sshd", SSHD, "unshare", "ip ", "sh ")):
                    found.append(pid)
        return found

    def run(self, name: str, command: str) -> str:
        """What a command on a host writes."""
        done = subprocess.run(["ssh", name, command], capture_output=True, text=True, check=True)
        return done.stdout

    def _write_keys(self) -> None:
        for key in ("host_key", "user_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            subprocess.run(words, check=True)
        (self.folder / "sshd_config").write_text(
            SERVER.format(folder=self.folder, environment=self._environment)
        )
        public = (self.folder / "host_key.pub").read_text().split()[:2]
        known = [" ".join((self._address(name), *public)) for name in self.names]
        (self.folder / "known_hosts").write_text("\n".join(known) + "\n")
        blocks = [f"Host {name}\n  HostName {self._address(name)}\n" for name in self.names]
        blocks.append(CLIENT.format(names=" ".join(self.names), folder=self.folder))
        (self.folder / "config").write_text("".join(blocks))
        # ssh has no variable that names its configuration; the user's own is not touched.
        (self.folder / "bin").mkdir()
        wrapper = self.folder / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.folder}/config "$@"\n')
        wrapper.chmod(0o755)
        self._patch.setenv("PATH", f"{self.folder / 'bin'}:{os.environ['PATH']}")

    def _bridge(self) -> None:
        bridge = f"hb{self._mark}"
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", f"{self.address}/24", "dev", bridge)
        ip("link", "set", bridge, "up")

    def _add(self, name: str) -> None:
        inner, outer, space = (
            f"hi{self._number(name)}{self._mark}",
            self._outer(name),
            self._space(name),
        )
        ip("netns", "add", space)
        ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
        ip("link", "set", outer, "master", f"hb{self._mark}", "up")
        ip("-n", space, "address", "add", f"{self._address(name)}/24", "dev", inner)
        ip("-n", space, "link", "set", inner, "up")

    def _number(self, name: str) -> int:
        return self.names.index(name) + 2

    def _address(self, name: str) -> str:
        return f"{self._net}.{self._number(name)}"

    def _outer(self, name: str) -> str:
        return f"ho{self._number(name)}{self._mark}"

    def _space(self, name: str) -> str:
        return f"searchae-ssh-{name}-{self._mark}"
