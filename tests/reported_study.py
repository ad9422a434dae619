"""Studies that nobody trained, for the tests of the report."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config.loader import spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.search import distributions
from searchae.storage.connection import connect
from searchae.study.attributes import ERROR, OUTCOME, RUNTIME, SPLITS
from searchae.study.epoch_history import HISTORY, HISTORY_COLUMNS
from searchae.study.stored_study import StoredStudy, open_study

BASELINE_DB, EPOCHS = 14.0, 9
START = datetime(2026, 1, 1, 12)
DOCUMENT: dict[str, Any] = {
    "description": "Made up",
    "data": {"name": "svhn"},
    "model": {
        "activation": {"choices": ["relu", "tanh"]},
        "channels": {"choices": [[4, 8], [16]]},
    },
    "train": {
        "epochs": EPOCHS,
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "momentum": 0.5,
        "batch_size": {"low": 32, "high": 256, "step": 32},
        "regularizer": {"choices": ["clip", "clip+l1"]},
        "l1_weight": {"low": 1e-6, "high": 1e-2, "log": True},
    },
    "search": {"trials": 30},
}


def psnr_db(learning_rate: float) -> float:
    """Only the learning rate matters: best at 0.003."""
    return 26.0 - 3.0 * abs(math.log10(learning_rate / 3e-3))


def history_of(epochs: int, best_db: float) -> dict[str, list[float]]:
    mse = [10 ** (-(best_db - (epochs - e) * 0.5) / 10) for e in range(1, epochs + 1)]
    columns = dict.fromkeys(HISTORY_COLUMNS, [0.25] * epochs)
    return {**columns, "train_mse": [1.2 * m for m in mse], "val_mse": mse}


def make_trial(
    spec: StudySpec,
    draw: random.Random,
    state: TrialState = TrialState.COMPLETE,
    *,
    outcome: str = "",
    error: str = "",
    host: str = "somewhere",
    epochs: int = EPOCHS,
    value: float | None = None,
) -> FrozenTrial:
    rate = 10 ** draw.uniform(-4, -1)
    params: dict[str, Any] = {
        "activation": draw.choice(["relu", "tanh"]),
        "channels": draw.choice(["[4, 8]", "[16]"]),
        "learning_rate": rate,
        "batch_size": draw.choice([32, 64, 256]),
        "regularizer": draw.choice(["clip", "clip+l1"]),
    }
    if params["regularizer"] == "clip+l1":
        params["l1_weight"] = 10 ** draw.uniform(-6, -2)
    came_to = psnr_db(rate) if value is None else value
    attributes: dict[str, Any] = {
        RUNTIME: {
            "worker": "w1",
            "host": host,
            "device": "cpu",
            "precision": "fp32",
            "kernels": "winograd",
            "threads": 1,
            "torch": "2.15",
        }
    }
    if outcome:
        attributes |= {OUTCOME: outcome, ERROR: error}
        came_to = BASELINE_DB
    else:
        attributes[HISTORY] = history_of(epochs, came_to)
    made = create_trial(
        state=state,
        value=came_to if state == TrialState.COMPLETE else None,
        params=params,
        distributions={
            p.name: distributions.to_distribution(p) for p in spec.space if p.name in params
        },
        intermediate_values={e: came_to - (epochs - e) * 0.5 for e in range(1, epochs + 1)},
        user_attrs=attributes,
    )
    made.datetime_start = START
    if state.is_finished():
        made.datetime_complete = START + timedelta(seconds=90)
    return made


def make_study(
    folder: Path, trials: int = 0, *, name: str = "s", document: dict[str, Any] | None = None
) -> StoredStudy:
    """A study in a file of its own, with that many trials, a third of them pruned."""
    spec = spec_from_document(document or DOCUMENT, source="test")
    storage = connect(f"sqlite:///{folder}/searchae.db")
    stored, _ = open_study(storage, name, spec=spec, data_hash="0" * 64, baseline_db=BASELINE_DB)
    splits = {"train": 900, "validation": 100, "test": 50, "image_shape": [3, 32, 32]}
    stored.study.set_user_attr(SPLITS, splits)
    draw = random.Random(1)
    for number in range(trials):
        pruned = number % 3 == 2
        stored.study.add_trial(
            make_trial(
                spec,
                draw,
                TrialState.PRUNED if pruned else TrialState.COMPLETE,
                epochs=3 if pruned else EPOCHS,
            )
        )
    return stored


def add(stored: StoredStudy, *args: Any, **more: Any) -> None:
    """Adds one trial; see ``make_trial``."""
    seed = len(stored.study.get_trials(deepcopy=False))
    stored.study.add_trial(make_trial(stored.spec, random.Random(seed), *args, **more))
