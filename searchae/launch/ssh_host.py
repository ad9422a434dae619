"""Runs on a host of the ssh launcher: checks it, installs searchae, and takes and gives files.

It is sent there over ssh, as it is, and needs nothing but Python 3.8. The first line of standard
input, after this source, is a request in JSON; its ``do`` names one of ``CALLS``. The answer
follows the line ``READY``, since a login script may have written something before.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from typing import Any

READY = "searchae-host 1"
PROBE_S = 90


def home() -> str:
    """Returns searchae's folder in the user's home, as the launcher names it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "searchae")


def inside(root: str, name: str) -> str:
    """Returns a path below a folder for a name that came with a file."""
    path = os.path.normpath(os.path.join(root, name))
    if not path.startswith(os.path.normpath(root) + os.sep):
        raise ValueError(f"{name!r} leads out of {root}")
    return path


def put(request: dict[str, Any]) -> None:
    """Takes files in: a tar stream follows. Each is complete or not there."""
    root = os.path.expanduser(request["root"])
    os.makedirs(root, exist_ok=True)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            source = archive.extractfile(member)
            if source is None or not member.isreg():
                continue
            path = inside(root, member.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
            with open(part, "wb") as file:
                shutil.copyfileobj(source, file)
            os.replace(part, path)
    if request.get("keep"):  # a cache: the oldest folders beside this one are in the way
        beside = os.path.dirname(root)
        paths = [os.path.join(beside, n) for n in os.listdir(beside) if not n.startswith(".")]
        for path in sorted(paths, key=os.path.getmtime)[: -request["keep"]]:
            shutil.rmtree(path, ignore_errors=True)
    answer({})


def sizes(request: dict[str, Any]) -> None:
    """Says how large the files in a folder are, and how much room there is."""
    root = os.path.expanduser(request["root"])
    names = os.listdir(root) if os.path.isdir(root) else []
    there = root
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    answer(
        {
            "sizes": {n: os.path.getsize(os.path.join(root, n)) for n in names},
            "free": shutil.disk_usage(there).free,
        }
    )


def get(request: dict[str, Any]) -> None:
    """Gives files out: their list, then a tar stream of those that the launcher does not have."""
    folder = os.path.join(home(), "ssh", os.path.basename(request["run"]))
    root, known = os.path.join(folder, "artifacts"), request["known"]
    found: dict[str, list[int]] = {}
    keeper = ""
    with suppress(FileNotFoundError), open(os.path.join(folder, "keeper")) as file:
        keeper = file.read()
    if keeper != request["keeper"]:
        known = {}
    for kind in request["kinds"]:
        for study in os.listdir(root) if os.path.isdir(root) else []:
            path = os.path.join(root, study, kind)
            for name in os.listdir(path) if os.path.isdir(path) else []:
                with suppress(FileNotFoundError):
                    about = os.stat(os.path.join(path, name))
                    if not name.startswith("."):
                        found["/".join((study, kind, name))] = [about.st_size, about.st_mtime_ns]
    answer({"keeper": keeper, "files": found})
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for relative, state in sorted(found.items()):
            if known.get(relative) != state:
                with suppress(FileNotFoundError):  # a newer checkpoint has taken its place
                    archive.add(os.path.join(root, relative), relative)


def probe(request: dict[str, Any]) -> None:
    """Says what this host has; see ``launch.ssh_probe`` for the part that needs searchae."""
    shared = {k: is_shared(v) for k, v in request["tokens"].items()}
    here = request["data_here"] if shared.get("data") else os.path.join(home(), "data")
    data = os.path.expanduser(request["data"] or here)
    shared["data"] = data == request["data_here"] and shared.get("data", False)
    found = {
        "cores": len(os.sched_getaffinity(0)),
        "memory": available_memory(),
        "home": home(),
        "data": data,
        "shared": shared,
        "python": "",
        "python_version": "",
        "searchae": None,
        "missing": [],
        "gpus": 0,
        "base": "",  # for --install
        "base_missing": [],
    }
    try:
        os.makedirs(data, exist_ok=True)
        found["writable"] = os.access(data, os.W_OK)
        found["free"] = shutil.disk_usage(data).free
    except OSError as e:
        found["writable"], found["free"] = False, 0
        found["problem"] = str(e)
    best = -1
    for python in candidates(request):
        about = ask_python(python, request["probe"], request["input"])
        if about is None:
            continue
        version = [int(part) for part in about["python_version"].split(".")]
        is_better = not found["base"] or (found["base_missing"] and not about["missing"])
        if version >= [3, 11] and is_better:
            found["base"], found["base_missing"] = python, about["missing"]
        fit = bool(about["searchae"]) + (about["searchae"] == request["version"])
        fit = 2 * fit + (not about["missing"])
        if fit > best:
            best = fit
            found.update(about, python=python)
        if fit == 5:
            break
    answer(found)


def available_memory() -> int:
    """Returns bytes of memory that new processes can have."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0


def is_shared(token: str) -> bool:
    """Returns whether the launcher's file is here: then the folder is shared."""
    return os.path.exists(token) and os.access(os.path.dirname(token), os.W_OK)


def candidates(request: dict[str, Any]) -> list[str]:
    """Returns the Pythons that may have searchae, the likeliest first."""
    own = os.path.join(home(), "venvs", request["venv"], "bin", "python")
    if request["python"]:
        given = os.path.expanduser(request["python"])
        return [p for p in (own, given) if os.access(p, os.X_OK)]
    local = os.path.expanduser("~/.local/bin")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), local])
    found = [own, request["here"]]
    command = shutil.which("searchae", path=path)
    if command:
        with open(command, "rb") as file:
            line = file.readline(4096)
        if line.startswith(b"#!"):
            found.append(os.fsdecode(line[2:].strip().split()[0]))
    found += [shutil.which(n, path=path) for n in ("python3", "python", "python3.12", "python3.11")]
    return [p for p in dict.fromkeys(found) if p and os.access(p, os.X_OK)]


def ask_python(python: str, code: str, text: str) -> dict[str, Any] | None:
    """Runs the probe in a Python; None if it cannot."""
    try:
        done = subprocess.run(
            [python, "-c", code],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return found


def install(request: dict[str, Any]) -> None:
    """Installs the wheel that follows into an environment of its own."""
    wheel = sys.stdin.buffer.read(request["size"])
    root = os.path.join(home(), "venvs")
    folder = os.path.join(root, request["venv"])
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, ".lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)
        problem = make_environment(request, folder, wheel)
        if problem:
            shutil.rmtree(folder, ignore_errors=True)
    answer({"problem": problem})


def make_environment(request: dict[str, Any], folder: str, wheel: bytes) -> str:
    """Makes an environment with the wheel; returns why that is not possible, or an empty text."""
    base, use_pip = request["python"], request["use_pip"]
    words = [base, "-m", "venv", "--system-site-packages", folder]
    problem = run(words if use_pip else [*words, "--without-pip"])
    if problem:
        return f"no environment can be made with {base} -m venv: {problem}"
    python = os.path.join(folder, "bin", "python")
    code = (
        "import json, sys, sysconfig; print(json.dumps([sysconfig.get_path('purelib'), sys.path]))"
    )
    site, _ = json.loads(subprocess.check_output([python, "-c", code]))
    _, paths = json.loads(subprocess.check_output([base, "-c", code]))
    # The packages of the base itself, which the new environment does not see if the base is one,
    # too. They come last: another searchae among them stays unseen.
    lent = [path for path in paths if path.endswith(("site-packages", "dist-packages"))]
    with open(os.path.join(site, "host-packages.pth"), "w") as file:
        file.write("".join(f"{path}\n" for path in lent))
    path = os.path.join(folder, request["wheel"])
    with open(path, "wb") as file:
        file.write(wheel)
    if use_pip:
        problem = run([python, "-m", "pip", "install", "--quiet", path, *request["further"]])
        if problem:
            return f"pip: {problem}"
    else:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    os.unlink(path)
    return ""


def run(words: list[str]) -> str:
    """Runs a command; returns its last words if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if not done.returncode:
        return ""
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return " ".join(lines[-3:]) or f"exit code {done.returncode}"


def answer(value: object) -> None:
    """Writes the one answer of a call."""
    sys.stdout.write(f"{READY}\n{json.dumps(value)}\n")
    sys.stdout.flush()


CALLS = {
    "get": get,
    "install": install,
    "probe": probe,
    "put": put,
    "sizes": sizes,
}

if __name__ == "__main__":
    asked = json.loads(sys.stdin.buffer.readline().decode())
    CALLS[asked["do"]](asked)
