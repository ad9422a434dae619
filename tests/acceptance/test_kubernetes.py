"""deploy/kubernetes: valid for the API, safe by default, and its containers' commands run."""

from __future__ import annotations

import base64
import copy
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import sqlalchemy as sa
import typer
import yaml
from typer.core import TyperGroup

import searchae
from searchae.cli.app import app
from searchae.files import RemotePath, files_here
from searchae.tuning import fleet_run
from tests.conftest import make_folder
from tests.dashboard_server import page_status
from tests.free_port import free_port
from tests.kubernetes_pods import (
    COMPONENTS,
    DEPLOY,
    LOGIN,
    PASSWORD,
    ROOT,
    Cluster,
    Container,
    Object,
    containers_of,
    cores,
    pod_of,
    render,
    texts,
    uncomment,
    user_copy,
    verdict,
    workloads_of,
)
from tests.postgres_server import PostgresServer

VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
COMBINATIONS: dict[str, tuple[str, ...]] = {
    "base": (),
    "gpu": ("components/gpu",),
    "external-database": ("components/external-database", "SEARCHAE_STORAGE"),
    "s3": ("components/s3", "SEARCHAE_ARTIFACTS", "name: s3"),
}
COMBINATIONS["all"] = tuple(entry for entries in COMBINATIONS.values() for entry in entries)


@pytest.fixture(scope="module", params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(combination: str, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What is applied where a user has uncommented what a combination needs."""
    made = user_copy(tmp_path_factory.mktemp("kubernetes") / "copy")
    uncomment(made, *COMBINATIONS[combination])
    return render(made)


def base_files() -> list[Path]:
    return sorted(p for p in DEPLOY.glob("base/*.yaml") if p.name != "kustomization.yaml")


@pytest.mark.parametrize("file", base_files(), ids=lambda p: p.stem)
def test_each_file_is_valid_by_itself(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_what_is_applied_is_valid(objects: list[Object]) -> None:
    for applied in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(applied, version, strict=True)
    broken = copy.deepcopy(workloads_of(objects)[0])
    pod_of(broken)["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_every_option_of_kustomization_can_be_uncommented(tmp_path: Path) -> None:
    made = user_copy(tmp_path / "copy")
    (made / "studies").mkdir()
    (made / "studies" / "mine.toml").write_text('description = "mine"\n')
    uncomment(made, *COMBINATIONS["all"], "SEARCHAE_TRAIN__EPOCHS", "name: studies", "target: ")
    objects = render(made)
    (settings,) = [o["data"] for o in objects if "STUDY" in o.get("data", {})]
    assert settings["SEARCHAE_TRAIN__EPOCHS"] == "20"
    (studies,) = [o for o in objects if "mine.toml" in o.get("data", {})]
    volumes = [v for w in workloads_of(objects) for v in pod_of(w)["volumes"]]
    named = [v["configMap"]["name"] for v in volumes if "configMap" in v]
    assert named == [studies["metadata"]["name"]]


def test_pods_run_without_rights(objects: list[Object]) -> None:
    (namespace,) = [o for o in objects if o["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in workloads_of(objects):
        pod = pod_of(workload)
        user = pod["securityContext"]
        assert user["runAsNonRoot"] is True
        assert user["runAsUser"] > 0
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in containers_of(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert resources["requests"]["cpu"]


def test_images_are_pinned_and_the_users_are_those_of_the_image(objects: list[Object]) -> None:
    docker = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["searchae"]' in docker, "the containers give no command but arguments"
    for workload in workloads_of(objects):
        for container in containers_of(workload):
            name, _, tag = container["image"].partition(":")
            if name == "searchae":
                assert tag == searchae.__version__
                user = pod_of(workload)["securityContext"]["runAsUser"]
                assert f"--uid {user} searchae" in docker
            else:
                assert re.fullmatch(r"\d+\.\d+", tag), container["image"]


def test_a_secret_stands_in_secrets_only(objects: list[Object]) -> None:
    assert not [f for f in DEPLOY.rglob("*.yaml") if "kind: Secret" in f.read_text()]
    secrets = [o["data"] for o in objects if o["kind"] == "Secret"]
    values = [base64.b64decode(v).decode().strip() for data in secrets for v in data.values()]
    assert PASSWORD in values
    for applied in (o for o in objects if o["kind"] != "Secret"):
        for text in texts(applied):
            assert not any(value in text for value in values), applied["metadata"]
            assert not re.search(r"://[^/@]*:[^/@]*@", text), "a URL with a password"


def test_git_ignores_the_secrets() -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    for name in ("database-password", "dashboard-login", "s3.env"):
        path = DEPLOY / "secrets" / name
        done = subprocess.run(["git", "check-ignore", "--quiet", str(path)], cwd=ROOT, check=False)
        assert done.returncode == 0, path


def test_nothing_is_published_and_only_the_search_reaches_the_database(
    objects: list[Object], combination: str
) -> None:
    kinds = Counter(o["kind"] for o in objects)
    assert "Ingress" not in kinds
    workloads = {w["metadata"]["name"]: w["spec"] for w in workloads_of(objects)}
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in workloads.items()}
    for service in (o for o in objects if o["kind"] == "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        selected = [n for n, found in labels.items() if found == service["spec"]["selector"]]
        assert selected == [service["metadata"]["name"]]
    policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
    has_database = combination not in ("external-database", "all")
    assert len(policies) == kinds["StatefulSet"] == has_database
    for policy in policies:
        assert policy["podSelector"]["matchLabels"] == labels["database"]
        (rule,) = policy["ingress"]
        (expression,) = rule["from"][0]["podSelector"]["matchExpressions"]
        assert {*expression["values"]} == {labels[n]["app"] for n in labels if n != "database"}


def test_whatever_a_pod_mounts_or_reads_is_there(objects: list[Object], combination: str) -> None:
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for workload in workloads_of(objects):
        pod = pod_of(workload)
        templates = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {v["name"] for v in pod["volumes"]} | {t["metadata"]["name"] for t in templates}
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in there
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in there
        for container in containers_of(workload):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            for source in container.get("envFrom", ()):
                for kind, name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if name in source:
                        assert (kind, source[name]["name"]) in there
    assert any(kind == "PersistentVolumeClaim" for kind, _ in there) is (
        combination not in ("s3", "all")
    )


def test_servers_are_probed_and_workers_have_time_to_leave(objects: list[Object]) -> None:
    for workload in workloads_of(objects):
        if workload["kind"] == "Job":
            grace = pod_of(workload)["terminationGracePeriodSeconds"]
            assert grace > fleet_run.STOP_S + 8, "tune's wait for its workers, and the database's"
            assert "completions" not in workload["spec"]
            continue
        for container in containers_of(workload):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_the_command_line_has_every_option_that_is_used(objects: list[Object]) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    (settings,) = [o["data"] for o in objects if "STUDY" in o.get("data", {})]
    known = re.findall(r"SEARCHAE_\w+", (ROOT / "docs/reference/environment.md").read_text())
    assert {name for name in settings if name.startswith("SEARCHAE_")} <= {*known}
    run = []
    for container in (c for w in workloads_of(objects) for c in containers_of(w)):
        if container["image"].startswith("searchae:") and "command" not in container:
            name, *words = container["args"]
            words = [re.sub(r"\$\((\w+)\)", lambda m: settings[m[1]], w) for w in words]
            group.commands[name].make_context(name, words)
            run.append(name)
            assert {e["name"] for e in container.get("env", ())} <= {*known}
    assert sorted(run) == ["dashboard", "tune", "worker"]


def test_each_worker_gets_its_gpu(objects: list[Object], combination: str) -> None:
    for job in (o for o in objects if o["kind"] == "Job"):
        (container,) = pod_of(job)["containers"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        devices = [e["value"] for e in container["env"] if e["name"] == "SEARCHAE_DEVICE"]
        expected = combination in ("gpu", "all")
        assert (gpus, devices) == ((1, ["cuda"]) if expected else (0, []))
        assert bool(pod_of(job).get("tolerations")) is expected


def test_preemption_is_not_counted_and_a_mistake_is_not_repeated(objects: list[Object]) -> None:
    jobs = {o["metadata"]["name"]: o for o in objects if o["kind"] == "Job"}
    for job in jobs.values():
        for code in (130, 137, 1):
            assert verdict(job, code, disrupted=True) == "Ignore"
        assert verdict(job, 137, disrupted=False) == "Count", "out of memory"
        assert pod_of(job)["restartPolicy"] == "Never", "what podFailurePolicy requires"
    assert verdict(jobs["worker"], 130, disrupted=False) == "Ignore"
    assert verdict(jobs["worker"], 1, disrupted=False) == "Count", "another node may do"
    for code in (1, 2, 130):
        assert verdict(jobs["tune"], code, disrupted=False) == "FailJob"


def test_with_an_object_store_logs_have_a_folder_that_can_be_written() -> None:
    """They go to ``artifacts`` in the working folder, and the root is read-only."""
    image = (ROOT / "Dockerfile").read_text()
    (folder,) = re.findall(r"^WORKDIR (/workspace)$", image, re.MULTILINE)
    component = yaml.safe_load((DEPLOY / "components/s3/kustomization.yaml").read_text())
    wanted = {"name": "artifacts", "mountPath": f"{folder}/{files_here(RemotePath('s3://b/p'))}"}
    added = {}
    for patch in component["patches"]:
        for operation in yaml.safe_load(patch["patch"]):
            if isinstance(operation, dict) and operation["path"].endswith("volumeMounts/-"):
                added[patch["target"]["kind"]] = operation["value"]
    assert added == {"Job": wanted, "Deployment": wanted}


def test_cores_become_threads() -> None:
    assert [cores(q) for q in ("1", "250m", "2500m", "4")] == ["1", "1", "3", "4"]


TRIALS = 6


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users reach; pytest closes its own to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def cluster(place: Path) -> Iterator[tuple[Cluster, PostgresServer, int]]:
    """Volumes, secrets and a database for the manifests with a study of the user's own."""
    made = user_copy(place / "copy")
    (place / "user").mkdir()
    user = make_folder(place / "user")
    shutil.copytree(user / "studies", made / "studies")
    file = made / "kustomization.yaml"
    uncomment(made, "SEARCHAE_TRAIN__EPOCHS", "name: studies")
    changes = {
        "STUDY=quickstart": "STUDY=tiny",
        "TRIALS=24": f"TRIALS={TRIALS}",
        "EPOCHS=20": "EPOCHS=150",  # long enough to be told to leave within a trial
        "mine.toml": "tiny.toml",
    }
    text = file.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    objects = render(made)
    shutil.copytree(user / "data", place / "volumes" / "data")

    quoted = PASSWORD.replace("'", "''").replace(":", r"\:")
    port = free_port()
    with PostgresServer(["127.0.0.1"], login="scram-sha-256", port=free_port()) as server:
        server.execute(
            f"CREATE ROLE searchae LOGIN PASSWORD '{quoted}'",
            "CREATE DATABASE searchae OWNER searchae",
        )
        addresses = {"database:5432": f"127.0.0.1:{server.port}"}
        addresses |= {"8080": str(port), "0.0.0.0": "127.0.0.2"}
        running = Cluster(objects, place, addresses)
        yield running, server, port
        running.close()


def states(server: PostgresServer) -> Counter[str]:
    """Trials of the study by their state."""
    engine = sa.create_engine(server.url(database="searchae"), poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("trials"):
            return Counter()
        return Counter(connection.execute(sa.text("SELECT state FROM trials")).scalars())


def begun(server: PostgresServer) -> int:
    """How many running trials have reported an epoch, from which they can go on."""
    engine = sa.create_engine(server.url(database="searchae"), poolclass=sa.pool.NullPool)
    query = (
        "SELECT count(DISTINCT t.trial_id) FROM trials t JOIN trial_intermediate_values v "
        "ON v.trial_id = t.trial_id WHERE t.state = 'RUNNING'"
    )
    with engine.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def wait_for(holds: Callable[[], bool], *containers: Container, within_s: float = 240) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        said = "\n".join(container.said for container in containers)
        assert time.monotonic() < deadline, said
        assert all(container.process.poll() is None for container in containers), said
        time.sleep(0.05)


@pytest.mark.fleet
@pytest.mark.timeout(900)  # five processes that import torch or Optuna, on a busy machine
def test_the_containers_finish_a_search_of_which_a_worker_is_preempted(
    cluster: tuple[Cluster, PostgresServer, int],
) -> None:
    running, server, port = cluster
    server.stop()
    waiting = running.start("Job", "tune", "wait-for-database")
    first = running.start("Job", "worker")
    wait_for(lambda: "Connection refused" in waiting.said, waiting)
    server.start()
    assert waiting.end(120) == 0, waiting.said
    dashboard = running.start("Deployment", "dashboard")
    probed = containers_of(running.objects["Deployment", "dashboard"])[0]
    paths = {probed[f"{p}Probe"]["httpGet"]["path"] for p in ("startup", "readiness", "liveness")}
    wait_for(lambda: [page_status(port, path) for path in paths] == [200], dashboard)
    assert page_status(port, "/dashboard") == 401
    assert page_status(port, "/dashboard", LOGIN) == 200

    tune = running.start("Job", "tune")
    wait_for(lambda: states(server)["RUNNING"] == 2 and begun(server) == 2, tune, first)
    first.process.send_signal(signal.SIGTERM)
    code = first.end(pod_of(running.objects["Job", "worker"])["terminationGracePeriodSeconds"])
    assert code == 130, first.said
    assert verdict(running.objects["Job", "worker"], code, disrupted=False) == "Ignore"
    (number,) = re.findall(r"trial (\d+): left for another worker to continue", first.said)
    assert states(server)["FAIL"] == 0

    second = running.start("Job", "worker")
    assert tune.end(400) == 0, tune.said
    assert second.end(120) == 0, second.said
    ended = states(server)
    assert ended["COMPLETE"] + ended["PRUNED"] == TRIALS == ended.total()
    goes_on = f"trial {number}: goes on after epoch"
    logs = "".join(p.read_text() for p in (running.folder / "volumes/artifacts").rglob("*.log"))
    assert goes_on in second.said + logs, "from its checkpoint, on whichever worker"
    assert page_status(port, "/api/studies", LOGIN) == 200
    dashboard.process.send_signal(signal.SIGTERM)
    assert dashboard.end(30) == 0, dashboard.said
    for container in (waiting, first, second, tune, dashboard):
        assert PASSWORD not in container.said


def test_no_component_is_left_untested() -> None:
    assert sorted(p.name for p in (DEPLOY / "components").iterdir()) == sorted(COMPONENTS)
    assert set(COMPONENTS) < set(COMBINATIONS)
