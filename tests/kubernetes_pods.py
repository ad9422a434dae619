"""The manifests of deploy/kubernetes as kubectl renders them; their containers as processes.

A container's command, environment and mounts are those of the manifests. Its mounts are folders of
the test. If the tests run as root, the process gets the pod's user, and a mount namespace where
nothing but its mounts can be written.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from searchae.dashboard import login_line

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "kubernetes"
COMPONENTS = ("gpu", "external-database", "s3")
PASSWORD = "a pass{word} / of:the@database"
LOGIN = "ann:correct horse"

Object: TypeAlias = dict[str, Any]


def user_copy(folder: Path) -> Path:
    """A user's copy of the manifests, with the secrets that the how-to page makes."""
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets"))
    (folder / "secrets").mkdir()
    (folder / "secrets" / "database-password").write_text(PASSWORD + "\n")
    (folder / "secrets" / "dashboard-login").write_text(login_line(*LOGIN.split(":")) + "\n")
    (folder / "secrets" / "s3.env").write_text(
        "AWS_ACCESS_KEY_ID=who-asks-the-store\nAWS_SECRET_ACCESS_KEY=what-only-it-knows\n"
    )
    return folder


def uncomment(copy: Path, *names: str) -> None:
    """Uncomments entries of the file that users change: lists' entries with what belongs to them.

    Args:
        copy: The folder of the file.
        names: How the entries begin, such as ``components/gpu``.
    """
    file = copy / "kustomization.yaml"
    text = file.read_text()
    for name in names:
        entry = rf"^( *)# - {re.escape(name)}.*\n(?:\1#   .*\n)*"
        text, found = re.subn(
            entry, lambda m: re.sub(r"(?m)^( *)# ", r"\1", m[0]), text, flags=re.MULTILINE
        )
        assert found == 1, f"{name}: {found} commented entries"
    file.write_text(text)


def render(copy: Path) -> list[Object]:
    """What ``kubectl apply -k`` would send to the cluster."""
    if not shutil.which("kubectl"):
        pytest.skip("install kubectl 1.27 or newer to run this")
    known = subprocess.run(
        ["kubectl", "version", "--client", "--output", "json"], capture_output=True, check=True
    )
    version = json.loads(known.stdout).get("kustomizeVersion", "v0")
    if int(re.findall(r"\d+", version)[0]) < 5:
        pytest.skip(f"install kubectl 1.27 or newer to run this; its kustomize is {version}")
    done = subprocess.run(
        ["kubectl", "kustomize", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pod_of(workload: Object) -> Object:
    """The specification of a workload's pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def containers_of(workload: Object) -> list[Object]:
    """Its containers, those that run first included."""
    pod = pod_of(workload)
    return [*pod.get("initContainers", ()), *pod["containers"]]


def workloads_of(objects: Sequence[Object]) -> list[Object]:
    """The objects that start pods."""
    return [o for o in objects if "template" in o.get("spec", {})]


class Container:
    """A running container."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        # Whoever does not read a pipe stops its writer in the end.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def end(self, within_s: float) -> int:
        """Waits for its end; the exit code."""
        code = self.process.wait(timeout=within_s)
        self._reader.join(timeout=10)
        return code


class Cluster:
    """Runs containers of rendered manifests.

    Args:
        objects: The manifests.
        folder: Where volumes and secrets get their folders; other users must reach it.
        addresses: What the containers' addresses are on this machine.
    """

    def __init__(self, objects: Sequence[Object], folder: Path, addresses: dict[str, str]) -> None:
        self.objects = {(o["kind"], o["metadata"]["name"]): o for o in objects}
        self.folder, self.addresses = folder, addresses
        self.confines = _can_confine(folder)
        self._running: list[Container] = []
        self._pods = 0

    def start(self, kind: str, name: str, container: str = "") -> Container:
        """Starts a container in a new pod.

        Args:
            kind: The workload's kind.
            name: The workload's name.
            container: The container's name, if it is not the workload's.
        """
        workload = self.objects[kind, name]
        (found,) = [c for c in containers_of(workload) if c["name"] == (container or name)]
        self._pods += 1
        root = self.folder / f"pod-{self._pods}"
        (root / "home").mkdir(parents=True)
        (root / "workspace").mkdir()
        volumes = {v["name"]: v for v in pod_of(workload)["volumes"]}
        user = pod_of(workload)["securityContext"]
        mounts = {}
        for mount in found["volumeMounts"]:
            path = mount["mountPath"]
            mounts[path] = self._mounted(volumes[mount["name"]], root, path)
            if self.confines:
                _give(mounts[path], user["fsGroup"], can_write=not mount.get("readOnly"))
        environment = self._environment(found)
        words = [*found.get("command", ["searchae"]), *found.get("args", ())]
        words = [re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], w) for w in words]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SEARCHAE_")}
        given = {k: self._here(v, mounts) for k, v in environment.items()}
        given |= {"HOME": str(root / "home"), "TMPDIR": str(mounts["/tmp"])}
        given["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        argv = [self._here(word, mounts) for word in words]
        if self.confines:
            writable = [m["mountPath"] for m in found["volumeMounts"] if not m.get("readOnly")]
            argv = _confined(argv, [mounts[path] for path in writable], user, self.folder)
        started = Container(argv, inherited | given, root / "workspace")
        self._running.append(started)
        return started

    def close(self) -> None:
        for container in self._running:
            container.process.terminate()  # so that `tune` ends its worker
        for container in self._running:
            try:
                container.end(within_s=40)
            except subprocess.TimeoutExpired:
                container.process.kill()

    def _mounted(self, volume: Object, root: Path, path: str) -> Path:
        """The folder that stands for a volume."""
        if "persistentVolumeClaim" in volume:
            place = self.folder / "volumes" / str(volume["persistentVolumeClaim"]["claimName"])
            place.mkdir(parents=True, exist_ok=True)
            return place
        place = root / path.lstrip("/")
        place.mkdir(parents=True)
        if "secret" in volume:
            secret = self.objects["Secret", volume["secret"]["secretName"]]["data"]
            contents = {k: base64.b64decode(v).decode() for k, v in secret.items()}
            _publish(place, contents, volume["secret"]["defaultMode"])
        elif "configMap" in volume:
            named = self.objects.get(("ConfigMap", volume["configMap"]["name"]))
            assert named or volume["configMap"].get("optional"), volume
            _publish(place, named["data"] if named else {}, 0o644)
        else:
            assert volume["emptyDir"] == {}, volume
        return place

    def _environment(self, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self.objects["ConfigMap", source["configMapRef"]["name"]]["data"]
        for variable in container.get("env", ()):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            else:
                asked = variable["valueFrom"]["resourceFieldRef"]["resource"]
                kind, _, resource = asked.partition(".")
                found[variable["name"]] = cores(container["resources"][kind][resource])
        return found

    def _here(self, text: str, mounts: dict[str, Path]) -> str:
        """A text of the manifests as it reads on this machine."""
        for path in sorted(mounts, key=len, reverse=True):
            if text == path or text.startswith(path + "/"):
                return f"{mounts[path]}{text.removeprefix(path)}"
        for there, here in self.addresses.items():
            text = re.sub(rf"(?<![\w.]){re.escape(there)}(?![\w.])", here, text)
        return text


def cores(quantity: str) -> str:
    """A quantity of CPU as a container finds it: whole cores, rounded up."""
    milli = quantity.endswith("m")
    return str(math.ceil(float(quantity.rstrip("m")) / (1000 if milli else 1)))


def _publish(place: Path, contents: dict[str, str], mode: int) -> None:
    """Lays files out as the kubelet does: links into a folder that a link names."""
    (place / "..1").mkdir()
    (place / "..data").symlink_to("..1")
    for name, content in contents.items():
        file = place / "..1" / name
        file.write_text(content)
        file.chmod(mode)
        (place / name).symlink_to(f"..data/{name}")


_CONFINE = """
spot=$1 python=$2 closed=$3; shift 3
if [ -n "$closed" ]; then
  mount --bind "$python" "$spot" && mount -t tmpfs -o mode=755 tmpfs "$closed" || exit 125
  mkdir -p "$python" && mount --bind "$spot" "$python" || exit 125
fi
while [ "$1" != -- ]; do mount --bind "$1" "$1" || exit 125; shift; done; shift
mount -o remount,ro,bind / || exit 125
exec "$@"
"""
"""Where Python lies in a folder that is closed to others, such as root's, that folder then shows
nothing but Python."""


def _confined(
    argv: Sequence[str], writable: Sequence[Path], user: Object, folder: Path
) -> list[str]:
    """A command that runs another one as a pod's user, where only these folders can be written."""
    python = Path(sys.base_prefix)
    spot = folder / "python"
    spot.mkdir(exist_ok=True)
    closed = [str(p) for p in reversed(python.parents) if not p.stat().st_mode & 0o001]
    options = {"reuid": "runAsUser", "regid": "runAsGroup", "groups": "fsGroup"}
    drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    drop += [f"--{option}={user[key]}" for option, key in options.items()]
    places = [spot, python, *(closed[:1] or [""]), *writable, "--"]
    return ["unshare", "--mount", "sh", "-c", _CONFINE, "sh", *map(str, places), *drop, *argv]


def _can_confine(folder: Path) -> bool:
    """Whether that can be done here, and another user can read this Python and the folder."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        return False
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    look = f"import sqlalchemy, searchae, os; os.listdir({str(folder)!r})"
    # Through a shell: the program that setpriv starts is found with root's rights.
    argv = ["sh", "-c", 'exec "$0" -c "$1"', sys.executable, look]
    tried = subprocess.run(_confined(argv, [], user, folder), capture_output=True, check=False)
    return tried.returncode == 0


def _give(place: Path, group: int, *, can_write: bool) -> None:
    """Gives a volume to a group, as the kubelet does for ``fsGroup``."""
    for path in (place, *place.rglob("*")):
        if not path.is_symlink():
            os.chown(path, -1, group)
            extra = 0o2070 if path.is_dir() else 0o060
            path.chmod(path.stat().st_mode | (extra if can_write else 0))


def verdict(job: Object, code: int, *, disrupted: bool) -> str:
    """What a Job's controller does about a failed pod: its policy's first rule that fits, or Count.

    Args:
        job: The Job.
        code: The exit code of its container.
        disrupted: Whether the pod was evicted, preempted or lost with its node.
    """
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        conditions = {(c["type"], c["status"]) for c in rule.get("onPodConditions", ())}
        codes = rule.get("onExitCodes", {"values": ()})
        if disrupted and ("DisruptionTarget", "True") in conditions:
            return str(rule["action"])
        if code in codes["values"] and codes["operator"] == "In":
            return str(rule["action"])
    return "Count"


def texts(value: Any) -> Iterator[str]:
    """Every text in an object."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)
