"""How many workers a GPU bears: the choice, the room, and a measurement by real processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from searchae.config.loader import load_study_file
from searchae.config.schema import ModelParams
from searchae.models.builder import build_model
from searchae.training.device import CONTEXT_BYTES
from searchae.tuning import workers_per_gpu, workers_per_gpu_process
from searchae.tuning.workers_per_gpu import Throughput, choose_workers_per_device, has_room
from searchae.tuning.workers_per_gpu_process import GpuMemory, ProbeError, ProbeProcess, ProbeTask
from tests.unit.tiny_training import params

GIB = 2**30
TINY = ProbeTask(params(), (1, 8, 8), "cpu", "fp32")


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ([100], 1),
        ([100, 105], 1),
        ([100, 109, 300], 1),  # what does not pay ends it
        ([100, 190, 350, 380], 4),
        ([100, 190, 350, 690], 8),
        ([100, 90], 1),
    ],
)
def test_more_are_chosen_as_long_as_each_doubling_pays(rates: list[float], chosen: int) -> None:
    readings = [Throughput(n, r) for n, r in zip(workers_per_gpu.COUNTS, rates, strict=False)]
    assert choose_workers_per_device(readings) == chosen


def test_there_must_be_room_for_tensors_and_for_what_cuda_itself_takes() -> None:
    one = GpuMemory(reserved=2 * GIB, free=70 * GIB, total=80 * GIB)
    assert has_room(one, 4)
    assert not has_room(one, 24), "the last tenth stays free"
    full = GpuMemory(reserved=GIB, free=8 * GIB + GIB + CONTEXT_BYTES, total=80 * GIB)
    assert has_room(full, 1)
    assert not has_room(full, 2)
    assert has_room(None, 100), "a CPU's memory is not counted"


@pytest.mark.fleet
def test_real_processes_train_at_once() -> None:
    told: list[Throughput] = []
    readings = workers_per_gpu.measure_throughput(
        TINY, counts=(1, 2), seconds=0.2, on_reading=told.append
    )
    assert [r.processes for r in readings] == [1, 2]
    assert all(r.images_per_s > 0 for r in readings)
    assert told == readings
    assert not multiprocessing.active_children(), "none is left"


@pytest.mark.parametrize(
    ("rates", "room", "dies_at", "measured"),
    [
        ([100, 190, 350, 690], 9, 9, [1, 2, 4, 8]),
        ([100, 190, 200, 400], 9, 9, [1, 2, 4]),  # the last says that it does not pay
        ([100, 190, 350, 690], 2, 9, [1, 2, 4]),  # four more have no room
        ([100, 190, 350, 690], 9, 4, [1, 2]),  # no memory after all
    ],
)
def test_where_it_ends(
    rates: list[float],
    room: int,
    dies_at: int,
    measured: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Process:
        memory = GpuMemory(0, 0, 0)

    started: list[Process] = []

    def start(count: int, *_: object) -> list[Process]:
        started.extend(Process() for _ in range(count))
        if len(started) >= dies_at:
            raise ProbeError("out of memory")
        return started[-count:]

    def rate(processes: list[Process], _: float) -> float:
        return rates[workers_per_gpu.COUNTS.index(len(processes))]

    monkeypatch.setattr(workers_per_gpu, "start_processes", start)
    monkeypatch.setattr(workers_per_gpu, "combined_rate", rate)
    monkeypatch.setattr(workers_per_gpu, "has_room", lambda memory, more: more <= room)
    assert [r.processes for r in workers_per_gpu.measure_throughput(TINY)] == measured


def test_a_net_that_cannot_be_trained_is_an_error() -> None:
    wrong = ProbeTask(params({"downsample": "pool", "channels": (4, 8)}), (1, 7, 7), "cpu", "fp32")
    with pytest.raises(ProbeError, match=r"ModelError: .*pool"):
        workers_per_gpu.measure_throughput(wrong, counts=(1,), seconds=0.1)
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_an_error_and_not_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = workers_per_gpu_process.start_processes

    def short_lived(*about: Any) -> list[ProbeProcess]:
        processes = start(*about)
        processes[0].kill()
        return processes

    monkeypatch.setattr(workers_per_gpu, "start_processes", short_lived)
    with pytest.raises(ProbeError, match="has died"):
        workers_per_gpu.measure_throughput(TINY, counts=(1,), seconds=0.1)


def test_the_largest_net_of_a_study_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        '[data]\nname = "mnist"\n[model]\nlatent_dim = { low = 2, high = 64 }\n'
        "channels = { choices = [[4, 8], [16, 32]] }\n"
        "[train]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
        "batch_size = { choices = [64, 256] }\n"
    )
    measured: list[ProbeTask] = []

    def measure(work: ProbeTask, *, on_reading: object) -> list[Throughput]:
        measured.append(work)
        return [Throughput(1, 100.0), Throughput(2, 190.0)]

    monkeypatch.setattr(workers_per_gpu, "measure_throughput", measure)
    notes: list[str] = []
    found = workers_per_gpu.workers_per_device(
        load_study_file(path),
        image_shape=(1, 28, 28),
        images=900,
        held_out=100,
        device=torch.device("cuda"),
        precision="fp32",
        note=notes.append,
    )
    assert found == 2
    (work,) = measured
    assert (work.device, work.image_shape) == ("cuda", (1, 28, 28))
    assert build_model(work.params.model, image_shape=(1, 28, 28)).latent_size == 64
    assert work.params.model == ModelParams(
        **{**work.params.model.model_dump(), "channels": (16, 32)}
    )
    assert work.images == 1000
    assert work.params.train.batch_size == 256
    assert notes == ["measuring how many workers a GPU bears ...", "workers a GPU: 2"]


def test_a_net_that_drawn_images_do_not_suit_gets_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(work: ProbeTask, *, on_reading: object) -> list[Throughput]:
        raise ProbeError("DeadError: the net is dead")

    monkeypatch.setattr(workers_per_gpu, "measure_throughput", measure)
    path = tmp_path / "study.toml"
    path.write_text('[data]\nname = "mnist"\n')
    notes: list[str] = []
    about = {"image_shape": (1, 28, 28), "images": 900, "held_out": 100, "precision": "fp32"}
    found = workers_per_gpu.workers_per_device(
        load_study_file(path),
        device=torch.device("cuda"),
        note=notes.append,
        **about,  # type: ignore[arg-type]
    )
    assert found == 1
    assert "not measured, so one worker a GPU: DeadError: the net is dead" in notes
