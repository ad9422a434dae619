"""What runs on a host of the ssh launcher. It is sent there over ssh, and needs only Python 3.8.

The first line of standard input, after this source, is a request in JSON; its ``do`` names one of
``CALLS``. The answer follows the line ``READY``, since a login script may have written something
before. Nothing that is secret stands in an argument of any process.

``serve`` is the one that lasts: it starts a keeper, which leaves the session and runs the workers,
and passes lines between ssh and the keeper's socket. The keeper ends its workers and itself when
it has not heard of the launcher for ``lease_s`` seconds.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress

READY = "searchae-host 1"
CHUNK = 2**18  # bytes of a log in one answer
TICK_S = 0.1
KILL_S = 20.0  # seconds that workers get to put their trials back once the lease has expired
OLD_S = 7 * 86400


def home():
    """Returns searchae's folder in the user's home, as the launcher names it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "searchae")


def run_folder(run):
    """Returns the folder of one launcher's workers, for the user alone."""
    folder = os.path.join(home(), "ssh", os.path.basename(run))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    return folder


def inside(root, name):
    """Returns a path below a folder for a name that came with a file."""
    path = os.path.normpath(os.path.join(root, name))
    if not path.startswith(os.path.normpath(root) + os.sep):
        raise ValueError("%r leads out of %s" % (name, root))
    return path


class Process:
    """A worker; its output goes to a file in the launcher's folder on this host."""

    def __init__(self, spec, folder):
        self.began, self.ended, self.told = time.monotonic(), None, 0
        self.log = inside(folder, spec["id"] + ".log")
        # A worker leaves when the process that is named here has died.
        environment = dict(os.environ, **spec["environment"], SEARCHAE_PARENT=str(os.getpid()))
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    spec["argv"],
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as e:
                log.write(("%s\n" % e).encode())
                self.process, self.ended = None, (2, 0.0)

    def signal(self, number):
        """Sends a signal once; SIGKILL to all that the worker has started, too."""
        if self.ended or self.told in (number, signal.SIGKILL):
            return
        self.told = number
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                os.kill(self.process.pid, number)

    def look(self):
        """Notes the end of the worker, and ends what it has left behind."""
        if self.ended:
            return
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, self.process.pid, flags):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
            self.ended = (code, time.monotonic() - self.began)

    def output(self, offset):
        """Returns what follows in the log, and the log's length."""
        with open(self.log, "rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(offset)
            return base64.b64encode(log.read(CHUNK)).decode(), size


class Keeper:
    """Runs the workers of one launcher until it says that it is over, or is not heard of."""

    def __init__(self, folder, lease_s):
        self.folder, self.lease_s = folder, lease_s
        self.uid = "%d-%d" % (os.getpid(), time.time_ns())
        self.jobs, self.strays, self.over = {}, [], False
        self.heard, self.expired = time.monotonic(), None
        self.server = socket.socket(socket.AF_UNIX)
        os.chdir(folder)  # a socket's whole path may be no longer than 107 bytes
        with suppress(FileNotFoundError):
            os.unlink("socket")
        self.server.bind("socket")
        self.server.listen(4)
        os.makedirs("wanted", exist_ok=True)
        with open("keeper", "w") as file:
            file.write(self.uid)
        self.client, self.buffer = None, b""

    def run(self):
        """Answers until it is over, then leaves nothing behind."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.expire())
        while not self.over:
            sockets = [self.server] + ([self.client] if self.client else [])
            ready, _, _ = select.select(sockets, [], [], TICK_S)
            if self.client in ready:
                self.read()
            if self.server in ready:  # the launcher has connected again
                self.drop()
                self.client, _ = self.server.accept()
                self.client.settimeout(30)
            self.look()
        self.end()

    def look(self):
        """Looks which workers have ended, and whether the lease has expired."""
        now = time.monotonic()
        for process in [*self.jobs.values(), *self.strays]:
            process.look()
        self.strays = [p for p in self.strays if not p.ended]
        if self.expired is None and now > self.heard + self.lease_s:
            self.expire()
        if self.expired is not None:
            alive = [p for p in self.jobs.values() if not p.ended]
            if not alive and not self.strays:
                self.over = True
            elif now > self.expired + KILL_S:
                for process in alive:
                    process.signal(signal.SIGKILL)

    def expire(self):
        """Tells the workers to put their trials back."""
        if self.expired is None:
            self.expired = time.monotonic()
            for process in self.jobs.values():
                process.signal(signal.SIGTERM)

    def end(self):
        """Ends every worker, and removes the folder."""
        for process in [*self.jobs.values(), *self.strays]:
            process.signal(signal.SIGKILL)
        for process in [*self.jobs.values(), *self.strays]:
            while not process.ended:
                process.look()
                time.sleep(0.02)
        os.chdir("/")
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop(self):
        """Forgets a connection that has ended."""
        if self.client:
            self.client.close()
        self.client, self.buffer = None, b""

    def read(self):
        """Answers each whole line that has come."""
        try:
            part = self.client.recv(2**16)
            if not part:
                return self.drop()
            self.buffer += part
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                answer = self.answer(json.loads(line.decode()))
                self.client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self.drop()
        return None

    def answer(self, request):
        """Does what a request asks for; all of it may be asked for again.

        ``jobs``: the ids that the launcher knows; others are ended. ``start``: their specs.
        ``signal``: the last signal that they shall have got. ``offsets``: how much of each log
        has come home. ``served``: the files that were wanted and have come. ``over``: to end.
        """
        self.heard = time.monotonic()
        known = set(request["jobs"])
        for name in [n for n in self.jobs if n not in known]:
            process = self.jobs.pop(name)
            process.signal(signal.SIGKILL)
            self.strays.append(process)
        for spec in request["start"]:
            if spec["id"] not in self.jobs and self.expired is None:
                self.jobs[spec["id"]] = Process(spec, self.folder)
        for process in self.jobs.values():
            if request["signal"]:
                process.signal(request["signal"])
            process.look()
        for name in request["served"]:
            with suppress(FileNotFoundError):
                os.unlink(inside(self.folder, os.path.join("wanted", name)))
        if request["over"]:
            self.over = True
        told = {}
        for name, process in self.jobs.items():
            text, size = process.output(request["offsets"].get(name, 0))
            told[name] = {"output": text, "size": size, "ended": process.ended}
        wanted = os.path.join(self.folder, "wanted")
        return {
            "keeper": self.uid,
            "jobs": told,
            "expired": self.expired is not None,
            "wanted": sorted(os.listdir(wanted)) if os.path.isdir(wanted) else [],
        }


def connect(folder):
    """Returns a connection to the folder's keeper; None if there is none."""
    os.chdir(folder)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect("socket")
    except OSError:
        client.close()
        return None
    return client


def start_keeper(folder, lease_s, lock):
    """Starts a keeper that outlives this session."""
    if os.fork():
        os.wait()
        return
    lock.close()  # a lock is held for as long as any process has its file open
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(os.path.join(folder, "errors"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Keeper(folder, lease_s).run()
    finally:
        os._exit(0)


def serve(request):
    """Passes lines between ssh and the keeper, which is started if there is none."""
    remove_old()
    folder = run_folder(request["run"])
    with open(os.path.join(folder, "lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = connect(folder)
        if client is None:
            start_keeper(folder, request["lease_s"], lock)
        deadline = time.monotonic() + 20
        while client is None and time.monotonic() < deadline:
            time.sleep(0.02)
            client = connect(folder)
    if client is None:
        raise SystemExit("no keeper starts in %s" % folder)
    print(READY, flush=True)

    def send():
        while True:
            part = sys.stdin.buffer.read1(2**16)
            if not part:  # the connection is gone: this process too
                os._exit(0)
            client.sendall(part)

    threading.Thread(target=send, daemon=True).start()
    while True:
        part = client.recv(2**16)
        if not part:
            os._exit(0)
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def remove_old():
    """Removes what keepers that were killed have left, after a week."""
    root = os.path.join(home(), "ssh")
    names = os.listdir(root) if os.path.isdir(root) else []
    for name in names:
        folder = os.path.join(root, name)
        with suppress(OSError):
            is_old = os.stat(folder).st_mtime < time.time() - OLD_S
            if is_old and connect(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
    os.chdir("/")


def put(request):
    """Takes files in: a tar stream follows. Each is complete or not there."""
    root = os.path.expanduser(request["root"])
    os.makedirs(root, exist_ok=True)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if not member.isreg():
                continue
            path = inside(root, member.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            part = os.path.join(os.path.dirname(path), ".%s.part" % os.path.basename(path))
            with open(part, "wb") as file:
                shutil.copyfileobj(archive.extractfile(member), file)
            os.replace(part, path)
    if request.get("keep"):  # a cache: the oldest folders beside this one are in the way
        beside = os.path.dirname(root)
        paths = [os.path.join(beside, n) for n in os.listdir(beside) if not n.startswith(".")]
        for path in sorted(paths, key=os.path.getmtime)[: -request["keep"]]:
            shutil.rmtree(path, ignore_errors=True)
    answer({})


def sizes(request):
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


def get(request):
    """Gives files out: their list, then a tar stream of those that the launcher does not have."""
    folder = os.path.join(home(), "ssh", os.path.basename(request["run"]))
    root, known, found = os.path.join(folder, "artifacts"), request["known"], {}
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
        for relative, about in sorted(found.items()):
            if known.get(relative) != about:
                with suppress(FileNotFoundError):  # a newer checkpoint has taken its place
                    archive.add(os.path.join(root, relative), relative)


def probe(request):
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
        "searchae": None,
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
        if version >= [3, 11] and (not found["base"] or not about["missing"]):
            if not found["base"] or found["base_missing"]:
                found["base"], found["base_missing"] = python, about["missing"]
        fit = bool(about["searchae"]) + (about["searchae"] == request["version"])
        fit = 2 * fit + (not about["missing"])
        if fit > best:
            best = fit
            found.update(about, python=python)
        if fit == 5:
            break
    answer(found)


def install(request):
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


def make_environment(request, folder, wheel):
    """Makes an environment with the wheel; returns why that is not possible, or an empty text."""
    base, use_pip = request["python"], request["use_pip"]
    words = [base, "-m", "venv", "--system-site-packages", folder]
    problem = run(words if use_pip else [*words, "--without-pip"])
    if problem:
        return "no environment can be made with %s -m venv: %s" % (base, problem)
    python = os.path.join(folder, "bin", "python")
    code = "import json, sysconfig as s; print(json.dumps([s.get_path(k + 'lib') for k in %r]))"
    paths = code % (("pure", "plat"),)
    site, lent = (json.loads(subprocess.check_output([p, "-c", paths])) for p in (python, base))
    # The base's system packages are seen anyway, those of the base itself are not if it is an
    # environment, too. Without the base's own .pth files: another searchae there stays unseen.
    with open(os.path.join(site[0], "host-packages.pth"), "w") as file:
        file.write("\n".join(dict.fromkeys(lent)) + "\n")
    path = os.path.join(folder, request["wheel"])
    with open(path, "wb") as file:
        file.write(wheel)
    if use_pip:
        problem = run([python, "-m", "pip", "install", "--quiet", path])
        if problem:
            return "pip: %s" % problem
    else:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site[0])
    os.unlink(path)
    return ""


def run(words):
    """Runs a command; returns its last words if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if not done.returncode:
        return ""
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return " ".join(lines[-3:]) or "exit code %d" % done.returncode


def available_memory():
    """Returns bytes of memory that new processes can have."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0


def is_shared(token):
    """Returns whether the launcher's file is here: then the folder is shared."""
    return os.path.exists(token) and os.access(os.path.dirname(token), os.W_OK)


def candidates(request):
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


def ask_python(python, code, text):
    """Runs the probe in a Python; None if it cannot."""
    try:
        done = subprocess.run(
            [python, "-c", code],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=90,
            check=False,
        )
        return json.loads(done.stdout.decode().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def answer(value):
    """Writes the one answer of a call."""
    print(READY)
    print(json.dumps(value), flush=True)


CALLS = {
    "get": get,
    "install": install,
    "probe": probe,
    "put": put,
    "serve": serve,
    "sizes": sizes,
}


def main():
    """Does what the request says."""
    request = json.loads(sys.stdin.buffer.readline().decode())
    CALLS[request["do"]](request)


if __name__ == "__main__":
    main()
