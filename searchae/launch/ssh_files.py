"""Carries files between this machine and hosts that share no folder with it.

Checkpoints, pictures and measurements come home every few seconds, as they are written: a host that
is lost cannot be asked for them. A worker that goes on with a trial of another host asks for the
trial's checkpoint and waits for it. Decoded images are sent once.
"""

from __future__ import annotations

import logging
import tarfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from searchae.errors import UserError
from searchae.files import SharedFolder
from searchae.launch.ssh_connection import Connection, HostError
from searchae.launch.ssh_hosts import HostState
from searchae.launch.ssh_link import Link

log = logging.getLogger(__name__)

KINDS = ("checkpoints", "records", "pictures")
"""Folders of a study that come home."""
FETCH_S = 120.0
"""Seconds after which a transfer is given up, and tried again later."""
SEND_S = 3600.0
KEPT = 4
"""Data sets that a host keeps in its cache."""
_MIRRORED = ("checkpoints", "pictures")
_LARGEST, _LARGEST_IMAGES = 2**31, 2**40


class Carrier:
    """Brings files home, and to workers that ask for them.

    Args:
        links: The hosts.
        artifacts: The folder here.
        run: The name of the launcher's folder on the hosts.
        period_s: Seconds between two rounds, at least; a slow one is followed by a longer pause.
    """

    def __init__(
        self, links: Sequence[Link], artifacts: Path, *, run: str, period_s: float
    ) -> None:
        self._thread = threading.Thread(target=self._work, name="ssh files", daemon=True)
        self._links = [link for link in links if not link.state.shares("artifacts")]
        self._all, self._artifacts, self._run, self._period_s = links, artifacts, run, period_s
        self._known: dict[str, dict[str, Any]] = {}
        self._keepers: dict[str, str] = {}
        self._locks = {link.name: threading.Lock() for link in links}
        self._ended = threading.Event()
        self.studies: set[str] = set()

    def start(self) -> None:
        """Begins to carry files, until ``finish``."""
        self._thread.start()

    def _work(self) -> None:
        due = time.monotonic() + self._period_s
        while not self._ended.wait(min(0.1, self._period_s)):
            self._serve_wanted()
            if time.monotonic() >= due:
                began = time.monotonic()
                self.collect()
                took = time.monotonic() - began
                due = time.monotonic() + max(self._period_s, 4 * took)

    def finish(self) -> None:
        """Brings home what is left, and ends."""
        self._ended.set()
        self._thread.join()
        self.collect()

    def collect(self) -> None:
        """Brings home what hosts that can be reached have written since the last time."""
        links = [link for link in self._links if link.is_connected]
        if links:
            with ThreadPoolExecutor(len(links)) as pool:
                list(pool.map(self._fetch, links))

    def _fetch(self, link: Link) -> None:
        name = link.name
        with self._locks[name]:
            known = self._known.setdefault(name, {})
            request = {
                "do": "get",
                "run": self._run,
                "known": known,
                "keeper": self._keepers.get(name, ""),
                "kinds": KINDS,
            }
            try:
                with link.connection.calling(request, timeout_s=FETCH_S) as call:
                    told = call.answer()
                    if told["keeper"] != self._keepers.get(name, ""):
                        known.clear()  # a new folder: what is missing in it was not removed
                        self._keepers[name] = told["keeper"]
                    with tarfile.open(fileobj=cast("Any", call), mode="r|") as archive:
                        for member in archive:
                            self._take(archive, member)
                            known[member.name] = told["files"].get(member.name)
            except (HostError, OSError, ValueError, tarfile.TarError) as e:
                log.info("%s: files could not be fetched: %s", name, e)
                return
            for gone in known.keys() - told["files"].keys():
                del known[gone]
                self._remove(gone)

    def _place(self, name: str) -> tuple[SharedFolder, str] | None:
        """Returns where a file belongs; None for one that no worker of this launcher writes."""
        study, _, rest = name.partition("/")
        kind, _, file = rest.partition("/")
        if study not in self.studies or kind not in KINDS or "/" in file or file[:1] in ("", "."):
            return None
        return SharedFolder(self._artifacts / study / kind), file

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        place, source = self._place(member.name), archive.extractfile(member)
        if place is None or source is None or not 0 <= member.size <= _LARGEST:
            return
        folder, name = place
        with folder.writing(name) as file:
            while part := source.read(2**20):
                file.write(part)

    def _remove(self, name: str) -> None:
        place = self._place(name)
        if place is not None and place[0].path.name in _MIRRORED:
            with suppress(OSError):
                place[0].remove(place[1])

    def _serve_wanted(self) -> None:
        for link in self._all:
            for wanted in link.wanted:
                self._bring(link, wanted)
                link.serve(wanted)

    def _bring(self, link: Link, wanted: str) -> None:
        """Sends the newest checkpoints of a trial, ``STUDY@NUMBER``, wherever it ran before."""
        study, _, number = wanted.rpartition("@")
        if study not in self.studies or not number.isdigit():
            return
        for other in self._links:
            if other is not link and other.is_connected:
                self._fetch(other)
        if link.state.shares("artifacts"):
            return
        folder = self._artifacts / study / "checkpoints"
        names = [n for n in SharedFolder(folder).names() if n.startswith(f"{number}-")][-2:]
        root = f"{link.state.found['home']}/ssh/{self._run}/artifacts/{study}/checkpoints"
        try:
            send_files(link.connection, root, folder, names)
        except (HostError, OSError) as e:
            log.warning("%s: the checkpoint of trial %s was not sent: %s", link.name, number, e)


def send_files(
    connection: Connection, root: str, folder: Path, names: Collection[str], *, keep: int = 0
) -> None:
    """Sends files of a folder.

    Args:
        connection: To the host.
        root: The folder there.
        folder: The folder here.
        names: The files.
        keep: How many folders stay beside ``root``, those that were written last; 0 for all.

    Raises:
        HostError: The host cannot be reached, or cannot write them.
        OSError: One cannot be read.
    """
    if not names:
        return
    request = {"do": "put", "root": root, "keep": keep}
    with connection.calling(request, timeout_s=SEND_S) as call:
        try:
            with tarfile.open(fileobj=call.stdin, mode="w|") as archive:
                for name in names:
                    with SharedFolder(folder).reading(name, limit=_LARGEST_IMAGES) as file:
                        archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
            call.stdin.close()
        except BrokenPipeError:
            call.fail()
        call.answer()


def send_images(
    hosts: Sequence[tuple[HostState, Connection]], folder: Path, note: Callable[[str], None]
) -> None:
    """Sends decoded images to the hosts that do not have them, all at once.

    Args:
        hosts: The hosts.
        folder: The images here: ``DATA/decoded/HASH``.
        note: Told what is sent.

    Raises:
        UserError: A host has no room for them, or they cannot be sent.
    """
    here = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}

    def send(reached: tuple[HostState, Connection]) -> str:
        state, connection = reached
        name, root = state.host.target, f"{state.found['data']}/decoded/{folder.name}"
        try:
            there = connection.call({"do": "sizes", "root": root}, timeout_s=FETCH_S)
            names = [n for n, size in here.items() if there["sizes"].get(n) != size]
            size = sum(here[n] for n in names)
            if size > there["free"]:
                return (
                    f"{name}: no room for the images in {root}: {_megabytes(size)} needed, "
                    f"{_megabytes(there['free'])} free; name another folder: data=DIR in --hosts"
                )
            if names:
                note(f"{name}: sending the images ({_megabytes(size)}) to {state.found['data']}")
            send_files(connection, root, folder, names, keep=0 if state.host.data else KEPT)
        except (HostError, OSError) as e:
            return f"{name}: the images cannot be sent to {root}: {e}"
        return ""

    without = [reached for reached in hosts if not reached[0].shares("data")]
    if without:
        with ThreadPoolExecutor(len(without)) as pool:
            faults = [fault for fault in pool.map(send, without) if fault]
        if faults:
            raise UserError(*faults)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
