"""What a ``Trainer`` puts into a checkpoint, and whether it may resume from one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from searchae.config import TrainParams, TrialParams
from searchae.errors import DivergedError
from searchae.training.checkpoint import CheckpointError
from searchae.training.divergence import check_finite
from searchae.training.epoch import EpochResult

FORMAT, FORMAT_WITHIN = 2, 3
"""Version of the state; raised whenever its content changes. That of a state within an epoch
differs, so that an earlier version, which would take it for one between epochs, refuses it."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading a state raises that is none. Errors of the operating system are not among them."""


def _may_change(train: TrainParams) -> set[str]:
    """Returns the keys of ``[train]`` that do not change the weights after a given epoch."""
    keys = {"epochs", "patience", "min_delta_db"}
    return keys - {"cosine": {"epochs"}, "plateau": {"min_delta_db"}}.get(train.schedule, set())


def state_header(params: TrialParams, seed: int) -> dict[str, Any]:
    """Returns the part of a state that says which training it belongs to, as plain values."""
    train = params.train.document()
    for key in _may_change(params.train):
        del train[key]
    return {
        "format": FORMAT,
        "seed": seed,
        "params": {"model": params.model.document(), "train": train},
    }


def check_resumable(state: Mapping[str, Any], params: TrialParams, seed: int) -> None:
    """Checks that a state belongs to a training with these parameters and this seed.

    Args:
        state: The state to resume from.
        params: The trial that resumes; epochs and plateau rule may differ from the state's, where
            the learning rate does not depend on them.
        seed: The seed that it is trained with.

    Raises:
        CheckpointError: It has another format, seed or parameters.
    """
    if state.get("format") not in (FORMAT, FORMAT_WITHIN):
        raise CheckpointError(
            f"checkpoint: format {state.get('format')!r}, expected {FORMAT}: it is of another "
            "version of searchae; start the trial over"
        )
    for key, value in state_header(params, seed).items():
        if key == "format":
            continue
        if state.get(key) != value:
            raise CheckpointError(
                f"checkpoint: {key} = {state.get(key)!r}, but this trial has {value!r}"
            )


def restored_history(rows: Sequence[Mapping[str, Any]]) -> list[EpochResult]:
    """Returns the results of a state.

    Raises:
        ValueError: They are not those of the first epochs, one each, in order.
        TypeError: One of them is no result.
    """
    history = [EpochResult(**row) for row in rows]
    values = [value for result in history for value in asdict(result).values()]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise ValueError("its history holds something else than finite numbers")
    if [result.epoch for result in history] != list(range(1, len(history) + 1)):
        raise ValueError("its history lacks an epoch, or has one twice")
    return history


def check_restored(model: nn.Module, history: Sequence[EpochResult], params: TrialParams) -> None:
    """Checks that the weights of a state could be trained further.

    Raises:
        CheckpointError: One of them is NaN or infinite.
    """
    try:
        for result in history[-1:]:
            check_finite(model, result, params.train)
    except DivergedError as e:
        raise CheckpointError(f"checkpoint: is of no use: {e}") from e


def copy_to_cpu(value: Any) -> Any:
    """Copies tensors, dicts and lists deeply, tensors to the CPU; returns anything else as it is.

    A tensor that is on the CPU already is copied too, so that further training does not change it.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {k: copy_to_cpu(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copy_to_cpu(v) for v in value]
    return value
