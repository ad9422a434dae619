"""How many workers are started, and what each is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchae.errors import UserError
from searchae.files import ArtifactPath, RemotePath
from searchae.launch.base import Job, Resources
from searchae.launch.fleet_plan import Fleet, plan_fleet, worker_jobs
from tests.fake_launcher import FakeLauncher

SECRET = "postgresql+psycopg://me:hunter2@db/searchae"


class Machine(FakeLauncher):
    """A launcher with so many cores and GPUs."""

    def __init__(
        self, cpus: int = 8, gpus: int = 0, *, is_local: bool = True, known: bool = True
    ) -> None:
        super().__init__()
        self.is_local = is_local
        self._has = Resources(cpus=cpus, gpus=gpus, machines=1) if known else None

    def resources(self) -> Resources | None:  # type: ignore[override]
        return self._has


def planned(machine: Machine, **more: Any) -> Fleet:
    asked = {"device": "auto", "workers": None, "workers_per_device": 1, "threads": None}
    return plan_fleet(machine, **{**asked, **more})


def started(
    fleet: Fleet,
    at_most: int = 100,
    artifacts: ArtifactPath = Path("artifacts"),
    **environment: Any,
) -> list[Job]:
    return worker_jobs(
        fleet,
        "svhn",
        storage=SECRET,
        data_dir=Path("data"),
        artifacts=artifacts,
        at_most=at_most,
        environment=environment,
    )


def seen(found: list[Job]) -> list[str | None]:
    return [j.environment.get("CUDA_VISIBLE_DEVICES") for j in found]


def test_without_a_gpu_the_cores_are_shared_out() -> None:
    fleet = planned(Machine(cpus=8))
    assert (fleet.workers, fleet.threads, fleet.gpus) == (4, 2, 0)
    assert planned(Machine(cpus=2)).workers == 2
    assert planned(Machine(cpus=2), workers=6).threads == 1


def test_each_worker_is_told_the_precision_and_keeps_its_pages() -> None:
    (job,) = started(planned(Machine(cpus=1), precision="bf16"))
    assert job.argv[job.argv.index("--precision") + 1] == "bf16"
    assert job.environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    (own,) = started(planned(Machine(cpus=1)), GLIBC_TUNABLES="glibc.malloc.check=1")
    assert "GLIBC_TUNABLES" not in own.environment, "the user's own stand"


def test_settings_of_this_process_are_passed_on_to_each_worker() -> None:
    settings: dict[str, Any] = {"SEARCHAE_KERNELS": "off", "SEARCHAE_OPTUNA": "public"}
    (job,) = started(planned(Machine(cpus=1)), **settings, OTHER="1")
    assert settings.items() <= job.environment.items()
    assert "OTHER" not in job.environment


def test_with_gpus_each_worker_sees_its_own() -> None:
    fleet = planned(Machine(gpus=2), workers_per_device=2)
    found = started(fleet, CUDA_VISIBLE_DEVICES="0,1")
    assert (fleet.workers, fleet.gpus) == (4, 0.5)
    assert seen(found) == ["0", "1", "0", "1"]
    assert all(j.argv[j.argv.index("--device") + 1] == "cuda" for j in found)


def test_of_workers_that_share_a_gpu_the_first_stays_when_memory_is_short() -> None:
    def told(fleet: Fleet, **environment: Any) -> list[str | None]:
        return [j.environment.get("SEARCHAE_SHARES") for j in started(fleet, **environment)]

    two = {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert told(planned(Machine(gpus=2), workers_per_device=2), **two) == [
        *["stay"] * 2,
        *["leave"] * 2,
    ]
    one = planned(Machine(gpus=2), device="cuda:1", workers_per_device=3)
    assert told(one, **two) == ["stay", "leave", "leave"]
    assert told(planned(Machine(gpus=2)), **two) == [None, None]
    assert told(planned(Machine(cpus=3))) == [None] * 3
    cluster = planned(Machine(cpus=64, gpus=2, is_local=False), workers_per_device=2)
    assert told(cluster) == ["stay"] * 4, "nobody knows which is the first there"


def test_gpus_hidden_from_the_user_stay_hidden() -> None:
    fleet = planned(Machine(gpus=2), workers=3)
    assert seen(started(fleet, CUDA_VISIBLE_DEVICES="5,GPU-7f")) == ["5", "GPU-7f", "5"]


def test_gpus_after_a_negative_index_are_hidden() -> None:
    fleet = planned(Machine(gpus=1), workers=2)
    assert seen(started(fleet, CUDA_VISIBLE_DEVICES="3,-1,0")) == ["3", "3"]


def test_a_named_gpu_is_the_only_one_used() -> None:
    fleet = planned(Machine(gpus=4), device="cuda:1", workers_per_device=2)
    assert seen(started(fleet, CUDA_VISIBLE_DEVICES="4,5,6,7")) == ["5", "5"]


def test_told_to_use_the_cpu_no_gpu_is_taken() -> None:
    fleet = planned(Machine(cpus=8, gpus=2), device="cpu")
    assert (fleet.workers, fleet.gpus) == (4, 0)
    assert seen(started(fleet, CUDA_VISIBLE_DEVICES="0,1")) == [None] * 4


def test_on_a_cluster_the_cluster_gives_out_the_gpus() -> None:
    fleet = planned(Machine(cpus=64, gpus=6, is_local=False), workers_per_device=4)
    found = started(fleet)
    assert (fleet.workers, fleet.threads, fleet.gpus) == (24, 1, 0.25)
    assert seen(found) == [None] * 24
    assert {j.gpus for j in found} == {0.25}
    with pytest.raises(UserError, match=r"--device cuda$"):
        planned(Machine(is_local=False), device="cuda:0")


def test_where_a_scheduler_decides_gpus_are_asked_for_by_name() -> None:
    queue = Machine(known=False, is_local=False)
    assert (planned(queue).workers, planned(queue).gpus) == (4, 0)
    assert planned(queue, device="cuda", workers=9).gpus == 1


def test_no_more_workers_than_trials_are_left() -> None:
    assert len(started(planned(Machine(cpus=8)), at_most=3)) == 3


@pytest.mark.parametrize("is_local", [True, False])
def test_the_database_s_password_is_in_no_argv(is_local: bool) -> None:
    for job in started(planned(Machine(is_local=is_local))):
        assert "hunter2" not in " ".join(job.argv)
        assert "hunter2" not in repr(job)
        assert job.environment["SEARCHAE_STORAGE"] == SECRET
        assert ("SEARCHAE_PARENT" in job.environment) == is_local, "elsewhere it means nothing"


def test_workers_of_other_machines_get_the_store_s_credentials_and_nothing_names_them() -> None:
    """Those of this machine have this process's environment; logs are files of this machine."""
    of_store = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "hunter3"}
    variables: dict[str, Any] = {**of_store, "AWS_PROFILE": "of this machine", "HOME": "/home/me"}
    path, disk = RemotePath("s3://bucket/runs"), Path("artifacts")
    away, here = planned(Machine(is_local=False)), planned(Machine())
    for job in started(away, artifacts=path, **variables):
        assert of_store.items() <= job.environment.items()
        assert not {"AWS_PROFILE", "HOME"} & job.environment.keys()
        assert job.argv[job.argv.index("--artifacts") + 1] == "s3://bucket/runs"
        assert "hunter3" not in " ".join(job.argv)
        assert job.log == disk.resolve() / "svhn" / "logs" / f"{job.name}.log"
        assert "hunter3" not in repr(job)
    for job in [
        *started(here, artifacts=path, **variables),
        *started(away, artifacts=disk, **variables),
    ]:
        assert not of_store.keys() & job.environment.keys()
