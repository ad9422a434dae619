"""A search on a GPU, as a user starts it: in new processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from searchae.config import find_study_file, load_study_file
from searchae.storage.connection import connect
from searchae.study.attributes import RUNTIME
from searchae.study.stored_study import load_study
from searchae.tuning import workers_per_gpu
from tests.conftest import RunCommand

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("per_device", ["1", "2", "auto"])
def test_a_search_on_a_gpu_ends_with_exactly_its_trials(
    per_device: str, new_process: RunCommand, folder: Path
) -> None:
    words = ("tune", "-s", "studies/tiny.toml", "--device", "cuda", "--json")
    done = new_process(*words, "--workers-per-device", per_device, timeout=280)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["trials"]["complete"] + summary["trials"]["pruned"] == 6
    assert summary["trials"]["failed"] == 0
    stored = load_study(connect(f"sqlite:///{folder / 'searchae.db'}"), "tiny")
    assert {t.user_attrs[RUNTIME]["device"] for t in stored.study.get_trials()} == {"cuda"}
    if per_device == "auto":
        assert "workers a GPU:" in done.stderr
        assert "not measured" not in done.stderr


def test_a_winner_of_a_gpu_is_trained_again_and_used(new_process: RunCommand) -> None:
    tuned = new_process("tune", "-s", "studies/tiny.toml", "--device", "cuda", timeout=280)
    assert tuned.returncode == 0, tuned.stderr
    trained = new_process(
        *("train", "-s", "tiny", "--device", "cuda", "--out", "bundle", "--json"), timeout=280
    )
    assert trained.returncode == 0, trained.stderr
    on_gpu = json.loads(trained.stdout)["psnr_db"]
    evaluated = new_process("evaluate", "bundle", "--device", "cpu", "--json", timeout=280)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["psnr_db"] == pytest.approx(on_gpu, abs=0.02)


def test_the_workers_of_a_gpu_are_measured_with_their_memory() -> None:
    spec = load_study_file(find_study_file("mnist"), environment={})
    notes: list[str] = []
    found = workers_per_gpu.workers_per_device(
        spec,
        image_shape=(1, 28, 28),
        images=5000,
        held_out=500,
        device=torch.device("cuda"),
        precision="fp32",
        note=notes.append,
    )
    assert found in workers_per_gpu.COUNTS
    assert any("1 at once train" in note for note in notes), notes
