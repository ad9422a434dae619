"""Which precision a trial is trained in: begun, taken over, trained again, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from searchae import data, retrain
from searchae.compare import Reranking, TopOptions
from searchae.config.loader import load_study_file
from searchae.storage.connection import connect
from searchae.study.attributes import RUNTIME
from searchae.study.stored_study import StoredStudy, open_study
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")

CPU = torch.device("cpu")


@pytest.fixture
def study(folder: Path) -> Callable[..., StoredStudy]:
    def make(name: str, **changes: Any) -> StoredStudy:
        fixed = {"search.pruner": "none", "search.sampler": "random", "search.trials": 1}
        spec = load_study_file(
            folder / "studies" / "tiny.toml", environment={}, changes={**fixed, **changes}
        )
        splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
        storage = connect(f"sqlite:///{folder / name}.db")
        return open_study(storage, name, spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]

    return make


def worker(stored: StoredStudy, folder: Path, precision: str, **more: Any) -> Worker:
    options = WorkerOptions(
        device="cpu",
        precision=precision,
        data_dir=folder / "data",
        artifacts=folder / f"artifacts-{stored.name}",
    )
    return Worker(stored, options, **more)


def precisions(stored: StoredStudy) -> list[str]:
    trials = stored.study.get_trials(deepcopy=False)
    return [t.user_attrs[RUNTIME]["precision"] for t in trials]


def curve(stored: StoredStudy) -> dict[int, float]:
    return stored.study.get_trials(deepcopy=False)[0].intermediate_values


def test_a_trial_keeps_the_precision_that_it_was_begun_with(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    whole, torn, plain = (study(name) for name in ("whole", "torn", "plain"))
    worker(whole, folder, "bf16").run()
    worker(plain, folder, "fp32").run()

    first = worker(torn, folder, "bf16")

    def one_epoch(job: TrialJob, hooks: TrialHooks) -> float:
        first.stop.set()
        return run_trial(job, replace(hooks, should_stop=lambda: False))

    first.train = one_epoch
    first.run()
    assert len(curve(torn)) == 1
    worker(torn, folder, "fp32").run()
    assert precisions(torn) == ["bf16"]
    assert curve(torn) == curve(whole)
    assert curve(torn) != curve(plain)


def test_a_retraining_has_the_trial_s_precision(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study("searched")
    worker(stored, folder, "bf16").run()
    assert retrain.plan_retraining(stored, device=CPU).precision == "bf16"
    assert retrain.plan_retraining(stored, device=CPU, precision="fp32").precision == "fp32"
    own, other = (retrain.plan_retraining(stored, device=CPU, precision=p) for p in (None, "fp32"))
    assert own.identity() != other.identity(), "one does not go on where the other ended"


def test_trials_of_unlike_machines_are_compared_in_float32(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study("mixed", **{"search.trials": 8, "train.epochs": 1})
    half = worker(stored, folder, "bf16")

    def four(job: TrialJob, hooks: TrialHooks) -> float:
        if len(precisions(stored)) == 4:
            half.stop.set()
        return run_trial(job, TrialHooks(on_result=hooks.on_result, on_end=hooks.on_end))

    half.train = four
    half.run()
    worker(stored, folder, "fp32").run()
    assert sorted(precisions(stored)) == ["bf16"] * 4 + ["fp32"] * 4

    def compared(precision: str | None) -> set[str]:
        found = Reranking(stored, TopOptions(top=8, seeds=2, precision=precision))
        return {training.precision for training in found.trainings.values()}

    assert compared(None) == {"fp32"}
    assert compared("bf16") == {"bf16"}
